import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { fromFloat32, toFloat32, type WeightDtype } from './dtype.ts'

function bytes(...words: number[]): Uint8Array {
  return new Uint8Array(Uint16Array.from(words).buffer)
}

function words(dtype: WeightDtype, ...values: number[]): number[] {
  return [...new Uint16Array(fromFloat32(dtype, Float32Array.from(values)).slice().buffer)]
}

/** The obvious way: of the candidates around a value, the nearest; of two equally near ones, the even one. */
function slowNearest(value: number, sorted: { value: number; bits: number }[]): number {
  let low = 0
  let high = sorted.length - 1
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (sorted[middle]!.value <= value) low = middle
    else high = middle
  }
  const [a, b] = [sorted[low]!, sorted[high]!]
  const [da, db] = [value - a.value, b.value - value]
  if (da === db) return a.bits % 2 === 0 ? a.bits : b.bits
  return da < db ? a.bits : b.bits
}

describe('F16', () => {
  test('decodes known bit patterns', () => {
    const values = toFloat32('F16', bytes(0x3c00, 0xc000, 0x7bff, 0x0001, 0x0400, 0x7c00, 0xfc00, 0x3555, 0x8000))
    expect([...values]).toEqual([1, -2, 65504, 2 ** -24, 2 ** -14, Infinity, -Infinity, 0.333251953125, -0])
    expect(toFloat32('F16', bytes(0x7e01))[0]).toBeNaN()
  })

  test('every half survives the way to float32 and back', () => {
    const all = Array.from({ length: 65_536 }, (_, i) => i).filter((i) => (i & 0x7fff) <= 0x7c00)
    expect(words('F16', ...toFloat32('F16', bytes(...all)))).toEqual(all)
  })

  test('rounds to the nearest half, ties to even, like a search over all halves', () => {
    const positive = Array.from({ length: 0x7c00 }, (_, bits) => ({ bits, value: toFloat32('F16', bytes(bits))[0]! }))
    // For rounding, infinity stands where the next half would be.
    const sorted = [...positive, { bits: 0x7c00, value: 65_536 }]
    const interesting = fc.oneof(
      fc.float({ min: 0, max: 65_535, noNaN: true }),
      fc.float({ min: 0, max: Math.fround(1e-4), noNaN: true }),
      fc.integer({ min: 0, max: 0x7bfe }).map((i) => (sorted[i]!.value + sorted[i + 1]!.value) / 2),
    )
    fc.assert(
      fc.property(interesting, (value) => {
        expect(words('F16', value)).toEqual([slowNearest(value, sorted)])
        expect(words('F16', -value)).toEqual([slowNearest(value, sorted) | 0x8000])
      }),
      { numRuns: 2000 },
    )
  })

  test('keeps infinities and NaN, and overflows to infinity', () => {
    expect(words('F16', Infinity, -Infinity, 65_519.99, 65_520, 1e30, -1e30)).toEqual([
      0x7c00, 0xfc00, 0x7bff, 0x7c00, 0x7c00, 0xfc00,
    ])
    expect(toFloat32('F16', fromFloat32('F16', Float32Array.of(Number.NaN)))[0]).toBeNaN()
  })
})

describe('BF16', () => {
  test('is the upper half of a float32', () => {
    expect([...toFloat32('BF16', bytes(0x3f80, 0xc000, 0x7f80))]).toEqual([1, -2, Infinity])
  })

  test('rounds to the nearest, ties to even', () => {
    const tie = new Float32Array(Uint32Array.of(0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x3f80_7fff, 0xbf81_8000).buffer)
    expect(words('BF16', ...tie)).toEqual([0x3f80, 0x3f82, 0x3f81, 0x3f80, 0xbf82])
    expect(words('BF16', 3.4e38, -3.4e38)).toEqual([0x7f80, 0xff80])
  })

  test('NaN whose payload sits in the lower bits stays NaN', () => {
    const nan = new Float32Array(Uint32Array.of(0x7f80_0001).buffer)
    expect(toFloat32('BF16', fromFloat32('BF16', nan))[0]).toBeNaN()
  })

  test('every bfloat16 survives the way to float32 and back', () => {
    const all = Array.from({ length: 65_536 }, (_, i) => i).filter((i) => (i & 0x7fff) <= 0x7f80)
    expect(words('BF16', ...toFloat32('BF16', bytes(...all)))).toEqual(all)
  })
})

describe('toFloat32', () => {
  test('rounds F64 and reads unaligned bytes', () => {
    const stored = new Uint8Array(17)
    stored.set(new Uint8Array(Float64Array.of(Math.PI, -1).buffer), 1)
    expect([...toFloat32('F64', stored.subarray(1))]).toEqual([Math.fround(Math.PI), -1])
  })

  test('refuses integers and partial elements', () => {
    expect(() => toFloat32('I64', new Uint8Array(8))).toThrow(TypeError)
    expect(() => toFloat32('F32', new Uint8Array(6))).toThrow(
      new RangeError('Cannot convert 6 bytes of F32, expected a multiple of 4'),
    )
  })
})
