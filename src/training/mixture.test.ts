import { describe, expect, test } from 'vitest'
import { assistantTurn, userTurn } from '../conversation/turns.ts'
import type { SampleSource } from '../instruction-data/sample.ts'
import { mixtureDraw, mixtureSource } from './mixture.ts'

const turns = [userTurn('What?'), assistantTurn('That.')]
const named = (name: string, size?: number): SampleSource => ({
  size,
  sample: async (index) => ({ id: `${name} ${index}`, turns, pictures: [] }),
})
const draws = (count: number, weights: readonly number[]) =>
  Array.from({ length: count }, (_, index) => mixtureDraw(index, weights))
const ids = async (source: SampleSource, from: number, to: number) =>
  Promise.all(Array.from({ length: to - from }, async (_, i) => (await source.sample(from + i)).id))

describe('mixtureDraw', () => {
  test.each([
    [[1]],
    [[1, 1]],
    [[3, 1]],
    [[0.2, 0.5, 0.3]],
    [[7, 11, 1e-3, 2]],
    [[1e6, 1]],
  ])('draws in proportion to %j at any time, each source in its own order', (weights) => {
    const total = weights.reduce((sum, weight) => sum + weight, 0)
    const given = weights.map(() => 0)
    let worst = 0
    draws(5000, weights).forEach(({ part, draw }, index) => {
      if (draw !== given[part]) throw new Error(`source ${part}: draw ${draw} after ${given[part]}`)
      given[part] = draw + 1
      const off = weights.map((weight, k) => Math.abs(given[k]! - ((index + 1) * weight) / total))
      worst = Math.max(worst, ...off)
    })
    expect(given.reduce((sum, count) => sum + count, 0)).toBe(5000)
    expect(worst).toBeLessThan(weights.length)
  })

  test('still counts without a gap far into a run', () => {
    const start = 3_000_000_000
    const weights = [0.3, 0.6, 0.1]
    const next = new Map<number, number>()
    for (let index = start; index < start + 2000; index++) {
      const { part, draw } = mixtureDraw(index, weights)
      if (draw !== (next.get(part) ?? draw)) throw new Error(`source ${part}: draw ${draw}, not ${next.get(part)}`)
      next.set(part, draw + 1)
    }
    expect([...next.keys()].sort()).toEqual([0, 1, 2])
  })
})

describe('mixtureSource', () => {
  const mixture = () =>
    mixtureSource(
      [
        { weight: 2, source: named('finite', 6) },
        { weight: 1, source: named('endless') },
      ],
      { seed: 4 },
    )

  test('visits a finite source whole on every pass, in another order each time', async () => {
    const finite = (await ids(mixture(), 0, 36)).filter((id) => id.startsWith('finite'))
    const passes = [0, 6, 12, 18].map((from) => finite.slice(from, from + 6))
    for (const pass of passes) expect([...pass].sort()).toEqual([0, 1, 2, 3, 4, 5].map((index) => `finite ${index}`))
    expect(new Set(passes.map(String)).size).toBeGreaterThan(1)
  })

  test('follows an endless source in order', async () => {
    const endless = (await ids(mixture(), 0, 12)).filter((id) => id.startsWith('endless'))
    expect(endless).toEqual([0, 1, 2, 3].map((index) => `endless ${index}`))
  })

  test('gives the same samples wherever it is begun', async () => {
    const whole = await ids(mixture(), 0, 40)
    for (const from of [0, 7, 23]) expect(await ids(mixture(), from, 40)).toEqual(whole.slice(from))
  })

  test('has the label names of the source that has some', () => {
    const labels = { names: ['meadow', 'dog'], backgrounds: 1 }
    const source = mixtureSource(
      [
        { weight: 1, source: named('text', 3) },
        { weight: 1, source: { ...named('world'), labels } },
      ],
      { seed: 0 },
    )
    expect(source.labels).toEqual(labels)
    expect(mixture().labels).toBeUndefined()
  })

  test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])('refuses the weight %d', (weight) => {
    expect(() => mixtureSource([{ weight, source: named('a') }], { seed: 0 })).toThrow(
      `found the weight ${weight}, expected one above 0`,
    )
  })

  test('refuses no sources', () => {
    expect(() => mixtureSource([], { seed: 0 })).toThrow('found none')
  })
})
