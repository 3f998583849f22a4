import { describe, expect, test } from 'vitest'
import { initialWeight } from './initialization.ts'

const options = { seed: 0, depth: 8 }
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
    { name: 'languageModel.tokenEmbedding.weight', expected: 0.02 },
    { name: 'languageModel.blocks.3.attention.query.weight', expected: 0.02 },
    { name: 'languageModel.blocks.3.attention.output.weight', expected: 0.02 / 4 },
    { name: 'languageModel.blocks.3.mlp.down.weight', expected: 0.02 / 4 },
    { name: 'projector.layers.0.weight', expected: 0.02 },
    { name: 'projector.layers.1.weight', expected: 0.01 },
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
})
