import { describe, expect, test } from 'vitest'
import { chooseWeighted, createRandom, hashText, integerBetween, nextInteger, shuffle, uniform } from './random.ts'

const first = (seed: number, stream = 0) => {
  const random = createRandom(seed, stream)
  return Array.from({ length: 4 }, () => nextInteger(random))
}

describe('random', () => {
  test('repeats itself for one seed and differs for others, also where only the high word or the stream differs', () => {
    expect(first(5)).toEqual(first(5))
    const starts = [first(5), first(6), first(5 + 2 ** 32), first(5, 1)].map((numbers) => numbers.join())
    expect(new Set(starts).size).toBe(4)
  })

  test('refuses seeds that are not integers from 0', () => {
    for (const seed of [-1, 0.5, Number.NaN, 2 ** 53]) expect(() => createRandom(seed)).toThrow(RangeError)
  })

  test('is uniform: mean and variance of [0, 1), all integers of a range', () => {
    const random = createRandom(1)
    const numbers = Array.from({ length: 20000 }, () => uniform(random))
    const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length
    const variance = numbers.reduce((sum, number) => sum + (number - mean) ** 2, 0) / numbers.length
    expect(mean).toBeCloseTo(0.5, 1)
    expect(variance).toBeCloseTo(1 / 12, 2)
    expect(new Set(Array.from({ length: 200 }, () => integerBetween(random, [2, 5])))).toEqual(new Set([2, 3, 4, 5]))
  })

  test('chooses by weight and refuses weights that sum to nothing', () => {
    const random = createRandom(2)
    const chosen = Array.from({ length: 4000 }, () =>
      chooseWeighted(random, [
        ['a', 3],
        ['b', 1],
        ['c', 0],
      ]),
    )
    expect(chosen.filter((item) => item === 'a').length / 4000).toBeCloseTo(0.75, 1)
    expect(chosen).not.toContain('c')
    expect(() => chooseWeighted(random, [['a', 0]])).toThrow(RangeError)
  })

  test('shuffles without losing anything', () => {
    expect(shuffle(createRandom(3), [1, 2, 3, 4, 5]).sort()).toEqual([1, 2, 3, 4, 5])
  })

  test('hashes names to fixed numbers', () => {
    expect(hashText('cat')).toBe(hashText('cat'))
    expect(hashText('cat')).not.toBe(hashText('cats'))
  })
})
