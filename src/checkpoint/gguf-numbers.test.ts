import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { toFloat32 } from './dtype.ts'
import { fittingDtype, ggufBytes, toGguf } from './gguf-numbers.ts'

/** The slow way back: one weight of a block at a time, as the format is described. */
function dequantize(dtype: 'Q8_0' | 'Q4_0', bytes: Uint8Array): number[] {
  const size = dtype === 'Q8_0' ? 34 : 18
  return Array.from({ length: bytes.length / size }, (_, b) => bytes.slice(b * size, (b + 1) * size)).flatMap(
    (block) => {
      const scale = toFloat32('F16', block.slice(0, 2))[0]!
      return Array.from({ length: 32 }, (_, i) => {
        if (dtype === 'Q8_0') return scale * new Int8Array(block.buffer)[2 + i]!
        const byte = block[2 + (i % 16)]!
        return scale * ((i < 16 ? byte & 15 : byte >> 4) - 8)
      })
    },
  )
}

const weights = fc
  .array(fc.float({ min: -8, max: 8, noNaN: true }), { minLength: 32, maxLength: 32 })
  .map((values) => Float32Array.from(values))

describe('blocks of 32 weights', () => {
  test.each([
    ['Q8_0', 1 / 127, 0.5],
    ['Q4_0', 1 / 8, 1],
  ] as const)('%s: every weight is within its step of what it was', (dtype, step, share) => {
    fc.assert(
      fc.property(weights, (values) => {
        const bytes = toGguf(dtype, values)
        expect(bytes.length).toBe(ggufBytes(dtype, values.length))
        const largest = Math.max(...values.map(Math.abs))
        // The scale is a float16: 11 bits, or a fixed step below 6e-5.
        const bound = largest * step * share + (largest * 2 ** -11 + 127 * 2 ** -25)
        for (const [i, value] of dequantize(dtype, bytes).entries()) {
          expect(Math.abs(value - values[i]!)).toBeLessThanOrEqual(bound * 1.001)
        }
      }),
    )
  })

  test('zeros stay zeros, and the largest weight of Q4_0 keeps its sign', () => {
    for (const dtype of ['Q8_0', 'Q4_0'] as const) {
      expect(dequantize(dtype, toGguf(dtype, new Float32Array(32))).every((value) => value === 0)).toBe(true)
    }
    for (const extreme of [-4, 4]) {
      const values = new Float32Array(32).fill(0.5)
      values[17] = extreme
      expect(dequantize('Q4_0', toGguf('Q4_0', values))[17]).toBe(extreme)
    }
  })

  test('a partial block is refused, and rows without whole blocks become float16', () => {
    expect(() => toGguf('Q8_0', new Float32Array(33))).toThrow('Cannot write 33 weights as Q8_0')
    expect([fittingDtype('Q4_0', 48), fittingDtype('Q4_0', 64), fittingDtype('F32', 48)]).toEqual([
      'F16',
      'Q4_0',
      'F32',
    ])
  })
})
