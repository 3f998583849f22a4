import { describe, expect, test } from 'vitest'
import { createLookup } from './lookup.ts'

describe('createLookup', () => {
  test('guesses what followed the same words before', () => {
    const lookup = createLookup([1, 2, 3, 4, 5, 6])
    expect(lookup.guess(3)).toEqual([])
    lookup.push(2)
    expect(lookup.guess(3)).toEqual([]) // one word is not enough
    lookup.push(3)
    expect(lookup.guess(3)).toEqual([4, 5, 6])
    expect(lookup.guess(2)).toEqual([4, 5])
    expect(lookup.guess(0)).toEqual([])
    lookup.push(9)
    expect(lookup.guess(3)).toEqual([])
  })

  test('prefers the longer match to the later one, and the later to the earlier', () => {
    expect(createLookup([7, 1, 2, 30, 8, 1, 2, 40, 7, 1, 2]).guess(1)).toEqual([30])
    expect(createLookup([1, 2, 30, 8, 1, 2, 40, 9, 1, 2]).guess(1)).toEqual([40])
  })

  test('guesses that a sequence that repeats itself goes on so', () => {
    expect(createLookup([5, 5, 5, 5]).guess(3)).toEqual([5, 5, 5])
    expect(createLookup([1, 2, 3, 1, 2, 3, 1, 2]).guess(7)).toEqual([3, 1, 2, 3, 1, 2, 3])
  })

  test('neither guesses the places of pictures nor looks for them', () => {
    expect(createLookup([1, 2, 3, 19, 19, 19, 1, 2], { never: [19] }).guess(4)).toEqual([3])
    expect(createLookup([19, 19, 19, 4, 19, 19], { never: [19] }).guess(4)).toEqual([])
    expect(createLookup([3, 19, 4, 3, 19], { never: [19] }).guess(4)).toEqual([])
  })
})
