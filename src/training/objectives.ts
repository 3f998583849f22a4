/**
 * What is minimised: losses as symbolic tensors over the model's own functions.
 *
 * Sizes are numbers here: a training step is compiled for one batch size and one length, so that memory is planned once.
 */

import type { LlavaConfig } from '../model/config.ts'
import { embedTokens, languageModel, logits } from '../model/language-model.ts'
import { mergedSequence, visualTokens } from '../model/llava.ts'
import { project } from '../model/projector.ts'
import { patchFeatures } from '../model/vision-encoder.ts'
import type { WeightSource } from '../model/weights.ts'
import {
  add,
  causalMask,
  constant,
  crossEntropy,
  gatherRows,
  input,
  linear,
  reshape,
  rows,
  type Tensor,
} from '../tensor/index.ts'

export type Objective = {
  /** Summed over the targets, each with its weight: []. */
  readonly loss: Tensor
  /** Scores of each target, for validation: [M, V]. */
  readonly scores: Tensor
}

/** How the pictures of a batch enter the graph: as pixels, as cached patch features, or written in words. */
export type PictureForm = 'pixels' | 'features' | 'words'

/**
 * Names, for each patch, what it is a part of, and the thing whose middle it holds: the vision encoder's own lesson, for worlds whose truth is known
 * patch by patch. The head is dropped afterwards. Inputs `pixels` [B, 3, S, S], `targets` [B·P·2] int64, `targetWeights` [B·P·2].
 */
export function patchLabelLoss(
  config: LlavaConfig,
  weights: WeightSource,
  { batch, labels }: { batch: number; labels: number },
): Objective {
  const { vision, visualTokens: P } = config
  const features = patchFeatures(config, weights, pixelInput(config, batch)) // [B, P, C]
  const weight = weights('labelHead.weight', [2 * labels, vision.width])
  const both = linear(rows(features), { weight, bias: weights('labelHead.bias', [2 * labels]) }) // [B·P, 2·labels]
  const M = 2 * batch * P
  const scores = reshape(both, [M, labels])
  return { loss: crossEntropy(scores, targetInputs(M)), scores }
}

export type AnswerLossOptions = {
  batch: number
  length: number
  form: PictureForm
  /** Tokens that stand for a picture: P unless told; pictures in words may leave patches out. */
  pictureTokens?: number
}

/**
 * −log p of the answers, the paper's only loss (§4.2, equation 3): p(X_a | X_v, X_q) = Π p(x_i | X_v, X_q, X_a,<i).
 *
 * Inputs `ids` [B, L] int64 with placeholders, `places` [B·P] int64 where the visual tokens stand, the pictures as `form` says, and the targets:
 * `targetRows` [M] int64 into the B·L positions, `targets` [M] int64, `targetWeights` [M]. M = B·(L − P): no visual token is ever a target.
 */
export function answerLoss(
  config: LlavaConfig,
  weights: WeightSource,
  { batch, length, form, pictureTokens: P = config.visualTokens }: AnswerLossOptions,
): Objective {
  const ids = input('ids', 'int64', [batch, length])
  const places = input('places', 'int64', [batch * P])
  const tokens = pictureTokens(config, weights, { batch, form, count: P })
  const embeddings = mergedSequence(config, weights, { ids, pictures: { tokens, places } }) // [B, L, D]
  const context = {
    kind: 'whole',
    positions: positionIndex(batch, length),
    mask: constant('float32', [length, length], causalMask(length)),
  } as const
  const { hidden } = languageModel(config.language, weights, { embeddings, context })
  const M = batch * (length - P)
  const answering = gatherRows(rows(hidden), input('targetRows', 'int64', [M])) // [M, D]
  const scores = logits(config.language, weights, answering) // [M, V]
  return { loss: crossEntropy(scores, targetInputs(M)), scores }
}

/** Visual tokens [B, P, D] from whatever stands for the pictures. */
function pictureTokens(
  config: LlavaConfig,
  weights: WeightSource,
  { batch, form, count }: { batch: number; form: PictureForm; count: number },
): Tensor {
  const { vision, language, visualTokens: P } = config
  switch (form) {
    case 'pixels':
      return visualTokens(config, weights, pixelInput(config, batch))
    case 'features':
      return project(config, weights, input('features', 'float32', [batch, P, vision.width]))
    case 'words': {
      // One word per patch, and where the patch is: rotary positions are relative, so a word alone has no place in the picture.
      const words = embedTokens(language, weights, input('words', 'int64', [batch, count])) // [B, W, D]
      const table = weights('placeTable.weight', [P, language.width])
      return add(words, gatherRows(table, input('patches', 'int64', [batch, count])))
    }
  }
}

function positionIndex(batch: number, length: number): Tensor {
  return constant(
    'int64',
    [batch, length],
    BigInt64Array.from({ length: batch * length }, (_, i) => BigInt(i % length)),
  )
}

function pixelInput({ vision }: LlavaConfig, batch: number): Tensor {
  return input('pixels', 'float32', [batch, 3, vision.imageSide, vision.imageSide])
}

function targetInputs(count: number): { targets: Tensor; weights: Tensor } {
  return { targets: input('targets', 'int64', [count]), weights: input('targetWeights', 'float32', [count]) }
}
