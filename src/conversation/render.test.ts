import { describe, expect, test } from 'vitest'
import { renderTurns, type Segment, segmentsToText } from './render.ts'
import { findTemplate } from './templates.ts'
import { assistantTurn, systemTurn, type Turn, userTurn } from './turns.ts'

const one = [userTurn('Q1', { images: 1 })]
const two = [...one, assistantTurn('A1'), userTurn('Q2')]
const answered = [...two, assistantTurn('A2')]

const human =
  "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions."
const user = human.replaceAll('human', 'user')
const vision =
  'You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, and assist the user with a variety of tasks using natural language.'
const mpt =
  'A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.'

function prompt(name: string, turns: readonly Turn[]): string {
  return segmentsToText(renderTurns(findTemplate(name), turns, { generationPrompt: true }))
}

function learned(name: string, turns: readonly Turn[]): string {
  const carries = (segment: Segment) => !('image' in segment) && segment.loss
  return segmentsToText(renderTurns(findTemplate(name), turns).filter(carries))
}

describe('a rendered prompt', () => {
  test.each([
    ['vicuna_v1', `${user} USER: <image>\nQ1 ASSISTANT:`],
    ['llava_v1', `${human} USER: <image>\nQ1 ASSISTANT:`],
    ['picturebook', 'USER: <image>\nQ1 ASSISTANT:'],
    ['llava_llama_2', `[INST] <<SYS>>\n${vision}\n<</SYS>>\n\n<image>\nQ1 [/INST]`],
    ['mistral_instruct', '[INST] <image>\nQ1 [/INST]'],
    [
      'chatml_direct',
      '<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|><|im_start|>assistant\n',
    ],
    ['mpt', `<|im_start|>system\n${mpt}<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|><|im_start|>assistant\n`],
    ['llava_v0', `${human}###Human: <image>\nQ1###Assistant:`],
    ['plain', '<image>'],
  ])('of one question in %s', (name, expected) => {
    expect(prompt(name, one)).toBe(expected)
  })

  test.each([
    ['vicuna_v1', `${user} USER: <image>\nQ1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:`],
    ['llava_v1', `${human} USER: <image>\nQ1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:`],
    ['picturebook', 'USER: <image>\nQ1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:'],
    ['llava_llama_2', `[INST] <<SYS>>\n${vision}\n<</SYS>>\n\n<image>\nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST]`],
    ['mistral_instruct', '[INST] <image>\nQ1 [/INST] A1 </s>[INST] Q2 [/INST]'],
    [
      'chatml_direct',
      '<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\nQ1<|im_end|><|im_start|>assistant\nA1<|im_end|><|im_start|>user\nQ2<|im_end|><|im_start|>assistant\n',
    ],
    ['llava_v0', `${human}###Human: <image>\nQ1###Assistant: A1###Human: Q2###Assistant:`],
  ])('of two questions in %s', (name, expected) => {
    expect(prompt(name, two)).toBe(expected)
  })

  test('takes the system prompt of the conversation when it has one', () => {
    const turns = [systemTurn('Be brief.'), userTurn('Q1')]
    expect(prompt('vicuna_v1', turns)).toBe('Be brief. USER: Q1 ASSISTANT:')
    expect(prompt('picturebook', turns)).toBe('Be brief. USER: Q1 ASSISTANT:')
  })

  test('puts each picture on a line of its own before the question', () => {
    expect(prompt('picturebook', [userTurn('Q1', { images: 2 })])).toBe('USER: <image>\n<image>\nQ1 ASSISTANT:')
  })

  test('without a generation prompt starts no answer in chatml', () => {
    const text = segmentsToText(renderTurns(findTemplate('chatml_direct'), one))
    expect(text.endsWith('Q1<|im_end|>')).toBe(true)
  })
})

describe('loss', () => {
  test.each([
    ['vicuna_v1', ' A1</s> A2</s>'],
    ['picturebook', ' A1</s> A2</s>'],
    ['llava_llama_2', ' A1 </s> A2 </s>'],
    ['mistral_instruct', ' A1 </s> A2 </s>'],
    ['chatml_direct', 'A1<|im_end|>A2<|im_end|>'],
    ['llava_v0', ' A1### A2###'],
  ])('in %s lies on the answers and what ends them', (name, expected) => {
    expect(learned(name, answered)).toBe(expected)
  })

  test('in plain lies on the caption and its line break, and the question is left out', () => {
    const turns = [userTurn('Describe it.', { images: 1 }), assistantTurn('a cat')]
    expect(segmentsToText(renderTurns(findTemplate('plain'), turns))).toBe('<image>a cat\n')
    expect(learned('plain', turns)).toBe('a cat\n')
  })
})

describe('refuses', () => {
  const template = findTemplate('picturebook')
  test.each<[string, Turn[], RegExp]>([
    [
      'an empty question',
      [userTurn('  ', { images: 1 })],
      /Cannot render turn 0: found an empty question, expected text/,
    ],
    ['an empty answer', [userTurn('Q'), assistantTurn('')], /turn 1: found an empty answer/],
    ['two questions in a row', [userTurn('Q'), userTurn('Q')], /turn 1: found role user, expected assistant/],
    ['an answer at the start', [assistantTurn('A')], /turn 0: found role assistant, expected user/],
    ['no question', [systemTurn('S')], /found no question/],
    [
      'a picture in an answer',
      [userTurn('Q'), { role: 'assistant', content: [{ type: 'image' }, { type: 'text', text: 'A' }] }],
      /turn 1: found a picture in a turn of role assistant/,
    ],
  ])('%s', (_, turns, message) => {
    expect(() => renderTurns(template, turns)).toThrow(message)
    expect(() => renderTurns(template, turns)).toThrow(RangeError)
  })

  test('a generation prompt after an answer', () => {
    expect(() => renderTurns(template, answered, { generationPrompt: true })).toThrow(/expected a question/)
  })

  test('more than one caption in plain, and an unknown template', () => {
    expect(() => renderTurns(findTemplate('plain'), answered)).toThrow(/found 2 exchanges/)
    expect(() => findTemplate('vicuna_v9')).toThrow(/expected one of vicuna_v1, llava_v1/)
  })
})
