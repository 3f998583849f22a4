/** Several sources as one: drawn in proportion to their weights, each at its own pace. */

import type { SampleSource } from '../instruction-data/sample.ts'
import { orderedIndex } from './order.ts'

export type MixturePart = { readonly weight: number; readonly source: SampleSource }

/**
 * An endless source over others. Sample `index` depends on its number alone: after any number of draws every source has had its share of them to
 * within one draw per source, and a finite one is gone through in a new random order on every pass.
 * @throws RangeError when there is no source or a weight is not above 0
 */
export function mixtureSource(parts: readonly MixturePart[], { seed }: { seed: number }): SampleSource {
  const bad = parts.find(({ weight }) => !(weight > 0 && Number.isFinite(weight)))
  if (bad !== undefined)
    throw new RangeError(`Cannot mix sources: found the weight ${bad.weight}, expected one above 0`)
  if (parts.length === 0) throw new RangeError('Cannot mix sources: found none, expected at least one')
  const labels = parts.find(({ source }) => source.labels !== undefined)?.source.labels
  const weights = parts.map(({ weight }) => weight)
  return {
    size: undefined,
    ...(labels && { labels }),
    sample: async (index) => {
      const { part, draw } = mixtureDraw(index, weights)
      const source = parts[part]?.source
      if (source === undefined) throw new RangeError(`Cannot draw from source ${part}: found ${parts.length}`)
      return source.sample(orderedIndex(draw, { size: source.size, seed: seed + part }))
    },
  }
}

/**
 * Which source gives draw `index` of a mixture, and how many that source gave before. The first source gives draw i where ⌊i·share⌋ is about to grow;
 * the draws that it leaves are shared among the others in the same way.
 */
export function mixtureDraw(index: number, weights: readonly number[]): { part: number; draw: number } {
  let draw = index
  let rest = weights.reduce((sum, weight) => sum + weight, 0)
  for (let part = 0; part < weights.length - 1; part++) {
    const weight = weights[part] ?? 0
    const before = Math.floor((draw * weight) / rest)
    const after = Math.floor(((draw + 1) * weight) / rest)
    if (after > before) return { part, draw: before }
    draw -= before
    rest -= weight
  }
  return { part: weights.length - 1, draw }
}
