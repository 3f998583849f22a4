import { expect, test } from 'vitest'
import { overSeeds } from './over-seeds.ts'
import { shareOf } from './statistics.ts'

test('one run has the interval of its questions, and so have two', () => {
  expect(overSeeds([{ right: 30, all: 40 }])).toEqual(shareOf(30, 40))
  const two = overSeeds([
    { right: 30, all: 40 },
    { right: 10, all: 40 },
  ])
  expect(two).toEqual({ ...shareOf(40, 80), share: 0.5 })
})

test('three runs that differ have the interval of Student over the runs', () => {
  const { share, low, high } = overSeeds([40, 50, 60].map((right) => ({ right, all: 100 })))
  expect(share).toBeCloseTo(0.5, 12)
  expect(high - share).toBeCloseTo((4.3027 * 0.1) / Math.sqrt(3), 6) // t with 2 degrees × s / √3
  expect(share - low).toBeCloseTo(high - share, 12)
})

test('runs that agree by chance are not taken for certain', () => {
  const { low, high } = overSeeds([10, 10, 10].map((right) => ({ right, all: 20 })))
  expect({ low, high }).toEqual({ low: shareOf(30, 60).low, high: shareOf(30, 60).high })
  expect(overSeeds([0, 0, 0].map((right) => ({ right, all: 20 }))).high).toBeGreaterThan(0.05)
})

test('the interval stays within 0 to 1, and narrows with more runs', () => {
  const wide = overSeeds([10, 90, 90].map((right) => ({ right, all: 100 })))
  expect([wide.low, wide.high]).toEqual([0, 1])
  const many = overSeeds(Array.from({ length: 12 }, (_, run) => ({ right: run % 2 ? 40 : 60, all: 100 })))
  expect(many.high - many.share).toBeCloseTo((2.201 * Math.sqrt((12 * 0.01) / 11)) / Math.sqrt(12), 4) // 11 degrees
})

test('a run that was asked nothing does not count', () => {
  const none = { right: 0, all: 0 }
  expect(overSeeds([none, { right: 3, all: 4 }])).toEqual(shareOf(3, 4))
  expect(overSeeds([none]).share).toBeNaN()
})
