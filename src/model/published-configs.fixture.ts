/** Configs as published models write them, for the tests of reading configs. */

import { parseLlavaConfig } from './config.ts'

export type Json = Record<string, unknown>

/** The keys of llava-hf/llava-1.5-7b-hf, which leaves the 7B shape to the defaults of LlamaConfig; `change` adds or replaces some. */
export function llava15(change: { top?: Json; text?: Json; vision?: Json } = {}): Json {
  return {
    architectures: ['LlavaForConditionalGeneration'],
    ignore_index: -100,
    image_token_index: 32000,
    model_type: 'llava',
    pad_token_id: 32001,
    projector_hidden_act: 'gelu',
    text_config: {
      model_type: 'llama',
      max_position_embeddings: 4096,
      rms_norm_eps: 1e-5,
      torch_dtype: 'float16',
      vocab_size: 32064,
      ...change.text,
    },
    vision_config: {
      hidden_size: 1024,
      image_size: 336,
      intermediate_size: 4096,
      model_type: 'clip_vision_model',
      num_attention_heads: 16,
      num_hidden_layers: 24,
      patch_size: 14,
      projection_dim: 768,
      vocab_size: 32000,
      ...change.vision,
    },
    vision_feature_layer: -2,
    vision_feature_select_strategy: 'default',
    ...change.top,
  }
}

/** llava-interleave: SigLIP-so400m with Qwen1.5-0.5B. */
export const interleave = {
  model_type: 'llava',
  image_token_index: 151646,
  projector_hidden_act: 'gelu',
  text_config: {
    model_type: 'qwen2',
    bos_token_id: 151643,
    eos_token_id: 151645,
    hidden_size: 1024,
    intermediate_size: 2816,
    max_position_embeddings: 32768,
    num_attention_heads: 16,
    num_hidden_layers: 24,
    num_key_value_heads: 16,
    rope_theta: 1000000.0,
    sliding_window: 32768,
    tie_word_embeddings: true,
    vocab_size: 152000,
  },
  vision_config: {
    model_type: 'siglip_vision_model',
    hidden_size: 1152,
    image_size: 384,
    intermediate_size: 4304,
    num_attention_heads: 16,
    num_hidden_layers: 26,
    patch_size: 14,
    vision_use_head: false,
  },
  vision_feature_layer: -1,
  vision_feature_select_strategy: 'full',
}

/** BakLLaVA: CLIP with a Mistral of a sliding window. */
export const bakllava = llava15({
  text: { model_type: 'mistral', max_position_embeddings: 32768, num_key_value_heads: 8, sliding_window: 4096 },
})

/** What reading a config throws. */
export function errorOf(json: unknown): Error {
  try {
    parseLlavaConfig(json)
  } catch (error) {
    return error as Error
  }
  throw new Error('expected an error')
}
