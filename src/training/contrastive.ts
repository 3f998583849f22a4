/**
 * How a vision encoder learns from pictures and captions alone: the sigmoid loss of SigLIP (Zhai et al. 2023 §3.2, equation 1) over all pairs of a batch
 * and over false captions of the same picture, and a small language model that writes the caption from patch features (CapPa, Tschannen et al. 2023).
 * Comparing teaches what belongs to which picture, writing what is where in it.
 */

import { poolPictures, similarityLogits, unitLength } from '../model/clip.ts'
import { countUsedVisionBlocks, type LlavaConfig } from '../model/config.ts'
import { embedTokens, languageModel, logits } from '../model/language-model.ts'
import { project } from '../model/projector.ts'
import { isCausal, textEmbeddings, textPositions } from '../model/text-encoder.ts'
import { hiddenStates, withoutClassToken } from '../model/vision-encoder.ts'
import { type WeightSource, within } from '../model/weights.ts'
import {
  add,
  causalMask,
  concat,
  constant,
  crossEntropy,
  input,
  rows,
  scaleBy,
  sigmoidLoss,
  slice,
  type Tensor,
} from '../tensor/index.ts'
import type { ContrastSettings } from './contrast-settings.ts'
import { type Objective, pixelInput, positionIndex, targetInputs } from './objectives.ts'

/**
 * Inputs `pixels` [B, 3, S, S]; of N = B · (1 + contrasts) texts, the B true captions first: `texts` [N, T] int64, `textPlaces` [N] int64 where they are
 * read; `pairLabels` [B, N] (1 for a true pair, −1 for a false one) and `pairWeights` [B, N]; the next token at each of the captions' positions,
 * `targets` [B·T] int64 and `targetWeights` [B·T]. Scores are the logits of all pairs, [B, N].
 */
export function contrastiveLoss(
  config: LlavaConfig,
  weights: WeightSource,
  { batch: B, settings, checkpointing = false }: { batch: number; settings: ContrastSettings; checkpointing?: boolean },
): Objective {
  const { clip, captioning, contrasts, length: T } = settings
  const N = B * (1 + contrasts)
  const texts = input('texts', 'int64', [N, T])
  const states = hiddenStates(clip.vision, weights, { pixels: pixelInput(config, B), checkpointing })
  const pictures = poolPictures(clip, weights, states.at(-1) as Tensor) // [B, E]
  const sentences = textEmbeddings(clip.text, weights, {
    ids: texts,
    positions: textPositions(T),
    places: input('textPlaces', 'int64', [N]),
    mask: isCausal(clip.text) ? constant('float32', [T, T], causalMask(T)) : undefined,
    checkpointing,
  }) // [N, E]
  const both = { pictures: unitLength(pictures), texts: unitLength(sentences) }
  const scores = similarityLogits(clip, weights, both) // [B, N]
  const pairs = { labels: input('pairLabels', 'float32', [B, N]), weights: input('pairWeights', 'float32', [B, N]) }
  const compared = sigmoidLoss(scores, pairs)
  if (captioning === 0) return { loss: compared, scores }

  const captions = slice(texts, { axis: 0, start: 0, end: B }) // [B, T]
  const features = states[countUsedVisionBlocks(config)] as Tensor // [B, P (+1), C]
  const patches = config.vision.classToken && config.featureSelect === 'patch' ? withoutClassToken(features) : features
  const written = captionLoss(settings.captioner, within(weights, 'captioner'), { patches, captions })
  return { loss: add(compared, scaleBy(written, captioning)), scores }
}

/** −log p of each caption's next token, given the patch features and the tokens before it. */
function captionLoss(
  config: LlavaConfig,
  weights: WeightSource,
  { patches, captions }: { patches: Tensor; captions: Tensor },
): Tensor {
  const [B = 1, T = 1] = captions.shape.map(Number)
  const P = Number(patches.shape[1])
  const L = P + T
  const shown = project(config, weights, patches) // [B, P, D]
  const embeddings = concat([shown, embedTokens(config.language, weights, captions)], 1) // [B, P+T, D]
  const context = {
    kind: 'whole',
    positions: positionIndex(B, L),
    mask: constant('float32', [L, L], causalMask(L)),
  } as const
  const { hidden } = languageModel(config.language, weights, { embeddings, context }) // [B, P+T, D]
  const said = rows(slice(hidden, { axis: 1, start: P, end: L })) // [B·T, D]
  return crossEntropy(logits(config.language, weights, said), targetInputs(B * T))
}
