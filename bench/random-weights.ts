/**
 * Random weights as trained ones are distributed, so that rounding them does to a model what it does to a trained one. Independent normal numbers
 * would not do: such a model forgets its input and doubles every error in each block.
 *
 * - A matrix is a sum of parts of rank 1 whose sizes fall by a power law, and noise with heavy tails (Martin & Mahoney 2021, "Implicit self-regularization
 *   in deep neural networks", §4: spectra of trained layers).
 * - A block adds a little to what came in: its last matrices are small by √(2 · depth), as GPT-2 begins (Radford et al. 2019, §2.3).
 * - One channel in 250 or so is 12 to 20 times as large as the others after a norm (Dettmers et al. 2022, "LLM.int8()", §4), and some rows of the MLP's gate
 *   and up are larger, so that its product has outliers as well.
 * - Logits spread over a few nats.
 */

import { expectedTensors } from '../src/checkpoint/layouts.ts'
import type { Weights } from '../src/checkpoint/load.ts'
import type { LlavaConfig } from '../src/model/config.ts'

const rank = 16
const decay = 0.6

export function randomWeights(config: LlavaConfig): Weights {
  const random = normals(1)
  return new Map(
    [...expectedTensors(config)].map(([name, shape]) => {
      const data =
        shape.length === 1
          ? vectorOf(name, shape, random)
          : tensorOf(name, { shape, random, depth: config.language.depth })
      return [name, { shape, data }]
    }),
  )
}

function vectorOf(name: string, [width = 1]: readonly number[], random: () => number): Float32Array {
  if (!/norm\d?\.weight$/i.test(name)) return Float32Array.from({ length: width }, () => 0.02 * random())
  return Float32Array.from({ length: width }, (_, i) => (i % 250 === 17 ? 12 + (i % 9) : 1 + 0.1 * random()))
}

function tensorOf(
  name: string,
  { shape, random, depth }: { shape: readonly number[]; random: () => number; depth: number },
): Float32Array {
  const out = shape[0] ?? 1
  const width = shape.slice(1).reduce((product, size) => product * size, 1)
  if (name.endsWith('tokenEmbedding.weight'))
    return Float32Array.from({ length: out * width }, (_, i) =>
      (i % width) % 250 === 17 ? 1 + 0.1 * random() : random(),
    )
  const matrix = spectral({ out, width, random })
  const gain = gainOf(name, depth) / Math.sqrt(width)
  const large = /\.(gate|up)\.weight$/.test(name)
  for (let row = 0; row < out; row++) {
    const factor = gain * (large && row % 200 === 31 ? 4 : 1)
    for (let i = row * width; i < (row + 1) * width; i++) matrix[i] = factor * (matrix[i] ?? 0)
  }
  return matrix
}

/** How much a layer's output is larger than its input. */
function gainOf(name: string, depth: number): number {
  if (/(attention\.output|mlp\.down)\.weight$/.test(name)) return 0.3 / Math.sqrt(2 * depth)
  if (name.endsWith('head.weight')) return 3
  return 1
}

/** [out, width] of mean square 1, half of it in the first `rank` directions. */
function spectral({ out, width, random }: { out: number; width: number; random: () => number }): Float32Array {
  const sizes = Float64Array.from({ length: rank }, (_, k) => (k + 1) ** -decay)
  const norm = Math.sqrt(0.5 / sizes.reduce((sum, size) => sum + size * size, 0))
  const left = Float32Array.from({ length: out * rank }, (_, i) => norm * (sizes[i % rank] ?? 0) * random())
  const right = Float32Array.from({ length: rank * width }, random)
  const result = new Float32Array(out * width)
  for (let row = 0; row < out; row++) {
    const line = result.subarray(row * width, (row + 1) * width)
    for (let i = 0; i < width; i++) line[i] = Math.SQRT1_2 * heavyTailed(random)
    for (let k = 0; k < rank; k++) {
      const factor = left[row * rank + k] ?? 0
      const part = right.subarray(k * width, (k + 1) * width)
      for (let i = 0; i < width; i++) line[i] = (line[i] ?? 0) + factor * (part[i] ?? 0)
    }
  }
  return result
}

/** Mean square 1; one number in 100 is three times as large as its neighbours. */
function heavyTailed(random: () => number): number {
  const value = random()
  return ((random() > 2.33 ? 3 : 1) * value) / Math.sqrt(1.08)
}

/** Normally distributed numbers (Box–Muller over a linear congruential generator). */
function normals(seed: number): () => number {
  let state = seed >>> 0
  const uniform = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return (state + 1) / 4_294_967_297
  }
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())
}
