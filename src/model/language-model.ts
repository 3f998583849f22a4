/**
 * The language model: a LLaMA decoder (Touvron et al. 2023 §2.2): RMS norm, rotary positions, SwiGLU, grouped-query attention.
 * Optional biases on query, key and value make it Qwen2.
 *
 * It knows nothing of pictures: it reads a sequence of embeddings [B, L, D], wherever they come from.
 */

import {
  activate,
  add,
  attention,
  cachedAttention,
  expectShape,
  gatherRows,
  type KeyValueCache,
  largestOfChannels,
  linear,
  mul,
  type RotaryTables,
  recompute,
  rmsNorm,
  rotary,
  rotaryTables,
  type Tensor,
} from '../tensor/index.ts'
import type { LanguageModelConfig } from './config.ts'
import { type WeightSource, within } from './weights.ts'

/**
 * What a token may look at. `whole`: the sequence is given at once; positions [B, L] int64, and a mask that keeps it causal.
 * `cached`: the tokens follow those in the cache (see `cachedAttention`).
 */
export type Context =
  | { readonly kind: 'whole'; readonly positions: Tensor; readonly mask: Tensor }
  | {
      readonly kind: 'cached'
      readonly caches: readonly KeyValueCache[]
      readonly lastIndex: Tensor
      readonly total: Tensor
    }

export type LanguageModelResult = {
  /** After the final norm: [B, L, D]. */
  readonly hidden: Tensor
  /** What entered the first block, then the output of each block: depth + 1 times [B, L, D]. */
  readonly hiddenStates: readonly Tensor[]
  /** One per block, when the context was cached. */
  readonly caches: readonly ExtendedCache[]
}

/** A cache after the call, and the largest size of the numbers that were appended, per channel [Nkv·H]; keys before their rotation. */
export type ExtendedCache = KeyValueCache & { readonly largest: { readonly key: Tensor; readonly value: Tensor } }

/** Token ids (any shape, int64) → embeddings [.., D]. */
export function embedTokens(config: LanguageModelConfig, weights: WeightSource, ids: Tensor): Tensor {
  return gatherRows(weights('languageModel.tokenEmbedding.weight', [config.vocabulary, config.width]), ids)
}

/**
 * Embeddings [B, L, D] → hidden states [B, L, D]. With `checkpointing`, the backward pass over whole sequences computes the inner values of each
 * block again instead of keeping them (`recompute`).
 */
export function languageModel(
  config: LanguageModelConfig,
  weights: WeightSource,
  { embeddings, context, checkpointing = false }: { embeddings: Tensor; context: Context; checkpointing?: boolean },
): LanguageModelResult {
  expectShape(embeddings.shape, ['_', '_', config.width], 'Language model input')
  const own = within(weights, 'languageModel')
  const tables = rotaryTables({ positions: config.context, headSize: config.headSize, theta: config.ropeTheta })
  const caches: ExtendedCache[] = []
  const hiddenStates = [embeddings]
  let x = embeddings // [B, L, D]
  for (let block = 0; block < config.depth; block++) {
    const step = (x: Tensor) => decoderBlock(config, within(own, `blocks.${block}`), { x, context, block, tables })
    if (checkpointing && context.kind === 'whole') x = recompute(x, (x) => step(x).x)
    else {
      const { x: next, cache } = step(x)
      if (cache !== undefined) caches.push(cache)
      x = next
    }
    hiddenStates.push(x)
  }
  return { hidden: norm(config, within(own, 'norm'), x), hiddenStates, caches }
}

/** Hidden states [.., D] → logits [.., V]. A tied head is the token embedding used backwards. */
export function logits(config: LanguageModelConfig, weights: WeightSource, hidden: Tensor): Tensor {
  const name = config.tiedHead ? 'languageModel.tokenEmbedding.weight' : 'languageModel.head.weight'
  return linear(hidden, { weight: weights(name, [config.vocabulary, config.width]) })
}

type BlockInput = { x: Tensor; context: Context; block: number; tables: RotaryTables }

function decoderBlock(
  config: LanguageModelConfig,
  weights: WeightSource,
  { x, context, block, tables }: BlockInput,
): { x: Tensor; cache: ExtendedCache | undefined } {
  const normal = norm(config, within(weights, 'norm1'), x)
  const { output, cache } = selfAttention(config, within(weights, 'attention'), { x: normal, context, block, tables })
  const attended = add(x, output)
  return {
    x: add(attended, mlp(config, within(weights, 'mlp'), norm(config, within(weights, 'norm2'), attended))),
    cache,
  }
}

function selfAttention(
  config: LanguageModelConfig,
  weights: WeightSource,
  { x, context, block, tables }: BlockInput,
): { output: Tensor; cache: ExtendedCache | undefined } {
  const { width: D, heads, keyValueHeads, headSize } = config
  const layer = (name: string, [out, width]: readonly [number, number], biased: boolean) =>
    ({
      weight: weights(`${name}.weight`, [out, width]),
      bias: biased ? weights(`${name}.bias`, [out]) : undefined,
    }) as const
  const query = linear(x, layer('query', [heads * headSize, D], config.attentionBias)) // [B, L, N·H]
  const key = linear(x, layer('key', [keyValueHeads * headSize, D], config.attentionBias)) // [B, L, Nkv·H]
  const value = linear(x, layer('value', [keyValueHeads * headSize, D], config.attentionBias))
  const project = (mixed: Tensor) => linear(mixed, layer('output', [D, heads * headSize], false)) // [B, L, D]

  if (context.kind === 'whole') {
    const turn = (part: Tensor, n: number) => rotary(part, { positions: context.positions, tables, heads: n })
    const inputs = { query: turn(query, heads), key: turn(key, keyValueHeads), value }
    const { output } = attention(inputs, { heads, keyValueHeads, mask: context.mask })
    return { output: project(output), cache: undefined }
  }
  const cache = context.caches[block]
  if (cache === undefined) {
    throw new RangeError(`Cannot run block ${block}: found ${context.caches.length} caches, expected ${config.depth}`)
  }
  const { lastIndex, total } = context
  const attended = cachedAttention({ query, key, value, cache, lastIndex, total }, { heads, keyValueHeads, tables })
  const largest = { key: largestOfChannels(key), value: largestOfChannels(value) }
  return { output: project(attended.output), cache: { ...attended.cache, largest } }
}

/** SwiGLU: down(silu(gate x) · up x). */
function mlp(config: LanguageModelConfig, weights: WeightSource, x: Tensor): Tensor {
  const { width, mlpWidth } = config
  const gate = linear(x, { weight: weights('gate.weight', [mlpWidth, width]) })
  const up = linear(x, { weight: weights('up.weight', [mlpWidth, width]) })
  return linear(mul(activate(gate, 'silu'), up), { weight: weights('down.weight', [width, mlpWidth]) })
}

function norm(config: LanguageModelConfig, weights: WeightSource, x: Tensor): Tensor {
  return rmsNorm(x, { weight: weights('weight', [config.width]), epsilon: config.normEpsilon })
}
