/** What a CLIP or SigLIP model is made of, read from a Hugging Face `config.json` (CLIPModel, SiglipModel). */

import { z } from 'zod'
import { show } from '../wrong-fields.ts'
import { countPatches, readVision, type VisionEncoderConfig } from './config.ts'
import { activations, asRecord, parseSection, reading } from './config-schema.ts'

export type TextEncoderConfig = {
  kind: 'clip' | 'siglip'
  vocabulary: number
  width: number // D
  depth: number // blocks
  heads: number
  mlpWidth: number
  activation: VisionEncoderConfig['activation']
  normEpsilon: number
  context: number // tokens of the longest text
  embeddingWidth: number // E
  /** Where the text is read: at its first token of this id, at its largest id (CLIP's oldest files), or at the last position. */
  readAt: number | 'largest' | 'last'
}

export type ClipConfig = {
  kind: 'clip' | 'siglip'
  vision: VisionEncoderConfig
  text: TextEncoderConfig
  embeddingWidth: number // E
  bias: boolean // whether a constant is added to every logit
}

const width = z.int().min(1).max(1_048_576)
const count = z.int().min(1).max(4096)

const textSchema = z.object({
  model_type: z.enum(['clip_text_model', 'siglip_text_model']),
  vocab_size: z.int().min(1).max(16_777_216),
  hidden_size: width,
  intermediate_size: width,
  num_hidden_layers: count,
  num_attention_heads: count,
  max_position_embeddings: z.int().min(1).max(65_536),
  hidden_act: z.enum(['quick_gelu', 'gelu', 'gelu_pytorch_tanh']),
  layer_norm_eps: z.number().min(0).max(1),
  eos_token_id: z.int().min(0).nullish(),
  projection_size: width.nullish(),
})

const clipSchema = z.object({
  model_type: z.enum(['clip', 'siglip']),
  projection_dim: width.optional(),
})

/** The defaults of the config classes: transformers writes only what differs, and the first SigLIP writes nothing else than its model_type. */
const defaults = {
  clip: {
    projection_dim: 512,
    text: {
      model_type: 'clip_text_model',
      vocab_size: 49408,
      hidden_size: 512,
      intermediate_size: 2048,
      num_hidden_layers: 12,
      num_attention_heads: 8,
      max_position_embeddings: 77,
      hidden_act: 'quick_gelu',
      layer_norm_eps: 1e-5,
      eos_token_id: 49407,
    },
    vision: {
      model_type: 'clip_vision_model',
      hidden_size: 768,
      intermediate_size: 3072,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      image_size: 224,
      patch_size: 32,
      hidden_act: 'quick_gelu',
    },
  },
  siglip: {
    projection_dim: undefined,
    text: {
      model_type: 'siglip_text_model',
      vocab_size: 32000,
      hidden_size: 768,
      intermediate_size: 3072,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      max_position_embeddings: 64,
      hidden_act: 'gelu_pytorch_tanh',
      layer_norm_eps: 1e-6,
    },
    vision: {
      model_type: 'siglip_vision_model',
      hidden_size: 768,
      intermediate_size: 3072,
      num_hidden_layers: 12,
      num_attention_heads: 12,
      image_size: 224,
      patch_size: 16,
      hidden_act: 'gelu_pytorch_tanh',
    },
  },
} as const

/**
 * Reads an untrusted, already parsed `config.json` of CLIPModel or SiglipModel.
 *
 * Errors: `TypeError` for a value of the wrong type, `RangeError` for one out of range or inconsistent with another, `Error` for another kind of model.
 */
export function parseClipConfig(json: unknown): ClipConfig {
  const root = asRecord(json, 'the file')
  if (root.model_type !== 'clip' && root.model_type !== 'siglip') {
    throw new Error(
      `${reading}: model_type is ${show(root.model_type)}, expected "clip" (CLIPModel) or "siglip" (SiglipModel)`,
    )
  }
  const known = defaults[root.model_type]
  const top = parseSection(clipSchema, { ...root, projection_dim: root.projection_dim ?? known.projection_dim }, '')
  const section = sectionOf(root, 'vision')
  if ('vision_use_head' in section && section.vision_use_head === false) {
    throw new Error(
      `${reading}: vision_config.vision_use_head is false, expected a vision encoder with its pooling head`,
    )
  }
  const vision = readVision(section)
  const text = readText(sectionOf(root, 'text'), top.projection_dim)
  const config: ClipConfig = {
    kind: top.model_type,
    vision,
    text,
    embeddingWidth: text.embeddingWidth,
    bias: top.model_type === 'siglip',
  }
  checkClipConfig(config)
  return config
}

/** The vision encoder of a CLIPModel or SiglipModel, or one alone: CLIPVisionModel, SiglipVisionModel. Errors: those of `parseClipConfig`. */
export function parseVisionEncoder(json: unknown): VisionEncoderConfig {
  const root = asRecord(json, 'the file')
  for (const kind of ['clip', 'siglip'] as const) {
    if (root.model_type === kind) return readVision(sectionOf(root, 'vision'))
    if (root.model_type === defaults[kind].vision.model_type) return readVision({ ...defaults[kind].vision, ...root })
  }
  throw new Error(`${reading}: model_type is ${show(root.model_type)}, expected a CLIP or SigLIP model`)
}

/** A section over the defaults of its class; `text_config_dict`, which files of 2022 have besides, wins over it as a whole. */
function sectionOf(root: Record<string, unknown>, name: 'text' | 'vision'): Record<string, unknown> {
  const known = defaults[root.model_type as 'clip' | 'siglip'][name]
  const given = root[`${name}_config`] ?? {}
  const whole = root[`${name}_config_dict`] ?? undefined
  const section = {
    ...known,
    ...asRecord(given, `${name}_config`),
    ...(whole !== undefined && { ...known, ...asRecord(whole, `${name}_config_dict`) }),
  }
  if (section.model_type !== known.model_type) {
    throw new Error(
      `${reading}: ${name}_config.model_type is ${show(section.model_type)}, expected ${show(known.model_type)}`,
    )
  }
  return section
}

function readText(json: Record<string, unknown>, projection: number | undefined): TextEncoderConfig {
  const text = parseSection(textSchema, json, 'text_config')
  const isClip = text.model_type === 'clip_text_model'
  const end = text.eos_token_id ?? defaults.clip.text.eos_token_id
  return {
    kind: isClip ? 'clip' : 'siglip',
    vocabulary: text.vocab_size,
    width: text.hidden_size,
    depth: text.num_hidden_layers,
    heads: text.num_attention_heads,
    mlpWidth: text.intermediate_size,
    activation: activations[text.hidden_act],
    normEpsilon: text.layer_norm_eps,
    context: text.max_position_embeddings,
    embeddingWidth: (isClip ? projection : text.projection_size) ?? text.hidden_size,
    // The first published files say 2, which no text has: their end token is the last of the vocabulary.
    readAt: isClip ? (end === 2 ? 'largest' : end) : 'last',
  }
}

/** Throws a `RangeError` where two values of a config contradict each other. */
export function checkClipConfig({ vision, text, embeddingWidth }: ClipConfig): void {
  const rules: [boolean, string][] = [
    [vision.width % vision.heads === 0, `vision width ${vision.width} is not a multiple of its ${vision.heads} heads`],
    [text.width % text.heads === 0, `text width ${text.width} is not a multiple of its ${text.heads} heads`],
    [countPatches(vision) > 0, `patch ${vision.patch} is larger than image side ${vision.imageSide}`],
    [
      vision.classToken || embeddingWidth === vision.width,
      `texts become ${embeddingWidth} numbers and pictures ${vision.width}, expected as many`,
    ],
    [
      typeof text.readAt === 'string' || text.readAt < text.vocabulary,
      `end token ${text.readAt} is outside the vocabulary of ${text.vocabulary}`,
    ],
  ]
  const broken = rules.filter(([holds]) => !holds).map(([, message]) => message)
  if (broken.length > 0) throw new RangeError(`Cannot use the model config: ${broken.join('; ')}`)
}
