/**
 * What a LLaVA model is made of, read from and written to a Hugging Face `config.json`: LlavaForConditionalGeneration,
 * LlavaNextForConditionalGeneration and LlavaOnevisionForConditionalGeneration.
 */

import type { z } from 'zod'
import {
  activations,
  asRecord,
  languageSchema,
  llavaSchema,
  parseSection,
  reading,
  visionSchema,
  withOmittedKeys,
} from './config-schema.ts'
import {
  architectures,
  familyOf,
  omittedTopKeys,
  readFamily,
  readTiles,
  type TilesConfig,
  tileRules,
  writeTiles,
} from './tiles-config.ts'

export type { TilesConfig } from './tiles-config.ts'

export type VisionEncoderConfig = {
  kind: 'clip' | 'siglip'
  imageSide: number // S, pixels
  patch: number // pixels
  width: number // C
  depth: number // blocks
  heads: number
  mlpWidth: number
  activation: 'quick_gelu' | 'gelu' | 'gelu_tanh'
  normEpsilon: number
  classToken: boolean
  preNorm: boolean
  patchBias: boolean
}

export type LanguageModelConfig = {
  kind: 'llama' | 'mistral' | 'qwen2'
  vocabulary: number // V
  width: number // D
  depth: number // blocks
  heads: number
  keyValueHeads: number
  headSize: number // H
  mlpWidth: number
  normEpsilon: number
  ropeTheta: number
  context: number // tokens, text and picture together
  tiedHead: boolean
  attentionBias: boolean // on query, key and value, never on output
  bosToken?: number
  eosTokens: number[]
  padToken?: number
}

export type ProjectorConfig = { layers: 1 | 2; activation: 'gelu'; bias: boolean }

export type LlavaConfig = {
  vision: VisionEncoderConfig
  language: LanguageModelConfig
  projector: ProjectorConfig
  /** Index into [embeddings, output of block 1, …, output of the last block]; negative counts from the end, no norm is applied. */
  featureLayer: number
  featureSelect: 'patch' | 'full'
  imageToken: number
  visualTokens: number // P, per view, derived by `countVisualTokens`
  tiles?: TilesConfig // absent where a picture is one view
}

/**
 * Reads an untrusted, already parsed `config.json`. Weight-changing options that this project does not support are
 * refused, options without effect on the computation (dropout, dtype, …) are ignored.
 *
 * Errors: `TypeError` for a value of the wrong type, `RangeError` for one out of range or inconsistent with another,
 * `Error` for a missing key or an unsupported model.
 */
export function parseLlavaConfig(json: unknown): LlavaConfig {
  const root = asRecord(json, 'the file')
  const family = readFamily(root)
  const top = parseSection(llavaSchema, { ...omittedTopKeys[family], ...root }, '')
  const vision = readVision(root.vision_config)
  const language = readLanguage(root.text_config, top)
  const imageToken = top.image_token_index ?? top.image_token_id
  if (imageToken === undefined) throw new Error(`${reading}: image_token_index is missing, expected a token id`)
  const config: LlavaConfig = {
    vision,
    language,
    projector: {
      layers: top.projector_layers ?? 2,
      activation: top.projector_hidden_act,
      bias: top.multimodal_projector_bias ?? true,
    },
    featureLayer: top.vision_feature_layer,
    featureSelect: top.vision_feature_select_strategy === 'default' ? 'patch' : 'full',
    imageToken,
    visualTokens: 0,
    ...(family === 'llava' ? {} : { tiles: readTiles(family, root) }),
  }
  config.visualTokens = countVisualTokens(config)
  checkLlavaConfig(config)
  return config
}

/**
 * The literal `config.json` of the model's class in transformers, every value spelled out. The one key of ours is
 * `projector_layers`, written only for the linear projector of the first LLaVA, which transformers cannot express.
 */
export function toHuggingFaceConfig(config: LlavaConfig): Record<string, unknown> {
  const { vision, language, projector, tiles } = config
  const family = familyOf(tiles)
  if (config.imageToken < 0) {
    throw new RangeError('Cannot write the model config: the vocabulary has no image token, which this layout needs')
  }
  return {
    architectures: [architectures[family]],
    model_type: family,
    ignore_index: -100,
    image_token_index: config.imageToken,
    image_seq_length: config.visualTokens,
    ...writeTiles(tiles),
    projector_hidden_act: projector.activation,
    ...(projector.layers === 1 ? { projector_layers: 1 } : {}),
    multimodal_projector_bias: projector.bias,
    vision_feature_layer: config.featureLayer,
    vision_feature_select_strategy: config.featureSelect === 'patch' ? 'default' : 'full',
    tie_word_embeddings: language.tiedHead,
    pad_token_id: language.padToken ?? null,
    text_config: {
      architectures: [
        { llama: 'LlamaForCausalLM', mistral: 'MistralForCausalLM', qwen2: 'Qwen2ForCausalLM' }[language.kind],
      ],
      model_type: language.kind,
      vocab_size: language.vocabulary,
      hidden_size: language.width,
      intermediate_size: language.mlpWidth,
      num_hidden_layers: language.depth,
      num_attention_heads: language.heads,
      num_key_value_heads: language.keyValueHeads,
      head_dim: language.headSize,
      hidden_act: 'silu',
      rms_norm_eps: language.normEpsilon,
      rope_theta: language.ropeTheta,
      rope_scaling: null,
      max_position_embeddings: language.context,
      ...(language.kind === 'llama' ? { attention_bias: false, mlp_bias: false } : { sliding_window: null }),
      ...(language.kind === 'qwen2' ? { use_sliding_window: false } : {}),
      tie_word_embeddings: language.tiedHead,
      bos_token_id: language.bosToken ?? null,
      eos_token_id: language.eosTokens.length === 1 ? language.eosTokens[0] : language.eosTokens,
      pad_token_id: language.padToken ?? null,
    },
    vision_config: {
      model_type: ({ clip: 'clip_vision_model', siglip: 'siglip_vision_model' } as const)[vision.kind],
      image_size: vision.imageSide,
      patch_size: vision.patch,
      num_channels: 3,
      hidden_size: vision.width,
      intermediate_size: vision.mlpWidth,
      num_hidden_layers: vision.depth,
      num_attention_heads: vision.heads,
      hidden_act: vision.activation === 'gelu_tanh' ? 'gelu_pytorch_tanh' : vision.activation,
      layer_norm_eps: vision.normEpsilon,
      ...(vision.kind === 'siglip' ? { vision_use_head: false } : {}),
    },
  }
}

/** Patches of one view. SigLIP-so400m has 384 px and patches of 14: 27 × 27, the last 6 pixels are not looked at. */
export function countPatches(vision: VisionEncoderConfig): number {
  return patchesPerSide(vision) ** 2
}

export function patchesPerSide({ imageSide, patch }: VisionEncoderConfig): number {
  return Math.floor(imageSide / patch)
}

/** Visual tokens of one view: all that a picture without tiles adds to the language model's input. */
export function countVisualTokens({ vision, featureSelect }: Pick<LlavaConfig, 'vision' | 'featureSelect'>): number {
  return countPatches(vision) + (vision.classToken && featureSelect === 'full' ? 1 : 0)
}

/** How many blocks of the vision encoder run before the features are taken; later blocks have no effect. */
export function countUsedVisionBlocks({ vision, featureLayer }: Pick<LlavaConfig, 'vision' | 'featureLayer'>): number {
  return featureLayer < 0 ? vision.depth + 1 + featureLayer : featureLayer
}

/** Throws a `RangeError` where two values of a config contradict each other. */
export function checkLlavaConfig(config: LlavaConfig): void {
  const { vision, language, featureLayer } = config
  const rules: [boolean, string][] = [
    [vision.width % vision.heads === 0, `vision width ${vision.width} is not a multiple of its ${vision.heads} heads`],
    [vision.patch <= vision.imageSide, `patch ${vision.patch} is larger than image side ${vision.imageSide}`],
    [
      vision.kind === 'siglip' || vision.imageSide % vision.patch === 0,
      `image side ${vision.imageSide} is not a multiple of patch ${vision.patch}`,
    ],
    [
      language.heads % language.keyValueHeads === 0,
      `${language.heads} attention heads are not a multiple of ${language.keyValueHeads} key-value heads`,
    ],
    [
      Number.isInteger(language.headSize) && language.headSize % 2 === 0,
      `head size ${language.headSize} (width ${language.width}, ${language.heads} heads) is not an even integer, as rotary positions need`,
    ],
    [
      featureLayer >= -(vision.depth + 1) && featureLayer <= vision.depth,
      `vision feature layer ${featureLayer} does not exist in an encoder of ${vision.depth} blocks`,
    ],
    [
      config.featureSelect === 'full' || vision.classToken,
      `feature selection "default" drops a class token, which ${vision.kind} does not have, expected "full"`,
    ],
    [
      config.visualTokens === countVisualTokens(config),
      `${config.visualTokens} visual tokens per view, expected ${countVisualTokens(config)}`,
    ],
    ...tileRules(config.tiles, { side: vision.imageSide, tokens: config.visualTokens, patches: countPatches(vision) }),
  ]
  const tokens = {
    image: [config.imageToken],
    bos: [language.bosToken],
    eos: language.eosTokens,
    pad: [language.padToken],
  }
  for (const [name, ids] of Object.entries(tokens)) {
    for (const id of ids) {
      rules.push([
        id === undefined || id < language.vocabulary,
        `${name} token ${id} is outside the vocabulary of ${language.vocabulary}`,
      ])
    }
  }
  const broken = rules.filter(([holds]) => !holds).map(([, message]) => message)
  if (broken.length > 0) throw new RangeError(`Cannot use the model config: ${broken.join('; ')}`)
}

/** A `vision_config` section, or the whole file of a vision encoder alone. */
export function readVision(json: unknown): VisionEncoderConfig {
  const vision = parseSection(visionSchema, withOmittedKeys(json, 'vision_config'), 'vision_config')
  const clip = vision.model_type === 'clip_vision_model'
  return {
    kind: clip ? 'clip' : 'siglip',
    imageSide: vision.image_size,
    patch: vision.patch_size,
    width: vision.hidden_size,
    depth: vision.num_hidden_layers,
    heads: vision.num_attention_heads,
    mlpWidth: vision.intermediate_size,
    activation: activations[vision.hidden_act],
    normEpsilon: vision.layer_norm_eps,
    classToken: clip,
    preNorm: clip,
    patchBias: !clip,
  }
}

/** A `text_config` section, or the whole file of a language model alone; `top` is what the file around the section says. */
export function readLanguage(
  json: unknown,
  top: Pick<z.infer<typeof llavaSchema>, 'pad_token_id' | 'tie_word_embeddings'> = {},
): LanguageModelConfig {
  const language = parseSection(languageSchema, withOmittedKeys(json, 'text_config'), 'text_config')
  if (language.attention_bias && language.model_type !== 'qwen2') {
    throw new Error(`${reading}: text_config.attention_bias is true, expected false for ${language.model_type}`)
  }
  const window = language.model_type === 'mistral' ? language.sliding_window : undefined
  const bosToken = presentToken(language.bos_token_id)
  const padToken = presentToken(top.pad_token_id) ?? presentToken(language.pad_token_id)
  return {
    kind: language.model_type,
    vocabulary: language.vocab_size,
    width: language.hidden_size,
    depth: language.num_hidden_layers,
    heads: language.num_attention_heads,
    keyValueHeads: language.num_key_value_heads ?? language.num_attention_heads,
    headSize: language.head_dim ?? language.hidden_size / language.num_attention_heads,
    mlpWidth: language.intermediate_size,
    normEpsilon: language.rms_norm_eps,
    ropeTheta: language.rope_parameters?.rope_theta ?? language.rope_theta,
    // Within its window, sliding attention is full attention: stay within it.
    context: Math.min(language.max_position_embeddings, window ?? Number.POSITIVE_INFINITY),
    tiedHead: language.tie_word_embeddings === true || top.tie_word_embeddings === true,
    attentionBias: language.model_type === 'qwen2',
    ...(bosToken === undefined ? {} : { bosToken }),
    eosTokens: [language.eos_token_id].flat(),
    ...(padToken === undefined ? {} : { padToken }),
  }
}

function presentToken(id: number | null | undefined): number | undefined {
  return id === null || id === undefined || id < 0 ? undefined : id
}
