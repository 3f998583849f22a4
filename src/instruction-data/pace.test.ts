import { describe, expect, test } from 'vitest'
import { retryAfter } from './openai-teacher.ts'
import { backOff, createBucket } from './pace.ts'

describe('pace', () => {
  test('a bucket lets so much through a minute', () => {
    let now = 0
    const bucket = createBucket({ perMinute: 60, now: () => now })
    const waits = Array.from({ length: 12 }, () => bucket.take(1))
    expect(waits).toEqual([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1000, 2000])
    now = 5000
    expect(bucket.take(1)).toBe(0)
    bucket.giveBack(1)
    now = 1e9
    expect(bucket.take(15)).toBe(5000)
  })

  test('delays double and are drawn below their bound', () => {
    expect([0, 1, 2, 3, 20].map((attempt) => backOff(attempt, { random: () => 1 }))).toEqual([
      1000, 2000, 4000, 8000, 60_000,
    ])
    expect(backOff(3, { random: () => 0.25 })).toBe(2000)
  })

  test('Retry-After is read as seconds, a date, or milliseconds', () => {
    const headers = (entries: Record<string, string>) => new Headers(entries)
    expect(retryAfter(headers({ 'retry-after': '2' }))).toBe(2000)
    expect(
      retryAfter(headers({ 'retry-after': 'Thu, 01 Jan 2026 00:00:10 GMT' }), Date.parse('2026-01-01T00:00:00Z')),
    ).toBe(10_000)
    expect(retryAfter(headers({ 'retry-after-ms': '150', 'retry-after': '9' }))).toBe(150)
    expect(retryAfter(headers({ 'retry-after': 'soon' }))).toBeUndefined()
  })
})
