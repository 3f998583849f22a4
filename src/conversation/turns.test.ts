import { describe, expect, test } from 'vitest'
import {
  assistantTurn,
  countPictures,
  fromLlavaConversations,
  systemTurn,
  toLlavaConversations,
  userTurn,
} from './turns.ts'

const text = (value: string) => ({ type: 'text', text: value })
const image = { type: 'image' }

describe('LLaVA JSON', () => {
  test('moves <image> to the front of its turn and trims the text around it', () => {
    const turns = fromLlavaConversations([
      { from: 'human', value: 'What is this?\n<image>' },
      { from: 'gpt', value: 'A cat.' },
      { from: 'human', value: ' Why? ' },
    ])
    expect(turns).toEqual([
      { role: 'user', content: [image, text('What is this?')] },
      { role: 'assistant', content: [text('A cat.')] },
      { role: 'user', content: [text(' Why? ')] },
    ])
  })

  test('reads several pictures and leaves <image> in an answer alone', () => {
    const turns = fromLlavaConversations([
      { from: 'human', value: '<image>\n<image>\nCompare' },
      { from: 'gpt', value: 'I saw <image>' },
    ])
    expect(countPictures(turns)).toBe(2)
    expect(turns[1]).toEqual(assistantTurn('I saw <image>'))
  })

  test('drops an answer that comes before the first question', () => {
    const row = [
      { from: 'system', value: 'Be brief.' },
      { from: 'gpt', value: 'Hello' },
      { from: 'human', value: 'Hi' },
    ]
    expect(fromLlavaConversations(row)).toEqual([systemTurn('Be brief.'), userTurn('Hi')])
  })

  test('names the message it cannot read', () => {
    expect(() => fromLlavaConversations([{ from: 'robot', value: 'x' }])).toThrow(/message 0: found from "robot"/)
    const broken = JSON.parse('[{"from":"human"}]')
    expect(() => fromLlavaConversations(broken)).toThrow(SyntaxError)
  })

  test('comes back from turns unchanged', () => {
    const row = [
      { from: 'human', value: '<image>\nWhat is this?' },
      { from: 'gpt', value: 'A cat.' },
    ]
    expect(toLlavaConversations(fromLlavaConversations(row))).toEqual(row)
  })

  test('refuses to write a question that holds the picture mark as text', () => {
    expect(() => toLlavaConversations([userTurn('What does <image> mean?')])).toThrow(RangeError)
  })
})

test('a user turn never reads pictures out of its text', () => {
  expect(countPictures([userTurn('<image>\nhello')])).toBe(0)
  expect(countPictures([userTurn('hello', { images: 2 })])).toBe(2)
  expect(() => userTurn('hello', { images: -1 })).toThrow(RangeError)
})
