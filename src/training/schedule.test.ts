import { describe, expect, test } from 'vitest'
import { scheduleFactor } from './schedule.ts'

const over = (schedule: Parameters<typeof scheduleFactor>[0], steps: number) =>
  Array.from({ length: steps }, (_, step) => scheduleFactor(schedule, { step, steps }))

describe('scheduleFactor', () => {
  test('warms up linearly without ever being 0, and reaches the peak right after', () => {
    const factors = over({ curve: 'cosine', warmup: 0.1, floor: 0 }, 100)
    expect(factors.slice(0, 3)).toEqual([1 / 11, 2 / 11, 3 / 11])
    expect(factors[10]).toBe(1)
    expect(Math.max(...factors)).toBe(1)
  })

  test.each([
    { curve: 'cosine', middle: 0.5 },
    { curve: 'linear', middle: 0.5 },
    { curve: 'constant', middle: 1 },
  ] as const)('$curve falls to its floor', ({ curve, middle }) => {
    const factors = over({ curve, warmup: 0, floor: 0.2 }, 1000)
    const end = curve === 'constant' ? 1 : 0.2
    expect(factors[0]).toBe(1)
    expect(factors[500]).toBeCloseTo(0.2 + 0.8 * middle, 6)
    expect(factors.at(-1)).toBeCloseTo(end, 2)
    expect(factors.every((factor, step) => step === 0 || factor <= factors[step - 1]!)).toBe(true)
  })

  test('cosine stays near its peak at first, where linear does not', () => {
    const at = (curve: 'cosine' | 'linear') =>
      scheduleFactor({ curve, warmup: 0, floor: 0 }, { step: 100, steps: 1000 })
    expect(at('cosine')).toBeGreaterThan(0.97)
    expect(at('linear')).toBeCloseTo(0.9, 6)
  })

  test.each([0, 0.03, 1])('is between 0 and 1 for a run of one step, warm-up %d', (warmup) => {
    const [factor] = over({ curve: 'cosine', warmup, floor: 0 }, 1)
    expect(factor).toBeGreaterThan(0)
    expect(factor).toBeLessThanOrEqual(1)
  })
})
