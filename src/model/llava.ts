/**
 * LLaVA (Figure 1 of the paper): vision encoder → projector → language model, joined only at the language model's input.
 *
 *     Z_v = g(X_v)         patch features      `patchFeatures`  (vision-encoder.ts)
 *     H_v = W · Z_v        visual tokens       `project`        (projector.ts)
 *                          … of all views      `arrange`        (here, where a picture has several views)
 *     H   = [H_v, H_q]     merged sequence     `merge`          (here)
 *     X_a ~ f(H)           answer              `languageModel`  (language-model.ts)
 */

import {
  concat,
  expectShape,
  gatherRows,
  mul,
  replaceRows,
  reshape,
  reshapeLike,
  rows,
  sum,
  type Tensor,
} from '../tensor/index.ts'
import { mostSources } from './arrangement.ts'
import type { LlavaConfig } from './config.ts'
import { embedTokens } from './language-model.ts'
import { project } from './projector.ts'
import { patchFeatures } from './vision-encoder.ts'
import type { WeightSource } from './weights.ts'

/** Pictures of one view as the language model reads them: pixels [I, 3, S, S] → visual tokens [I, P, D]. */
export function visualTokens(
  config: LlavaConfig,
  weights: WeightSource,
  pixels: Tensor,
  options: { checkpointing?: boolean } = {},
): Tensor {
  return project(config, weights, patchFeatures(config, weights, pixels, options))
}

/**
 * The visual tokens of one picture in the order in which the language model reads them: those of its views [J, P, D], and the newline, as its
 * arrangement (arrangement.ts) says with `sources` [K, M] (int64) and `shares` [K, M, 1]. → [M, D]
 */
export function arrange(
  config: LlavaConfig,
  weights: WeightSource,
  { tokens, sources, shares }: { tokens: Tensor; sources: Tensor; shares: Tensor },
): Tensor {
  const { width: D } = config.language
  expectShape(tokens.shape, ['_', config.visualTokens, D], 'Visual tokens of the views')
  const [K = 1, M = 1] = sources.shape
  expectShape(shares.shape, [K, M, 1], 'Shares of the sources')
  const table = concat([rows(tokens), newlineRow(config, weights)], 0) // [J·P + 1, D]
  return sum(mul(gatherRows(table, sources), shares), { axes: [0] }) // [K, M, D] → [M, D]
}

/**
 * The join. Token ids [B, L] (int64) hold placeholders for M visual tokens, those of all pictures in order, anywhere in the batch; `places` [M]
 * (int64) says at which of the B·L positions each stands. Without pictures this is the token embedding.
 * → merged sequence [B, L, D]
 */
export function mergedSequence(
  config: LlavaConfig,
  weights: WeightSource,
  { ids, pictures }: { ids: Tensor; pictures?: { tokens: Tensor; places: Tensor } | undefined },
): Tensor {
  const text = embedTokens(config.language, weights, ids) // [B, L, D]
  return pictures === undefined ? text : merge(text, pictures)
}

/**
 * Arranged and joined at once, by looking up: for batches whose pictures differ in number, views and places while their graph has one shape.
 *
 * Token ids [B, L] (int64) and the visual tokens of all views [J, P, D] make a table of B·L + J·P rows, and one more where there are tiles, the
 * newline. The embedding at a position is the row that `sources` [B, L] (int64) names; of a model that shrinks pictures (`mostSources`), the sum of K
 * rows, `sources` [K, B, L], each with its share, `shares` [K, B, L, 1]. → merged sequence [B, L, D]
 */
export function gatheredSequence(
  config: LlavaConfig,
  weights: WeightSource,
  { ids, tokens, sources, shares }: { ids: Tensor; tokens: Tensor; sources: Tensor; shares?: Tensor | undefined },
): Tensor {
  const { width: D } = config.language
  const K = mostSources(config)
  const text = embedTokens(config.language, weights, ids) // [B, L, D]
  const parts = [rows(text), rows(tokens)]
  if (config.tiles !== undefined) parts.push(newlineRow(config, weights))
  const table = concat(parts, 0) // [B·L + J·P (+ 1), D]
  if (shares === undefined) {
    expectShape(sources.shape, [...ids.shape], 'Sources of the embeddings')
    return gatherRows(table, sources) // [B, L, D]
  }
  expectShape(sources.shape, [K, ...ids.shape], 'Sources of the embeddings')
  expectShape(shares.shape, [K, ...ids.shape, 1], 'Shares of the sources')
  return reshape(sum(mul(gatherRows(table, sources), shares), { axes: [0] }), [...ids.shape, D]) // [K, B, L, D] → [B, L, D]
}

function newlineRow({ language: { width: D } }: LlavaConfig, weights: WeightSource): Tensor {
  return reshape(weights('projector.newline', [D]), [1, D])
}

/** Puts visual tokens [M, D] (or [I, P, D], where all pictures have P) into text embeddings [B, L, D] at `places` [M]. */
export function merge(text: Tensor, { tokens, places }: { tokens: Tensor; places: Tensor }): Tensor {
  const flat = rows(tokens) // [M, D]
  const [M = 1, D = 1] = flat.shape
  expectShape(text.shape, ['_', '_', D], 'Text embeddings')
  expectShape(places.shape, [M], 'Places of visual tokens')
  const merged = replaceRows(rows(text), places, flat) // [B·L, D]
  return reshapeLike(merged, text) // [B, L, D]
}
