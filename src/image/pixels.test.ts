import { describe, expect, test } from 'vitest'
import { filledPixels, paste, pixels } from './pixels.ts'

describe('pixels', () => {
  test('wraps the bytes without copying them', () => {
    const data = new Uint8Array(2 * 3 * 3)
    expect(pixels(2, 3, data)).toEqual({ width: 2, height: 3, data })
    expect(pixels(2, 3, data).data).toBe(data)
  })

  test('refuses a length that does not match, naming both', () => {
    expect(() => pixels(2, 3, new Uint8Array(24))).toThrow(
      new RangeError('Cannot make a picture of 2x3: found 24 bytes, expected 18'),
    )
  })

  test.each([
    [0, 3],
    [3, 0],
    [-1, 3],
    [1.5, 2],
    [Number.NaN, 2],
    [2 ** 40, 2],
  ])('refuses sides %d and %d', (w, h) => {
    expect(() => pixels(w, h, new Uint8Array(18))).toThrow(RangeError)
  })

  test('refuses bytes of another kind', () => {
    expect(() => pixels(1, 1, [1, 2, 3] as unknown as Uint8Array)).toThrow(TypeError)
  })
})

test('filledPixels refuses a picture that would not fit into memory before allocating it', () => {
  expect(() => filledPixels(1_000_000, 1_000_000)).toThrow('expected at most 134217728 pixels')
})

test('paste puts a picture where it belongs and refuses one that overhangs', () => {
  const target = filledPixels(3, 2, [9, 8, 7])
  paste(target, filledPixels(1, 2, [1, 2, 3]), { x: 1, y: 0 })
  expect([...target.data]).toEqual([9, 8, 7, 1, 2, 3, 9, 8, 7, 9, 8, 7, 1, 2, 3, 9, 8, 7])
  expect(() => paste(target, filledPixels(2, 1), { x: 2, y: 0 })).toThrow(RangeError)
})
