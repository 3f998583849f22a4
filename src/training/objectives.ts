/**
 * What is minimised: losses as symbolic tensors over the model's own functions.
 *
 * Sizes are numbers here: a training step is compiled for one batch size and one length, so that memory is planned once.
 */

import { mostSources } from '../model/arrangement.ts'
import type { LlavaConfig } from '../model/config.ts'
import { type Context, embedTokens, languageModel, logits } from '../model/language-model.ts'
import { gatheredSequence, mergedSequence, visualTokens } from '../model/llava.ts'
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
  mul,
  reshape,
  rows,
  scaleBy,
  square,
  sub,
  sum,
  type Tensor,
} from '../tensor/index.ts'
import { blockDiagonalMask } from './packing.ts'

export type Objective = {
  /** Summed over the targets, each with its weight: []. */
  readonly loss: Tensor
  /** What is learned from, where that is not the loss as it is: the same with dropout. */
  readonly learned?: Tensor
  /** Scores of each target, for validation: [M, V]. */
  readonly scores: Tensor
}

/** How the pictures of a batch enter the graph: as pixels, as cached patch features, or written in words. */
export type PictureForm = 'pixels' | 'features' | 'words'

export type PatchLabelOptions = {
  batch: number
  labels: number
  checkpointing?: boolean
}

/**
 * Names, for each patch, what it is a part of and the thing whose middle it holds, and tells its place: the vision encoder's own lesson, for worlds
 * whose truth is known patch by patch. The head is dropped afterwards. Inputs `pixels` [B, 3, S, S], `targets` [B·P·2] int64, `targetWeights` [B·P·2].
 */
export function patchLabelLoss(
  config: LlavaConfig,
  weights: WeightSource,
  { batch, labels, checkpointing = false }: PatchLabelOptions,
): Objective {
  const { vision, visualTokens: P } = config
  const features = patchFeatures(config, weights, pixelInput(config, batch), { checkpointing }) // [B, P, C]
  const weight = weights('labelHead.weight', [2 * labels, vision.width])
  const both = linear(rows(features), { weight, bias: weights('labelHead.bias', [2 * labels]) }) // [B·P, 2·labels]
  const M = 2 * batch * P
  const scores = reshape(both, [M, labels])
  const targets = targetInputs(M)
  const named = crossEntropy(scores, targets)
  const patchWeights = sum(reshape(targets.weights, [batch * P, 2]), { axes: [1] }) // [B·P]
  const placed = placeLoss(config, weights, { features: rows(features), patchWeights })
  return { loss: add(named, placed), scores }
}

/**
 * Tells each patch's place from its features [B·P, C]. A thing can be named without knowing where it is, and what no lesson asks for is lost on the way
 * through the blocks; but the language model will be asked where things are. Patches weigh as much as in the other task: averaged over all alike, the
 * loss is content with the background.
 */
function placeLoss(
  { vision, visualTokens: P }: LlavaConfig,
  weights: WeightSource,
  { features, patchWeights }: { features: Tensor; patchWeights: Tensor },
): Tensor {
  const M = Number(features.shape[0])
  const head = {
    weight: weights('labelHead.place.weight', [P, vision.width]),
    bias: weights('labelHead.place.bias', [P]),
  }
  const targets = constant(
    'int64',
    [M],
    BigInt64Array.from({ length: M }, (_, row) => BigInt(row % P)),
  )
  return crossEntropy(linear(features, head), { targets, weights: patchWeights })
}

/**
 * How far visual tokens are from the picture written in words: for each patch, the word of the thing whose middle it holds, or of the setting, and its
 * place, as the language model reads them in its own lesson. The mean over D of the squared distance, summed over patches with their weights.
 * Inputs `features` [B, P, C], `words` [B, P] int64, `targetWeights` [B·P].
 */
export function pictureWordLoss(config: LlavaConfig, weights: WeightSource, { batch }: { batch: number }): Objective {
  const { vision, language, visualTokens: P } = config
  const tokens = project(config, weights, input('features', 'float32', [batch, P, vision.width])) // [B, P, D]
  const words = embedTokens(language, weights, input('words', 'int64', [batch, P])) // [B, P, D]
  const written = add(words, weights('placeTable.weight', [P, language.width]))
  const away = sum(square(sub(rows(tokens), rows(written))), { axes: [1] }) // [B·P]
  const loss = sum(mul(away, input('targetWeights', 'float32', [batch * P])))
  return { loss: scaleBy(loss, 1 / language.width), scores: rows(tokens) }
}

export type AnswerLossOptions = {
  batch: number
  length: number
  form: PictureForm
  /** Tokens that stand for a picture: P unless told; pictures in words may leave patches out. */
  pictureTokens?: number
  /** The inner values of each block are computed again in the backward pass instead of being kept. */
  checkpointing?: boolean
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
  { batch, length, form, pictureTokens: P = config.visualTokens, checkpointing = false }: AnswerLossOptions,
): Objective {
  const ids = input('ids', 'int64', [batch, length])
  const places = input('places', 'int64', [batch * P])
  const tokens = pictureTokens(config, weights, { batch, form, count: P, checkpointing })
  const embeddings = mergedSequence(config, weights, { ids, pictures: { tokens, places } }) // [B, L, D]
  const context = wholeContext({ batch, length })
  return scoredAnswers(config, weights, { embeddings, context, count: batch * (length - P), checkpointing })
}

/**
 * `answerLoss` over rows with any pictures, of one view or several: how many there are changes from batch to batch, so each position looks up its
 * embedding, and views that are left blank are looked up by none. With `packed` several samples share a row, with the same loss as if each had its own.
 *
 * Inputs `ids`, `sources` and `shares` as `gatheredInputs` makes them, `views` views as `form` says, the targets of `answerLoss`, and if packed
 * `positions` and `segments` [B, L] (`packedInputs`).
 */
export function gatheredAnswerLoss(
  config: LlavaConfig,
  weights: WeightSource,
  options: AnswerLossOptions & { views: number; packed: boolean },
): Objective {
  const { batch, length, form, views, packed, pictureTokens: P = config.visualTokens, checkpointing = false } = options
  const K = mostSources(config)
  const embeddings = gatheredSequence(config, weights, {
    ids: input('ids', 'int64', [batch, length]),
    tokens: pictureTokens(config, weights, { batch: views, form, count: P, checkpointing }), // [J, P, D]
    sources: input('sources', 'int64', K === 1 ? [batch, length] : [K, batch, length]),
    ...(K > 1 && { shares: input('shares', 'float32', [K, batch, length, 1]) }),
  })
  const context = packed ? packedContext({ batch, length }) : wholeContext({ batch, length })
  return scoredAnswers(config, weights, { embeddings, context, count: batch * (length - P), checkpointing })
}

function wholeContext({ batch, length }: { batch: number; length: number }): Context {
  return {
    kind: 'whole',
    positions: positionIndex(batch, length),
    mask: constant('float32', [length, length], causalMask(length)),
  }
}

function packedContext({ batch, length }: { batch: number; length: number }): Context {
  return {
    kind: 'whole',
    positions: input('positions', 'int64', [batch, length]),
    mask: blockDiagonalMask(input('segments', 'float32', [batch, length]), { batch, length }),
  }
}

/** The language model's answer to a merged sequence [B, L, D], at M = `count` targets. */
function scoredAnswers(
  config: LlavaConfig,
  weights: WeightSource,
  options: { embeddings: Tensor; context: Context; count: number; checkpointing: boolean },
): Objective {
  const { count: M, ...sequence } = options
  const { hidden } = languageModel(config.language, weights, sequence)
  const answering = gatherRows(rows(hidden), input('targetRows', 'int64', [M])) // [M, D]
  const scores = logits(config.language, weights, answering) // [M, V]
  return { loss: crossEntropy(scores, targetInputs(M)), scores }
}

/** Visual tokens [B, P, D] from whatever stands for the pictures. */
function pictureTokens(
  config: LlavaConfig,
  weights: WeightSource,
  options: { batch: number; form: PictureForm; count: number; checkpointing: boolean },
): Tensor {
  const { batch, form, count, checkpointing } = options
  const { vision, language, visualTokens: P } = config
  switch (form) {
    case 'pixels':
      return visualTokens(config, weights, pixelInput(config, batch), { checkpointing })
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

/** Positions 0 … L − 1 of each row: [B, L]. */
export function positionIndex(batch: number, length: number): Tensor {
  return constant(
    'int64',
    [batch, length],
    BigInt64Array.from({ length: batch * length }, (_, i) => BigInt(i % length)),
  )
}

export function pixelInput({ vision }: LlavaConfig, batch: number): Tensor {
  return input('pixels', 'float32', [batch, 3, vision.imageSide, vision.imageSide])
}

export function targetInputs(count: number): { targets: Tensor; weights: Tensor } {
  return { targets: input('targets', 'int64', [count]), weights: input('targetWeights', 'float32', [count]) }
}
