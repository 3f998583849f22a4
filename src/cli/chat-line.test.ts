import { expect, test } from 'vitest'
import { readChatLine } from './chat-line.ts'

test.each([
  ['  What is it?  ', { kind: 'question', text: 'What is it?' }],
  ['   ', { kind: 'empty' }],
  ['/quit', { kind: 'quit' }],
  ['/exit', { kind: 'quit' }],
  ['/clear', { kind: 'clear' }],
  ['/help', { kind: 'help' }],
  ['/image a b.png', { kind: 'image', path: 'a b.png' }],
  ["/image 'a b.png' ", { kind: 'image', path: 'a b.png' }],
  ['/image "a b.png"', { kind: 'image', path: 'a b.png' }],
  ['/image a\\ b.png', { kind: 'image', path: 'a b.png' }],
  ['/image', { kind: 'image', path: '' }],
  ['/imagine x', { kind: 'unknown', name: '/imagine' }],
])('%j', (line, meaning) => expect(readChatLine(line)).toEqual(meaning))
