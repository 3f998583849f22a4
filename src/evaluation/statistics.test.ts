import { describe, expect, test } from 'vitest'
import { shareOf, yesNoScores } from './statistics.ts'

describe('shareOf()', () => {
  test('gives the published Wilson intervals', () => {
    // Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    const cases = [
      [81, 263, 0.2553, 0.3662],
      [15, 148, 0.0624, 0.1605],
      [0, 20, 0, 0.1611],
      [1, 29, 0.0061, 0.1718],
    ] as const
    for (const [right, all, low, high] of cases) {
      const share = shareOf(right, all)
      expect(share.low).toBeCloseTo(low, 4)
      expect(share.high).toBeCloseTo(high, 4)
    }
  })

  test('knows nothing without questions', () => {
    expect(shareOf(0, 0)).toMatchObject({ share: Number.NaN, low: 0, high: 1 })
  })
})

describe('yesNoScores()', () => {
  test('counts as POPE does', () => {
    const pair = (expected: boolean, said: boolean) => ({ expected, said })
    const scores = yesNoScores([
      pair(true, true),
      pair(true, true),
      pair(true, false),
      pair(false, true),
      pair(false, false),
    ])
    expect(scores.precision).toBeCloseTo(2 / 3)
    expect(scores.recall).toBeCloseTo(2 / 3)
    expect(scores.f1).toBeCloseTo(2 / 3)
    expect(scores.yesRatio).toBeCloseTo(3 / 5)
  })

  test('a model that never says yes has found nothing', () => {
    expect(yesNoScores([{ expected: true, said: false }])).toEqual({ precision: 0, recall: 0, f1: 0, yesRatio: 0 })
  })
})
