/** The parts of stage `contrastive` that are there for the lesson only: what a recipe says of them, and what they are then. */

import { z } from 'zod'
import { type ClipConfig, checkClipConfig } from '../model/clip-config.ts'
import { checkLlavaConfig, type LlavaConfig } from '../model/config.ts'

const positive = z.number().int().positive()
const tower = z.strictObject({ width: positive, depth: positive, heads: positive })

export const contrastSchema = z.strictObject({
  /** E: numbers in the embedding of a picture or a text; that of SigLIP's encoders is as wide as they are. */
  embedding: positive.optional(),
  textEncoder: tower.default({ width: 128, depth: 3, heads: 4 }),
  /** A small language model that reads patch features through a projection and writes the caption. */
  captioner: tower.default({ width: 128, depth: 2, heads: 4 }),
  /** False captions per picture. */
  contrasts: z.number().int().min(0).default(3),
  /** Weight of writing captions beside comparing them; 0 leaves the captioner out. */
  captioning: z.number().min(0).default(1),
})

export type ContrastSettings = {
  readonly clip: ClipConfig
  /** The captioner as a LLaVA of its own; its weights have `captioner.` before their names. */
  readonly captioner: LlavaConfig
  readonly contrasts: number
  readonly captioning: number
  /** T: tokens of a caption, with its start and end. */
  readonly length: number
}

/**
 * What a recipe's `contrast` means for a model. The text encoder is of the kind of the vision encoder, CLIP's or SigLIP's; the loss is SigLIP's for both.
 * @throws RangeError for sizes that do not go together
 */
export function contrastSettings(
  { vision, language, ...config }: LlavaConfig,
  { contrast = {}, length }: { contrast?: z.input<typeof contrastSchema> | undefined; length: number },
): ContrastSettings {
  const { embedding, textEncoder, captioner, contrasts, captioning } = contrastSchema.parse(contrast)
  const [end] = language.eosTokens
  const embeddingWidth = embedding ?? (vision.kind === 'clip' ? 128 : vision.width)
  const { activation, normEpsilon } = vision
  const clip: ClipConfig = {
    kind: vision.kind,
    vision,
    text: {
      kind: vision.kind,
      vocabulary: language.vocabulary,
      ...textEncoder,
      mlpWidth: 4 * textEncoder.width,
      activation,
      normEpsilon,
      context: length,
      embeddingWidth,
      readAt: vision.kind === 'clip' && end !== undefined ? end : 'last',
    },
    embeddingWidth,
    bias: true,
  }
  checkClipConfig(clip)
  const writer: LlavaConfig = {
    ...config,
    vision,
    projector: { layers: 1, activation: 'gelu', bias: true },
    language: {
      ...language,
      ...captioner,
      keyValueHeads: captioner.heads,
      headSize: captioner.width / captioner.heads,
      mlpWidth: 2 * Math.round((4 / 3) * captioner.width),
      context: config.visualTokens + length,
      tiedHead: false,
      attentionBias: false,
    },
  }
  checkLlavaConfig(writer)
  return { clip, captioner: writer, contrasts, captioning, length }
}
