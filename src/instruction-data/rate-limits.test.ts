import { describe, expect, test } from 'vitest'
import { createLearnedLimits, limitsIn, waitUntilReset } from './rate-limits.ts'

const headers = (kind: string, [limit, remaining, reset]: readonly string[]) =>
  new Headers({
    [`x-ratelimit-limit-${kind}`]: limit ?? '',
    [`x-ratelimit-remaining-${kind}`]: remaining ?? '',
    [`x-ratelimit-reset-${kind}`]: reset ?? '',
  })

describe('limitsIn', () => {
  test.each([
    ['120ms', 120],
    ['7.66s', 7660],
    ['6m0s', 360_000],
    ['1h2m3s', 3_723_000],
    ['2d', 172_800_000],
    ['12', 12_000],
  ])('reads a reset of %s', (reset, resetMs) => {
    expect(limitsIn(headers('requests', ['60', '59', reset]))).toEqual({
      requests: { limit: 60, remaining: 59, resetMs },
    })
  })

  test("reads Anthropic's names, and times of day", () => {
    const now = Date.parse('2026-01-01T00:00:00Z')
    const found = limitsIn(
      new Headers({
        'anthropic-ratelimit-requests-limit': '50',
        'anthropic-ratelimit-requests-remaining': '0',
        'anthropic-ratelimit-requests-reset': '2026-01-01T00:00:10Z',
        'anthropic-ratelimit-tokens-limit': '40000',
        'anthropic-ratelimit-tokens-remaining': '39000',
        'anthropic-ratelimit-tokens-reset': '2025-12-31T23:59:59Z',
      }),
      now,
    )
    expect(found).toEqual({
      requests: { limit: 50, remaining: 0, resetMs: 10_000 },
      tokens: { limit: 40_000, remaining: 39_000, resetMs: 0 },
    })
    expect(waitUntilReset(found)).toBe(10_000)
  })

  test.each([
    ['none', new Headers()],
    ['a reset that is none', headers('requests', ['60', '0', 'soon'])],
    ['no number', headers('tokens', ['60', 'few', '1s'])],
    ['a negative number', headers('tokens', ['60', '-1', '1s'])],
  ])('finds nothing in %s', (_, given) => expect(limitsIn(given)).toBeUndefined())

  test('asks nobody to wait while something is left', () => {
    expect(waitUntilReset(limitsIn(headers('requests', ['60', '1', '59s'])))).toBeUndefined()
  })
})

describe('createLearnedLimits', () => {
  const told = (remaining: number, resetMs: number, limit: number | undefined = 60) => ({
    requests: { limit, remaining, resetMs },
  })

  test('lets everything through before it is told something', () => {
    const limits = createLearnedLimits({ now: () => 0 })
    expect([1, 1e6, 1].map(limits.take)).toEqual([0, 0, 0])
  })

  test('keeps to what remains, and to the rate at which it comes back', () => {
    let now = 1000
    const limits = createLearnedLimits({ now: () => now })
    limits.take(10)
    limits.learn(told(2, 58_000), 1000) // 58 come back in 58 s
    expect([1, 1, 1, 1].map(limits.take)).toEqual([0, 0, 1000, 2000])
    now = 1e6
    expect(Array.from({ length: 61 }, () => limits.take(1)).filter((wait) => wait > 0)).toEqual([1000])
  })

  test('subtracts what left while the answer was on its way, and believes the latest', () => {
    let now = 0
    const limits = createLearnedLimits({ now: () => now })
    limits.take(1)
    const sentAt = now
    now = 10
    for (let request = 0; request < 5; request++) limits.take(1)
    now = 20
    limits.learn(told(5, 55_000), sentAt)
    expect(limits.take(1)).toBeGreaterThan(900)
    limits.learn(told(60, 0), -5) // older than what is known
    expect(limits.take(1)).toBeGreaterThan(1900)
    limits.learn(told(60, 0), 20)
    expect(limits.take(1)).toBe(0)
  })

  test('holds tokens back as well as requests', () => {
    const limits = createLearnedLimits({ now: () => 0 })
    limits.learn({ tokens: { limit: 60_000, remaining: 0, resetMs: 60_000 } }, 0)
    expect(limits.take(500)).toBe(500)
  })

  test('a reset that was rounded down to nothing does not promise everything', () => {
    const limits = createLearnedLimits({ now: () => 0 })
    limits.learn(told(0, 1), 0)
    expect(limits.take(1)).toBeGreaterThanOrEqual(16)
  })

  test('without a limit, waits for the reset', () => {
    const limits = createLearnedLimits({ now: () => 0 })
    limits.learn({ requests: { limit: undefined, remaining: 0, resetMs: 3000 } }, 0)
    expect(limits.take(1)).toBe(3000)
  })
})
