import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { readWords } from './ask.ts'
import { traceTable } from './trace.ts'

const thisFile = fileURLToPath(import.meta.url)

describe('readWords', () => {
  test('the last word is the question', async () => {
    expect(await readWords(['a.png', '-', 'What?'])).toEqual({ pictures: ['a.png', '-'], question: 'What?' })
    expect(await readWords(['What?'])).toEqual({ pictures: [], question: 'What?' })
  })

  test('a forgotten or misplaced question is noticed', async () => {
    await expect(readWords([])).rejects.toThrow('the question is empty')
    await expect(readWords(['a.png', ' \t'])).rejects.toThrow('the question is empty')
    await expect(readWords(['What?', thisFile])).rejects.toThrow(
      `found the file ${thisFile} in the place of the question`,
    )
    await expect(readWords(['-'])).rejects.toThrow('found the file - in the place of the question')
    await expect(readWords(['-', '-', 'What?'])).rejects.toThrow('found - more than once')
  })
})

test('a trace is a table of names, shapes, means and deviations', () => {
  const arrays = new Map([
    ['pixels', { shape: [2, 2], data: [1, -1, 1, -1] }],
    ['logits', { shape: [1], data: [12.5] }],
  ])
  expect(traceTable(arrays)).toEqual([
    'name    shape       mean      std',
    'pixels  [2, 2]   0.00000  1.00000',
    'logits  [1]     12.50000  0.00000',
  ])
})
