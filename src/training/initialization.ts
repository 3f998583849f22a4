/** Starting values of weights that no checkpoint supplies. */

import { seededRandom } from '../generation/sampling.ts'

type Weight = { readonly name: string; readonly shape: readonly number[] }
type Options = { readonly seed: number; readonly depth: number }

/**
 * Norms start as the identity, biases and LoRA's B at 0, everything else normal: with deviation 1/√(3·inputs) in the projector, as the paper's layers
 * begin, and in LoRA's A, and as SigLIP says for what compares pictures with texts (§3.2); see `blockWeight` for the blocks of encoder and language model, `wordWeight` for what is around them.
 */
export function initialWeight({ name, shape }: Weight, { seed, depth }: Options): Float32Array {
  if (name === 'similarity.bias') return new Float32Array(sizeOf(shape)).fill(-10)
  if (name.endsWith('.bias') || name.endsWith('.lora.B')) return new Float32Array(sizeOf(shape))
  if (/(norm\d?|preNorm|postNorm)\.weight$/.test(name)) return new Float32Array(sizeOf(shape)).fill(1)
  const [, inputs = 1] = shape
  if (name === 'similarity.scale') return new Float32Array(sizeOf(shape)).fill(Math.log(10))
  if (/^(textEncoder|pictureHead)\.(projection|attention\.inputs)\.weight$/.test(name))
    return normalWeight({ name, shape }, { seed, deviation: 1 / Math.sqrt(inputs) })
  if (name.startsWith('projector.') || name.endsWith('.lora.A'))
    return normalWeight({ name, shape }, { seed, deviation: 1 / Math.sqrt(3 * inputs) })
  if (name.includes('.blocks.')) return blockWeight({ name, shape }, { seed, depth })
  if (name.startsWith('languageModel.')) return wordWeight({ name, shape }, { seed, depth })
  if (name === 'placeTable.weight') return placeWeight({ name, shape }, { seed, depth })
  return normalWeight({ name, shape }, { seed, deviation: 0.02 })
}

/**
 * Places in a picture, row by row. Each is the sum of a vector that all places share, which says that a word was seen and not asked for, one for its
 * row and one for its column: few directions, so that a projector can learn to write them.
 */
function placeWeight({ shape }: Weight, { seed }: Options): Float32Array {
  const [places = 1, width = 1] = shape
  const columns = Math.ceil(Math.sqrt(places))
  const vector = (name: string) => normalWeight({ name, shape: [width] }, { seed, deviation: 0.5 })
  const every = vector('every place')
  return Float32Array.from(
    Array.from({ length: places }, (_, place) => {
      const [row, column] = [vector(`row ${Math.floor(place / columns)}`), vector(`column ${place % columns}`)]
      return [...every.map((value, i) => value + (row[i] ?? 0) + (column[i] ?? 0))]
    }).flat(),
  )
}

/** How much of query and key is the same numbers, and how much of a value its output takes back, in an encoder that looks around. */
const encoderAlike = 0.85
const encoderTaken = 0.4
/** How much of query and key is the same numbers in a language model that looks things up. */
const languageAlike = 0.9

/**
 * Weights of a block. Attention begins as if it had learned what it nearly always learns, so that a gradient exists before any skill does ("Mimetic
 * Initialization of Self-Attention Layers", Trockman & Kolter 2023; what the language model does with values is ours). Query and key share most of
 * their weights: a token looks at tokens like itself. The output is the transposed value:
 *
 * - the encoder takes away a part of what it looks at, which makes patches differ from their likes;
 * - the language model copies what it looks at, by the first half of the heads to where it was, by the second half to the other half of the residual
 *   stream (rolled by D/2), where the head reads it.
 *
 * Measured in docs/experiments.md. Deviations are 1/√inputs; what an MLP adds to the residual stream is smaller by √(2·depth). Models whose keys have
 * fewer heads than queries begin without the copying.
 */
function blockWeight({ name, shape }: Weight, { seed, depth }: Options): Float32Array {
  const [outputs = 1, inputs = 1] = shape
  const isLanguage = name.startsWith('languageModel.')
  const named = (other: string, deviation: number) => normalWeight({ name: other, shape }, { seed, deviation })
  const deviation = 1 / Math.sqrt(inputs)
  if (/\.attention\.(query|key)\.weight$/.test(name)) {
    const alike = isLanguage ? languageAlike : encoderAlike
    const shared = named(name.replace(/query|key/, 'query and key'), deviation * alike)
    return named(name, deviation * Math.sqrt(1 - alike ** 2)).map((own, i) => own + (shared[i] ?? 0))
  }
  if (name.endsWith('.attention.output.weight') && outputs === inputs) {
    const value = named(name.replace('output', 'value'), deviation) // [N·H, D]
    return value.map((_, i) => {
      const [to, from] = [Math.floor(i / inputs), i % inputs]
      const at = from * inputs + to
      if (!isLanguage) return -encoderTaken * (value[at] ?? 0)
      return value[from < inputs / 2 ? at : rolled(at, inputs)] ?? 0
    })
  }
  return named(name, name.endsWith('.mlp.down.weight') ? deviation / Math.sqrt(2 * depth) : deviation)
}

/**
 * The language model outside of its blocks: words have embeddings of deviation 1, nearly orthogonal, and the head is the embedding rolled by D/2, which
 * says what attention copied but not the token it stands on.
 */
function wordWeight({ name, shape }: Weight, { seed }: Options): Float32Array {
  const [, width = 1] = shape
  const embedding = 'languageModel.tokenEmbedding.weight'
  if (name !== 'languageModel.head.weight') return normalWeight({ name, shape }, { seed, deviation: 1 })
  const words = normalWeight({ name: embedding, shape }, { seed, deviation: 0.04 })
  return words.map((_, i) => words[rolled(i, width)] ?? 0)
}

/** Where an element of a [.., D] array stands after its row has been rolled by D/2. */
function rolled(index: number, width: number): number {
  const column = index % width
  return index - column + ((column + Math.floor(width / 2)) % width)
}

/** Every weight has its own stream of numbers, whatever the order in which weights are made. */
function normalWeight({ name, shape }: Weight, { seed, deviation }: { seed: number; deviation: number }): Float32Array {
  const random = seededRandom((hashOf(name) ^ Math.imul(seed + 1, 0x9e3779b1)) >>> 0)
  return Float32Array.from({ length: sizeOf(shape) }, () => deviation * normal(random))
}

function sizeOf(shape: readonly number[]): number {
  return shape.reduce((size, dim) => size * dim, 1)
}

/** Small integers from a name (FNV-1a). */
function hashOf(text: string): number {
  let hash = 2166136261
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 16777619)
  return hash >>> 0
}

/** Box and Muller's transform. */
function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random())
}
