/** Starting values of weights that no checkpoint supplies. */

import { seededRandom } from '../generation/sampling.ts'

/** Small integers from a name, so that every weight has its own stream whatever the order in which weights are made (FNV-1a). */
function hashOf(text: string): number {
  let hash = 2166136261
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619)
  return hash >>> 0
}

/**
 * Norms start as the identity, biases at 0, everything else normal with standard deviation 0.02 (GPT-2 §2.3), smaller by √(2 · depth) where a
 * block adds to the residual stream. The projector's second layer starts at half of that: patch features are large (a deviation of 3 in the picturebook's
 * encoder), embeddings small, and visual tokens that begin larger than any word drown what the blocks add to them.
 */
export function initialWeight(
  { name, shape }: { name: string; shape: readonly number[] },
  { seed, depth }: { seed: number; depth: number },
): Float32Array {
  const data = new Float32Array(shape.reduce((size, dim) => size * dim, 1))
  if (name.endsWith('.bias')) return data
  if (/(norm\d?|preNorm|postNorm)\.weight$/.test(name)) return data.fill(1)
  const random = seededRandom((hashOf(name) ^ Math.imul(seed + 1, 0x9e3779b1)) >>> 0)
  const deviation = deviationOf(name, depth)
  for (let i = 0; i < data.length; i++) data[i] = deviation * normal(random)
  return data
}

function deviationOf(name: string, depth: number): number {
  if (name === 'projector.layers.1.weight') return 0.01
  if (/\.(attention\.output|mlp\.down)\.weight$/.test(name)) return 0.02 / Math.sqrt(2 * depth)
  return 0.02
}

/** Box and Muller's transform. */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
}
