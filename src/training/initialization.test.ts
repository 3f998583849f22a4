import { describe, expect, test } from 'vitest'
import { initialWeight } from './initialization.ts'

const options = { seed: 0, depth: 8 }
const dot = (a: Float32Array, b: Float32Array) => a.reduce((total, x, i) => total + x * b[i]!, 0)
const deviation = (values: Float32Array) => Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length)

describe('initialWeight', () => {
  test.each([
    'languageModel.norm.weight',
    'languageModel.blocks.0.norm2.weight',
    'visionEncoder.preNorm.weight',
  ])('%s starts as the identity', (name) => {
    expect(new Set(initialWeight({ name, shape: [5] }, options))).toEqual(new Set([1]))
  })

  test('biases start at 0', () => {
    expect(new Set(initialWeight({ name: 'visionEncoder.blocks.0.mlp.up.bias', shape: [5] }, options))).toEqual(
      new Set([0]),
    )
  })

  test.each([
    { name: 'languageModel.tokenEmbedding.weight', expected: 1 },
    { name: 'languageModel.head.weight', expected: 0.04 },
    { name: 'languageModel.blocks.3.attention.query.weight', expected: 1 / Math.sqrt(128) },
    { name: 'languageModel.blocks.3.attention.value.weight', expected: 1 / Math.sqrt(128) },
    { name: 'languageModel.blocks.3.mlp.down.weight', expected: 1 / Math.sqrt(128) / 4 },
    { name: 'visionEncoder.blocks.3.attention.query.weight', expected: 1 / Math.sqrt(128) },
    { name: 'visionEncoder.patchEmbedding.weight', expected: 0.02 },
    { name: 'projector.layers.0.weight', expected: 1 / Math.sqrt(3 * 128) },
  ])('$name is normal with deviation $expected', ({ name, expected }) => {
    const values = initialWeight({ name, shape: [64, 128] }, options)
    expect(deviation(values) / expected).toBeCloseTo(1, 1)
    expect(Math.abs(values.reduce((a, b) => a + b, 0) / values.length)).toBeLessThan(expected * 0.05)
    const beyondTwo = values.filter((x) => Math.abs(x) > 2 * expected).length / values.length
    expect(beyondTwo).toBeGreaterThan(0.03)
    expect(beyondTwo).toBeLessThan(0.06)
  })

  test('depends on name and seed alone', () => {
    const make = (name: string, seed: number) => initialWeight({ name, shape: [4, 4] }, { seed, depth: 2 })
    expect(make('projector.layers.0.weight', 1)).toEqual(make('projector.layers.0.weight', 1))
    expect(make('projector.layers.0.weight', 1)).not.toEqual(make('projector.layers.0.weight', 2))
    expect(make('projector.layers.0.weight', 1)).not.toEqual(make('projector.layers.1.weight', 1))
  })

  test('lets the language model find a token by its like and say it', () => {
    const D = 64
    const make = (name: string) => initialWeight({ name: `languageModel.${name}`, shape: [D, D] }, options)
    const [query, key, value, output] = ['query', 'key', 'value', 'output'].map((part) =>
      make(`blocks.0.attention.${part}.weight`),
    )
    const [words, head] = [make('tokenEmbedding.weight'), make('head.weight')] // 64 words
    const row = (matrix: Float32Array, index: number) => matrix.subarray(index * D, (index + 1) * D)
    const apply = (matrix: Float32Array, x: Float32Array) =>
      Float32Array.from({ length: D }, (_, index) => dot(row(matrix, index), x))
    const best = (scores: Float32Array) => scores.indexOf(Math.max(...scores))
    const asked = row(words, 7)
    const keys = Array.from({ length: D }, (_, word) => apply(key!, row(words, word)))
    const scores = Float32Array.from(keys, (found) => dot(found, apply(query!, asked)))
    expect(best(scores)).toBe(7)
    const copied = apply(output!, apply(value!, asked))
    expect(best(apply(head, copied))).toBe(7)
    expect(best(apply(words, copied))).toBe(7)
    expect(best(apply(head, asked))).not.toBe(7)
  })
})
