import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  candidates,
  checkSamplingOptions,
  chooseToken,
  draw,
  greedy,
  logProbabilities,
  penalise,
  type SamplingOptions,
  seededRandom,
} from './sampling.ts'

/** Logits of the given probabilities. */
const of = (...probabilities: number[]) => Float32Array.from(probabilities, Math.log)
const tokens = (logits: Float32Array, options: SamplingOptions) => candidates(logits, options).map(({ token }) => token)

describe('greedy', () => {
  test('takes the largest, of equal ones the lowest id', () => {
    expect(greedy(Float32Array.of(-3, 2, 5, 5, 1))).toBe(2)
    expect(greedy(Float32Array.of(Number.NEGATIVE_INFINITY, -7, -7))).toBe(1)
  })

  test.each([
    [Float32Array.of(1, Number.NaN, 2), /logit 1 of 3 is NaN/],
    [Float32Array.of(1, 2, Number.POSITIVE_INFINITY), /logit 2 of 3 is Infinity/],
    [new Float32Array(3).fill(Number.NEGATIVE_INFINITY), /no logit of 3 is above -Infinity/],
  ])('refuses logits that are no numbers: %s', (logits, message) => {
    expect(() => greedy(logits)).toThrow(message)
    expect(() => candidates(logits, {})).toThrow(message)
  })
})

describe('candidates', () => {
  const logits = of(0.1, 0.4, 0.2, 0.05, 0.25)

  test('are the softmax at temperature 1', () => {
    const found = new Map(candidates(logits, {}).map(({ token, probability }) => [token, probability]))
    for (const [token, probability] of [0.1, 0.4, 0.2, 0.05, 0.25].entries()) {
      expect(found.get(token)).toBeCloseTo(probability, 6)
    }
  })

  test('become sharper below temperature 1 and flatter above', () => {
    const best = (temperature: number) => Math.max(...candidates(logits, { temperature }).map((c) => c.probability))
    expect(best(0.5)).toBeCloseTo(0.16 / (0.01 + 0.16 + 0.04 + 0.0025 + 0.0625), 5)
    expect(best(100)).toBeLessThan(0.21)
    expect(best(1e-320)).toBe(1)
  })

  test('top-k keeps the k most likely, ties to the lowest ids', () => {
    expect(tokens(logits, { topK: 2 })).toEqual([1, 4])
    expect(tokens(of(0.2, 0.2, 0.4, 0.2), { topK: 2 })).toEqual([2, 0])
    expect(tokens(logits, { topK: 99 })).toHaveLength(5)
  })

  test('top-p keeps the smallest set that reaches p, at least one', () => {
    expect(tokens(logits, { topP: 0.64 })).toEqual([1, 4])
    expect(tokens(logits, { topP: 0.66 })).toEqual([1, 4, 2])
    expect(tokens(logits, { topP: 0.001 })).toEqual([1])
  })

  test('top-p counts within what top-k has left', () => {
    expect(tokens(logits, { topK: 2, topP: 0.6 })).toEqual([1]) // 0.4 / 0.65
    expect(tokens(logits, { topK: 2, topP: 0.62 })).toEqual([1, 4])
  })

  test('min-p keeps what is likely enough beside the best', () => {
    expect(tokens(logits, { minP: 0.45 })).toEqual([1, 2, 4])
    expect(tokens(logits, { minP: 1 })).toEqual([1])
  })

  test('tokens of negative infinity never come', () => {
    const masked = Float32Array.of(0, Number.NEGATIVE_INFINITY, 1)
    for (const options of [{}, { topK: 3 }, { topP: 0.9999 }]) expect(tokens(masked, options)).not.toContain(1)
  })

  test('agree with sorting everything, also far below the most likely token', () => {
    const logit = fc.float({ min: -40, max: 5, noNaN: true })
    const property = fc.property(
      fc.array(logit, { minLength: 1, maxLength: 40 }),
      fc.integer({ min: 1, max: 50 }),
      fc.double({ min: 0.01, max: 1, noNaN: true }),
      (values, topK, topP) => {
        const row = Float32Array.from(values)
        const ranked = [...row.keys()].sort((a, b) => row[b]! - row[a]! || a - b).slice(0, topK)
        const mass = ranked.reduce((sum, token) => sum + Math.exp(row[token]!), 0)
        const massOf = (i: number) => ranked.slice(0, i).reduce((sum, token) => sum + Math.exp(row[token]!), 0)
        const found = tokens(row, { topK, topP })
        expect(found.length).toBeGreaterThan(0)
        if (topK < values.length || topP < 1) expect(found).toEqual(ranked.slice(0, found.length))
        if (topP < 1) {
          expect(massOf(found.length - 1)).toBeLessThan(topP * mass * (1 + 1e-9))
          expect(massOf(found.length)).toBeGreaterThan(topP * mass * (1 - 1e-9))
        } else expect(found).toHaveLength(Math.min(topK, values.length))
      },
    )
    fc.assert(property, { seed: 1 })
  })
})

test('drawn tokens follow their probabilities', () => {
  const [random, counts] = [seededRandom(7), [0, 0, 0]]
  const from = candidates(of(0.5, 0.3, 0.2), {})
  for (let i = 0; i < 10_000; i++) counts[draw(from, random())]!++
  for (const [token, probability] of [0.5, 0.3, 0.2].entries()) {
    expect(counts[token]! / 10_000).toBeCloseTo(probability, 1.5)
  }
  expect(draw(from, 1 - 1e-17)).toBe(2)
})

test('a seed fixes the choices, another seed changes them', () => {
  const choices = (seed: number) => {
    const random = seededRandom(seed)
    const logits = new Float32Array(50)
    return Array.from({ length: 20 }, () => chooseToken(logits, { options: { temperature: 1 }, seen: [], random }))
  }
  expect(choices(3)).toEqual(choices(3))
  expect(choices(3)).not.toEqual(choices(4))
  expect(choices(3)).not.toEqual(choices(3 + 2 ** 32))
})

test('the repetition penalty makes seen tokens less likely on both sides of zero, once each', () => {
  const logits = Float32Array.of(2, -2, 1)
  expect([...penalise(logits, { seen: [0, 1, 0], penalty: 4 })]).toEqual([0.5, -8, 1])
  expect([...logits]).toEqual([2, -2, 1])
  expect(chooseToken(logits, { options: { repetitionPenalty: 4 }, seen: [0], random: () => 0 })).toBe(2)
})

test('log-probabilities are those of the model, with the most likely tokens beside', () => {
  const { logprob, alternatives } = logProbabilities(of(0.1, 0.6, 0.3), { token: 0, count: 2 })
  expect(logprob).toBeCloseTo(Math.log(0.1), 5)
  expect(alternatives.map(({ token }) => token)).toEqual([1, 2])
  expect(alternatives[0]?.logprob).toBeCloseTo(Math.log(0.6), 5)
  expect(logProbabilities(of(0.5, 0.5), { token: 0, count: 0 }).alternatives).toEqual([])
})

test.each([
  [{ temperature: -1 }, /temperature is -1/],
  [{ temperature: Number.NaN }, /temperature is NaN/],
  [{ topK: 0 }, /topK is 0/],
  [{ topK: 1.5 }, /topK is 1.5/],
  [{ topP: 0 }, /topP is 0/],
  [{ topP: 1.1 }, /topP is 1.1/],
  [{ minP: -0.1 }, /minP is -0.1/],
  [{ repetitionPenalty: 0 }, /repetitionPenalty is 0/],
  [{ seed: 0.5 }, /seed is 0.5/],
])('refuses %j', (options, message) => {
  expect(() => checkSamplingOptions(options)).toThrow(message)
  expect(() => checkSamplingOptions(options)).toThrow(RangeError)
})
