/**
 * LLaVA (Figure 1 of the paper): vision encoder → projector → language model, joined only at the language model's input.
 *
 *     Z_v = g(X_v)         patch features      `patchFeatures`  (vision-encoder.ts)
 *     H_v = W · Z_v        visual tokens       `project`        (projector.ts)
 *     H   = [H_v, H_q]     merged sequence     `merge`          (here)
 *     X_a ~ f(H)           answer              `languageModel`  (language-model.ts)
 */

import { expectShape, productOf, replaceRows, reshape, reshapeLike, rows, type Tensor } from '../tensor/index.ts'
import type { LlavaConfig } from './config.ts'
import { embedTokens } from './language-model.ts'
import { project } from './projector.ts'
import { patchFeatures } from './vision-encoder.ts'
import type { WeightSource } from './weights.ts'

/** Pictures as the language model reads them: pixels [I, 3, S, S] → visual tokens [I, P, D]. */
export function visualTokens(
  config: LlavaConfig,
  weights: WeightSource,
  pixels: Tensor,
  options: { checkpointing?: boolean } = {},
): Tensor {
  return project(config, weights, patchFeatures(config, weights, pixels, options))
}

/**
 * The join. Token ids [B, L] (int64) hold P placeholders for each of the I pictures, anywhere in the batch; `places` [I·P] (int64) says at which
 * of the B·L positions each visual token stands, pictures in order. Without pictures this is the token embedding.
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

/** Puts visual tokens [I, P, D] into text embeddings [B, L, D] at `places` [I·P]. */
export function merge(text: Tensor, { tokens, places }: { tokens: Tensor; places: Tensor }): Tensor {
  const [I = 1, P = 1, D = 1] = tokens.shape
  expectShape(text.shape, ['_', '_', D], 'Text embeddings')
  const count = productOf([I, P])
  expectShape(places.shape, [count], 'Places of visual tokens')
  const merged = replaceRows(rows(text), places, reshape(tokens, [count, D])) // [B·L, D]
  return reshapeLike(merged, text) // [B, L, D]
}
