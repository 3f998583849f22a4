import { describe, expect, test } from 'vitest'
import type { SampleSource } from '../instruction-data/sample.ts'
import { drawOrder, orderedIndex } from './order.ts'

describe('orderedIndex', () => {
  const pass = (size: number, options: { seed: number; pass?: number }) =>
    Array.from({ length: size }, (_, i) => orderedIndex((options.pass ?? 0) * size + i, { size, seed: options.seed }))

  test('visits everything once in each pass', () => {
    for (const size of [...Array.from({ length: 50 }, (_, i) => i + 1), 1000, 4097, 65_536]) {
      for (const number of [0, 1]) {
        const visited = new Set(pass(size, { seed: 3, pass: number }))
        expect(visited.size).toBe(size)
        expect(Math.max(...[...visited].slice(0, 1000))).toBeLessThan(size)
      }
    }
  })

  test('changes with pass and seed', () => {
    const first = pass(1000, { seed: 0 })
    expect(pass(1000, { seed: 0, pass: 1 })).not.toEqual(first)
    expect(pass(1000, { seed: 1 })).not.toEqual(first)
  })

  test('is far from the order of the file', () => {
    const order = pass(1000, { seed: 0 })
    const close = order.filter((index, i) => Math.abs(index - i) < 50).length
    expect(close).toBeLessThan(200) // about 98 by chance
    const steps = order.slice(1).filter((index, i) => index === order[i]! + 1).length
    expect(steps).toBeLessThan(20)
  })

  test('follows an endless source', () => {
    expect(orderedIndex(12_345, { size: undefined, seed: 9 })).toBe(12_345)
  })

  test('reaches far into the billions', () => {
    const size = 3_000_000_000
    const some = Array.from({ length: 1000 }, (_, i) => orderedIndex(i * 7919, { size, seed: 1 }))
    expect(new Set(some).size).toBe(1000)
    expect(some.every((index) => Number.isInteger(index) && index >= 0 && index < size)).toBe(true)
  })
})

describe('drawOrder', () => {
  const words = (index: number) => 5 + ((index * 7919) % 300)
  const pictures = (index: number) => (index % 4 === 0 ? 0 : 1)
  const sourceOf = (size: number | undefined): SampleSource => ({
    size,
    sample: async () => {
      throw new Error('no sample is made')
    },
    measure: (index) => ({ words: words(index), pictures: pictures(index) }),
  })
  const drawn = (size: number, from: number, to: number) => {
    const order = drawOrder(sourceOf(size), { seed: 3, bucket: 8 })
    return Array.from({ length: to - from }, (_, i) => order(from + i))
  }

  test.each([1, 7, 8, 100, 1000, 4003])('visits samples of %d at most once in each pass, in another order', (size) => {
    const perPass = size < 8 ? size : size - (size % 8)
    const passes = [0, 1, 2].map((pass) => drawn(size, pass * perPass, (pass + 1) * perPass))
    for (const pass of passes) {
      expect(new Set(pass).size).toBe(perPass)
      expect(pass.every((index) => index >= 0 && index < size)).toBe(true)
    }
    if (size > 8) expect(passes[1]).not.toEqual(passes[0])
    const leftOut = passes.map((pass) => Array.from({ length: size }, (_, i) => i).filter((i) => !pass.includes(i)))
    if (size % 8 > 0 && size > 8) expect(leftOut[1]).not.toEqual(leftOut[0])
  })

  test('goes on from any position as if it had never stopped', () => {
    const whole = drawn(1000, 0, 2500)
    for (const from of [1, 399, 400, 1000, 1777]) expect(drawn(1000, from, 2500)).toEqual(whole.slice(from))
  })

  test('puts samples of one kind and of similar length together', () => {
    const order = drawn(4000, 0, 4000)
    const buckets = Array.from({ length: 500 }, (_, i) => order.slice(i * 8, (i + 1) * 8))
    const mixed = buckets.filter((bucket) => new Set(bucket.map(pictures)).size > 1)
    expect(mixed.length).toBeLessThanOrEqual(10) // one border in each of ten groups
    const spread = (bucket: readonly number[]) => Math.max(...bucket.map(words)) - Math.min(...bucket.map(words))
    const mean = (all: readonly (readonly number[])[]) => all.map(spread).reduce((a, b) => a + b, 0) / all.length
    const random = Array.from({ length: 500 }, (_, i) =>
      Array.from({ length: 8 }, (_, k) => orderedIndex(i * 8 + k, { size: 4000, seed: 3 })),
    )
    expect(mean(buckets)).toBeLessThan(mean(random) / 5)
  })

  test('shuffles the buckets: lengths do not fall through a group', () => {
    const longest = Array.from({ length: 50 }, (_, i) => Math.max(...drawn(4000, i * 8, (i + 1) * 8).map(words)))
    const falls = longest.slice(1).filter((length, i) => length <= longest[i]!).length
    expect(falls).toBeGreaterThan(10)
    expect(falls).toBeLessThan(39)
  })

  test('is the plain order without buckets, and over endless sources', () => {
    const plain = drawOrder(sourceOf(50), { seed: 3 })
    expect([60, 61, 62].map(plain)).toEqual([60, 61, 62].map((cursor) => orderedIndex(cursor, { size: 50, seed: 3 })))
    expect(drawOrder(sourceOf(undefined), { seed: 3, bucket: 8 })(1234)).toBe(1234)
  })
})
