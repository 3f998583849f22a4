/**
 * The scales of a KV cache in 8 bits: what one step of each channel of keys and values stands for. ONNX Runtime wants them before the first token is stored, so they
 * are found once per model, by reading text that touches all of the vocabulary.
 */

import type { LanguageModelConfig } from '../model/config.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { largestName, scaleName } from './graphs.ts'

/** Inputs of the language graph, by name: [1, Nkv, 1, H] each. */
export type CacheScales = Readonly<Record<string, ResidentTensor<'float32'>>>

const kinds = ['key', 'value'] as const
const steps = 127

/** What comes later, visual tokens above all, may be larger than the text that is read to find the scales: docs/experiments.md has what 1.5 and 4 cost. */
const headroom = 2.5

/** A block sees the caches of those before it, so scales settle from the first to the last; most of the way is done at once. */
const rounds = 3

const tokens = 96

/** Scales for numbers of size 4, about that of keys and values after the norm of their input: where the search begins. */
export function firstScales({ depth, keyValueHeads, headSize }: LanguageModelConfig): CacheScales {
  const shape = [1, keyValueHeads, 1, headSize]
  const names = Array.from({ length: depth }, (_, block) => kinds.map((kind) => scaleName(kind, block))).flat()
  return Object.fromEntries(
    names.map((name) => {
      const tensor = residentTensor('float32', shape)
      tensor.data.fill(4 / steps)
      return [name, tensor]
    }),
  )
}

/**
 * Writes the scales that fit a model. `read` reads a text of so many tokens into an empty cache under the present scales and gives back outputs by
 * their names (graphs.ts).
 */
export async function findScales(
  scales: CacheScales,
  {
    language,
    read,
  }: {
    language: LanguageModelConfig
    read: (text: { ids: Int32Array; fetch: readonly string[] }) => Promise<Readonly<Record<string, ResidentTensor>>>
  },
): Promise<void> {
  const { vocabulary, context, depth, headSize } = language
  const count = Math.min(tokens, context)
  const ids = Int32Array.from({ length: count }, (_, i) => Math.floor((((i * 37) % count) * vocabulary) / count))
  const fetch = Array.from({ length: depth }, (_, block) => kinds.map((kind) => largestName(kind, block))).flat()
  for (let round = 0; round < rounds; round++) {
    const found = await read({ ids, fetch })
    for (let block = 0; block < depth; block++) {
      for (const kind of kinds) {
        const largest = found[largestName(kind, block)]?.data
        const scale = scales[scaleName(kind, block)]?.data
        if (!(largest instanceof Float32Array) || scale === undefined) throw new Error(`Block ${block} has no ${kind}s`)
        const bound = kind === 'key' ? rotatedBound(largest, headSize) : largest
        // A channel that is always zero needs some scale all the same.
        for (let i = 0; i < scale.length; i++) scale[i] = Math.max(1e-6, (headroom * (bound[i] ?? 0)) / steps)
      }
    }
    Object.values(found).forEach(disposeTensor)
  }
}

/** Keys are stored after their rotation, which turns channels i and i + H/2 of a head into each other: neither gets larger than both together. */
function rotatedBound(largest: Float32Array, headSize: number): Float32Array {
  const half = headSize / 2
  return largest.map((value, i) => Math.hypot(value, largest[i % headSize < half ? i + half : i - half] ?? 0))
}
