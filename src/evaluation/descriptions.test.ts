import { describe, expect, test } from 'vitest'
import type { Exchange } from '../picturebook/index.ts'
import { scoreDescriptions } from './descriptions.ts'

const exchange = (expected: string): Exchange => ({
  skill: 'detailed-description',
  question: 'Describe the picture in detail.',
  answer: '',
  short: false,
  expected,
})

describe('scoreDescriptions', () => {
  test('counts what is named, forgotten and invented over all descriptions', () => {
    const scores = scoreDescriptions([
      { exchange: exchange('a cat and two dogs'), said: 'The picture shows a cat and a dog. The cat is on the left.' },
      { exchange: exchange('a tree and a car'), said: 'The picture shows a tree and an owl in a field.' },
    ])
    // Named: cat, dog, tree, owl; there: cat, dog, tree, car; both: cat, dog, tree.
    expect(scores).toEqual({ descriptions: 2, precision: 0.75, recall: 0.75, f1: 0.75, chairI: 0.25, chairS: 0.5 })
  })

  test('is 0 for descriptions that name nothing, which invent nothing either', () => {
    const scores = scoreDescriptions([{ exchange: exchange('a cat'), said: 'It is day.' }])
    expect([scores.f1, scores.chairI, scores.chairS]).toEqual([0, 0, 0])
  })
})
