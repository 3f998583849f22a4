/** The keys of a Hugging Face `config.json` that change what a LLaVA computes, their defaults, and how a wrong one is reported. */

import { z } from 'zod'
import { show, wrongFields } from '../wrong-fields.ts'

/**
 * Keys that published checkpoints omit because transformers writes only what differs from the defaults of the
 * config class: llava-1.5 omits LlamaConfig's 7B shape, BakLLaVA MistralConfig's, llava-interleave Qwen2Config's
 * 7B shape, and all of them the activations. Any other key must be in the file.
 */
const omittedKeys = {
  llama: {
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    hidden_act: 'silu',
    rope_theta: 10000,
    bos_token_id: 1,
    eos_token_id: 2,
  },
  mistral: {
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    hidden_act: 'silu',
    rope_theta: 10000,
    sliding_window: 4096,
    bos_token_id: 1,
    eos_token_id: 2,
  },
  qwen2: {
    hidden_size: 4096,
    intermediate_size: 22016,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    max_position_embeddings: 32768,
    rms_norm_eps: 1e-6,
    hidden_act: 'silu',
    rope_theta: 10000,
  },
  clip_vision_model: { hidden_act: 'quick_gelu', layer_norm_eps: 1e-5, num_channels: 3 },
  siglip_vision_model: { hidden_act: 'gelu_pytorch_tanh', layer_norm_eps: 1e-6, num_channels: 3 },
} as const

export const activations = { quick_gelu: 'quick_gelu', gelu: 'gelu', gelu_pytorch_tanh: 'gelu_tanh' } as const

// The upper bounds are far beyond any model; they keep a hostile file from asking for billions of blocks.
const width = z.int().min(1).max(1_048_576)
const count = z.int().min(1).max(4096)
const token = z.int().min(0)
const optionalToken = z.int().min(-1).nullish() // -1 stands for "none" in old LLaMA files
const epsilon = z.number().min(0).max(1)
const theta = z.number().min(1)
const off = (what: string) =>
  z
    .unknown()
    .refine((value) => !value, `no ${what}`)
    .optional()
const plainRope = z.looseObject({ rope_type: z.literal('default').optional(), type: z.literal('default').optional() })

export const languageSchema = z.object({
  model_type: z.enum(['llama', 'mistral', 'qwen2']),
  vocab_size: z.int().min(1).max(16_777_216),
  hidden_size: width,
  intermediate_size: width,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_key_value_heads: count.nullish(),
  head_dim: count.nullish(),
  hidden_act: z.literal('silu'),
  rms_norm_eps: epsilon,
  rope_theta: theta,
  rope_scaling: z
    .unknown()
    .refine((value) => plainRope.nullish().safeParse(value).success, 'null (plain rotary positions)')
    .optional(),
  rope_parameters: plainRope.extend({ rope_theta: theta }).nullish(), // where transformers 5 keeps rope_theta
  max_position_embeddings: z.int().min(1).max(16_777_216),
  sliding_window: z.int().min(1).nullish(),
  use_sliding_window: off('sliding window'),
  layer_types: z.array(z.literal('full_attention')).nullish(),
  attention_bias: z.boolean().nullish(),
  mlp_bias: off('MLP bias'),
  tie_word_embeddings: z.boolean().nullish(),
  bos_token_id: optionalToken,
  eos_token_id: z.union([token, z.array(token).min(1).max(64)]),
  pad_token_id: optionalToken,
})

export const visionSchema = z.object({
  model_type: z.enum(['clip_vision_model', 'siglip_vision_model']),
  image_size: z.int().min(1).max(16_384),
  patch_size: z.int().min(1).max(16_384),
  hidden_size: width,
  intermediate_size: width,
  num_hidden_layers: count,
  num_attention_heads: count,
  num_channels: z.literal(3),
  hidden_act: z.enum(['quick_gelu', 'gelu', 'gelu_pytorch_tanh']),
  layer_norm_eps: epsilon,
})

const side = z.int().min(1).max(16_384)

export const llavaSchema = z.object({
  image_token_index: token.optional(),
  image_token_id: token.optional(), // newer alias
  projector_hidden_act: z.literal('gelu'),
  projector_layers: z.union([z.literal(1), z.literal(2)]).optional(), // our key, see toHuggingFaceConfig
  multimodal_projector_bias: z.boolean().optional(),
  vision_feature_layer: z.int(),
  vision_feature_select_strategy: z.enum(['default', 'full']),
  tie_word_embeddings: z.boolean().nullish(),
  pad_token_id: optionalToken,
  quantization_config: off('quantization of stored weights'),
})

/** What LlavaNext and LlavaOnevision add: resolutions as height and width, and how many tiles' worth of tokens to keep. */
export const tilesSchema = z.object({
  image_grid_pinpoints: z
    .array(z.tuple([side, side]))
    .min(1)
    .max(1024),
  vision_aspect_ratio: z
    .string()
    .regex(/^anyres_max_[1-9]\d{0,3}$/, { error: '"anyres_max_" and a number' })
    .optional(),
})

export const reading = 'Cannot read the model config'

/** The section with the keys it may omit filled in; an unknown kind is refused here, before its keys seem to be missing. */
export function withOmittedKeys(json: unknown, section: 'text_config' | 'vision_config'): Record<string, unknown> {
  const given = asRecord(json, section)
  const kinds = (section === 'text_config' ? languageSchema : visionSchema).shape.model_type.options
  const kind = kinds.find((known) => known === given.model_type)
  if (kind === undefined) {
    const name = `${section}.model_type`
    throw new Error(`${reading}: ${name} is ${show(given.model_type)}, expected ${kinds.map(show).join(' or ')}`)
  }
  return { ...omittedKeys[kind], ...given }
}

export function asRecord(json: unknown, name: string): Record<string, unknown> {
  if (json === undefined) throw new Error(`${reading}: ${name} is missing, expected an object`)
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new TypeError(`${reading}: ${name} is ${show(json)}, expected an object`)
  }
  return json as Record<string, unknown>
}

export function parseSection<Schema extends z.ZodType>(
  schema: Schema,
  json: Record<string, unknown>,
  section: string,
): z.infer<Schema> {
  const result = schema.safeParse(json)
  if (result.success) return result.data
  const problems = wrongFields(result.error, { value: json, section })
  const message = `${reading}: ${problems.map((problem) => problem.text).join('; ')}`
  if (problems.some((problem) => problem.kind === 'missing')) throw new Error(message)
  throw problems.some((problem) => problem.kind === 'type') ? new TypeError(message) : new RangeError(message)
}
