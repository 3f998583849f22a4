import { describe, expect, test } from 'vitest'
import { findTemplate } from '../conversation/templates.ts'
import { encodeText } from '../conversation/tokenizer.ts'
import { assistantTurn, userTurn } from '../conversation/turns.ts'
import type { PatchLabels, Sample } from '../instruction-data/sample.ts'
import { answerInputs, encodeSample, labelInputs, stacked, wordInput } from './batches.ts'
import { tinyConfig as config, tinyTokenizer as tokenizer } from './tiny-lesson.fixture.ts'

const P = config.visualTokens
const { imageToken } = config
const template = findTemplate('picturebook')
const encoding = { tokenizer, template, imageToken, pictureTokens: P, length: 64 }

const sampleOf = (...answers: string[]): Pick<Sample, 'id' | 'turns'> => ({
  id: 'one',
  turns: answers.flatMap((answer, i) => [
    userTurn('What colour is it?', { images: i === 0 ? 1 : 0 }),
    assistantTurn(answer),
  ]),
})
const textSample = (...answers: string[]): Pick<Sample, 'id' | 'turns'> => ({
  id: 'text',
  turns: answers.flatMap((answer) => [userTurn('What colour is it?'), assistantTurn(answer)]),
})
const sum = (values: Iterable<number>) => [...values].reduce((a, b) => a + b, 0)

describe('encodeSample', () => {
  test('marks the answer and its end, and nothing else, as learned', () => {
    const { ids, loss, answers, pictures } = encodeSample(sampleOf('It is red.'), encoding)
    const pictureStart = pictures[0]?.start
    const [answer] = answers
    const expected = [...encodeText(tokenizer, ' It is red.', { continuation: true }), 2]
    expect([...ids.slice(answer!.start, answer!.end)]).toEqual(expected)
    expect(sum(loss)).toBe(expected.length)
    expect([...ids.slice(pictureStart!, pictureStart! + P)]).toEqual(Array(P).fill(config.imageToken))
    expect(ids.filter((id) => id === config.imageToken)).toHaveLength(P)
  })

  test('cuts after the last answer that fits whole', () => {
    const whole = encodeSample(sampleOf('It is red.', 'It is blue.', 'It is green.'), encoding)
    expect(whole.answers).toHaveLength(3)
    const [, second, third] = whole.answers
    for (const length of [second!.end, third!.end - 1]) {
      const cut = encodeSample(sampleOf('It is red.', 'It is blue.', 'It is green.'), { ...encoding, length })
      expect(cut.answers).toEqual(whole.answers.slice(0, 2))
      expect(cut.ids).toEqual(whole.ids.slice(0, second!.end))
      expect(cut.loss).toEqual(whole.loss.slice(0, second!.end))
    }
  })

  test('refuses a first answer that does not fit', () => {
    const { answers } = encodeSample(sampleOf('It is red.'), encoding)
    const length = answers[0]!.end - 1
    expect(() => encodeSample(sampleOf('It is red.'), { ...encoding, length })).toThrow(
      `Cannot train on sample one: its first answer ends after ${length + 1} tokens, expected at most ${length}`,
    )
  })

  test('makes room for each picture as it was planned, and drops those of questions that are cut off', () => {
    const turns = [
      userTurn('What?', { images: 2 }),
      assistantTurn('It is red.'),
      userTurn('And this?', { images: 1 }),
      assistantTurn('It is blue.'),
    ]
    const pictures = [5, 2, 3].map((length) => ({ views: 1, length }))
    const whole = encodeSample({ id: 'x', turns }, { ...encoding, pictures })
    expect(whole.pictures.map(({ length }) => length)).toEqual([5, 2, 3])
    for (const { start, length } of whole.pictures) {
      expect([...whole.ids.slice(start, start + length)]).toEqual(Array(length).fill(imageToken))
    }
    expect(whole.ids.filter((id) => id === imageToken)).toHaveLength(10)
    const cut = encodeSample({ id: 'x', turns }, { ...encoding, pictures, length: whole.ids.length - 1 })
    expect(cut.pictures).toEqual(whole.pictures.slice(0, 2))
    expect(cut.ids.filter((id) => id === imageToken)).toHaveLength(7)
  })

  test('takes a conversation without a picture, into L − P tokens', () => {
    const { ids, loss, answers, pictures } = encodeSample(textSample('It is red.', 'It is blue.'), encoding)
    expect(pictures).toEqual([])
    expect(answers).toHaveLength(2)
    expect([...ids]).not.toContain(config.imageToken)
    const [first, second] = answers
    expect(sum(loss)).toBe(first!.end - first!.start + second!.end - second!.start)
    const fits = encodeSample(textSample('It is red.', 'It is blue.'), { ...encoding, length: second!.end + P })
    expect(fits.answers).toHaveLength(2)
    const cut = encodeSample(textSample('It is red.', 'It is blue.'), { ...encoding, length: second!.end + P - 1 })
    expect(cut.answers).toEqual([first])
    expect(() => encodeSample(textSample('It is red.'), { ...encoding, length: first!.end + P - 1 })).toThrow(
      `its first answer ends after ${first!.end} tokens, expected at most ${first!.end - 1}`,
    )
  })

  test('refuses an answer with nothing before it', () => {
    const turns = [userTurn(''), assistantTurn('It is red.')]
    const plain = { ...encoding, template: findTemplate('plain'), tokenizer: { ...tokenizer, addsBos: false } }
    expect(() => encodeSample({ id: 'x', turns }, plain)).toThrow('its answer is the first token')
  })

  test('refuses a sample without an answer', () => {
    const turns = [userTurn('What?', { images: 1 })]
    expect(() => encodeSample({ id: 'x', turns }, encoding)).toThrow(/sample x/)
  })
})

describe('answerInputs', () => {
  const samples = [
    encodeSample(sampleOf('It is red.', 'It is blue.'), encoding),
    encodeSample(sampleOf('It is green.'), encoding),
  ]
  const learned = sum(samples.flatMap(({ loss }) => [...loss]))
  const length = 64

  test('predicts each learned token from the row before it', () => {
    const inputs = answerInputs(samples, { pictureTokens: P, length, tokenCount: learned })
    const ids = inputs.ids!.data
    const rows = [...inputs.targetRows!.data].map(Number).slice(0, learned)
    const expected = samples.flatMap(({ loss }, b) => [...loss].flatMap((on, t) => (on ? [b * length + t - 1] : [])))
    expect(rows).toEqual(expected)
    rows.forEach((row, i) => {
      expect(inputs.targets!.data[i]).toBe(ids[row + 1])
    })
  })

  test('weighs every learned token alike, all together 1, and padding 0', () => {
    const { targetWeights } = answerInputs(samples, { pictureTokens: P, length, tokenCount: learned })
    expect(targetWeights!.shape).toEqual([2 * (length - P)])
    expect(sum(targetWeights!.data as Float32Array)).toBeCloseTo(1, 6)
    expect(new Set(targetWeights!.data.slice(0, learned) as Float32Array).size).toBe(1)
    expect(sum(targetWeights!.data.slice(learned) as Float32Array)).toBe(0)
  })

  test('two accumulated parts weigh 1 together, each as many tokens as it has', () => {
    const parts = samples.map((sample) => answerInputs([sample], { pictureTokens: P, length, tokenCount: learned }))
    const weights = parts.map(({ targetWeights }) => sum(targetWeights!.data as Float32Array))
    expect(weights[0]! + weights[1]!).toBeCloseTo(1, 6)
    expect(weights[0]! / weights[1]!).toBeCloseTo(sum(samples[0]!.loss) / sum(samples[1]!.loss), 5)
  })

  test('says where the visual tokens of each picture stand', () => {
    const { places, ids } = answerInputs(samples, { pictureTokens: P, length, tokenCount: learned })
    expect(places!.shape).toEqual([2 * P])
    const at = Array.from(places!.data, Number)
    for (const place of at) expect(ids!.data[place]).toBe(BigInt(config.imageToken))
    expect(new Set(at).size).toBe(2 * P)
  })

  test('puts the blank picture of a sample without one behind its text', () => {
    const text = encodeSample(textSample('It is red.'), { ...encoding, length })
    const { places, ids, targetRows } = answerInputs([text, samples[1]!], { pictureTokens: P, length, tokenCount: 1 })
    const own = Array.from(places!.data, Number).slice(0, P)
    expect(own).toEqual([60, 61, 62, 63])
    for (const place of own) {
      expect(place).toBeGreaterThanOrEqual(text.ids.length)
      expect(ids!.data[place]).toBe(0n)
      expect([...targetRows!.data]).not.toContain(BigInt(place))
    }
    expect(new Set(Array.from(places!.data, Number)).size).toBe(2 * P)
  })
})

describe('labels of patches', () => {
  const labelled = (parts: number[], centers: number[]): PatchLabels => ({
    parts: () => Int32Array.from(parts),
    centers: () => Int32Array.from(centers),
  })
  const pictures = [labelled([1, 5, 5, 1], [1, 5, 1, 1]), labelled([7, 0, 5, 5], [7, 0, 0, 5])]
  const backgrounds = 3

  test('weigh `share` together, background less than objects', () => {
    const { targets, targetWeights } = labelInputs(pictures, { backgrounds, backgroundWeight: 0.25, share: 0.5 })
    expect([...targets!.data]).toEqual([1, 1, 5, 5, 5, 1, 1, 1, 7, 7, 0, 0, 5, 0, 5, 5].map(BigInt))
    const weights = targetWeights!.data as Float32Array
    expect(sum(weights)).toBeCloseTo(0.5, 6)
    expect(weights[0]! / weights[2]!).toBeCloseTo(0.25, 6)
  })

  test('of pictures without any object and without background weight teach nothing', () => {
    const { targetWeights } = labelInputs([labelled([0, 2], [0, 2])], {
      backgrounds,
      backgroundWeight: 0,
      share: 1,
    })
    expect([...targetWeights!.data]).toEqual([0, 0, 0, 0])
  })

  test('become the words of a picture', () => {
    const wordIds = [10, 11, 12, 13, 14, 15, 16, 17]
    const { words, patches } = wordInput(pictures, { wordIds, count: 4, backgrounds })
    expect(words.shape).toEqual([2, 4])
    expect([...words.data]).toEqual([11n, 15n, 11n, 11n, 17n, 10n, 10n, 15n])
    expect([...patches.data]).toEqual([0n, 1n, 2n, 3n, 0n, 1n, 2n, 3n])
  })

  test('keep every thing when patches are left out, and the places of those that stay', () => {
    const wordIds = [10, 11, 12, 13, 14, 15, 16, 17]
    const [, second] = pictures
    for (const count of [2, 3]) {
      const { words, patches } = wordInput([second!], { wordIds, count, backgrounds })
      const written = new Map([...patches.data].map((patch, index) => [Number(patch), Number(words.data[index])]))
      expect(written.size).toBe(count)
      expect([written.get(0), written.get(3)]).toEqual([17, 15])
    }
    expect(() => wordInput([second!], { wordIds, count: 1, backgrounds })).toThrow('it has 2 things')
  })

  test('are zeros where a picture is missing', () => {
    const { words, patches } = wordInput([undefined, pictures[1]], {
      wordIds: [10, 11, 12, 13, 14, 15, 16, 17],
      count: 4,
      backgrounds,
    })
    expect([...words.data]).toEqual([0n, 0n, 0n, 0n, 17n, 10n, 10n, 15n])
    expect([...patches.data]).toEqual([0n, 0n, 0n, 0n, 0n, 1n, 2n, 3n])
  })
})

test('stacked arrays lie side by side, zeros where one is missing', () => {
  const { shape, data } = stacked([Float32Array.of(1, 2), undefined, Float32Array.of(3, 4)], {
    shape: [1, 2],
    count: 4,
  })
  expect(shape).toEqual([4, 1, 2])
  expect([...data]).toEqual([1, 2, 0, 0, 3, 4, 0, 0])
})
