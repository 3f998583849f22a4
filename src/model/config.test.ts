import { describe, expect, test } from 'vitest'
import { checkLlavaConfig, countUsedVisionBlocks, parseLlavaConfig, toHuggingFaceConfig } from './config.ts'

type Json = Record<string, unknown>

// The keys of llava-hf/llava-1.5-7b-hf, which leaves the 7B shape to the defaults of LlamaConfig.
function llava15(change: { top?: Json; text?: Json; vision?: Json } = {}): Json {
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

// llava-interleave: SigLIP-so400m with Qwen1.5-0.5B.
const interleave = {
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

const bakllava = llava15({
  text: { model_type: 'mistral', max_position_embeddings: 32768, num_key_value_heads: 8, sliding_window: 4096 },
})

function errorOf(json: unknown): Error {
  try {
    parseLlavaConfig(json)
  } catch (error) {
    return error as Error
  }
  throw new Error('expected an error')
}

describe('parseLlavaConfig', () => {
  test('reads llava-1.5-7b with the defaults it relies on', () => {
    expect(parseLlavaConfig(llava15())).toEqual({
      vision: {
        kind: 'clip',
        imageSide: 336,
        patch: 14,
        width: 1024,
        depth: 24,
        heads: 16,
        mlpWidth: 4096,
        activation: 'quick_gelu',
        normEpsilon: 1e-5,
        classToken: true,
        preNorm: true,
        patchBias: false,
      },
      language: {
        kind: 'llama',
        vocabulary: 32064,
        width: 4096,
        depth: 32,
        heads: 32,
        keyValueHeads: 32,
        headSize: 128,
        mlpWidth: 11008,
        normEpsilon: 1e-5,
        ropeTheta: 10000,
        context: 4096,
        tiedHead: false,
        attentionBias: false,
        bosToken: 1,
        eosTokens: [2],
        padToken: 32001,
      },
      projector: { layers: 2, activation: 'gelu', bias: true },
      featureLayer: -2,
      featureSelect: 'patch',
      imageToken: 32000,
      visualTokens: 576,
    })
  })

  test('reads SigLIP with Qwen2: no class token, 27 × 27 patches of 384 pixels, tied head, attention biases', () => {
    const { vision, language, visualTokens } = parseLlavaConfig(interleave)
    expect(vision).toMatchObject({ kind: 'siglip', classToken: false, patchBias: true, activation: 'gelu_tanh' })
    expect(vision.normEpsilon).toBe(1e-6)
    expect(visualTokens).toBe(729)
    expect(language).toMatchObject({ tiedHead: true, attentionBias: true, eosTokens: [151645], normEpsilon: 1e-6 })
    expect(language.padToken).toBeUndefined()
  })

  test('keeps a sliding-window model within the window, where both attentions agree', () => {
    expect(parseLlavaConfig(bakllava).language).toMatchObject({ keyValueHeads: 8, mlpWidth: 14336, context: 4096 })
    const unlimited = llava15({
      text: { model_type: 'mistral', max_position_embeddings: 32768, sliding_window: null, rope_theta: 1e6 },
    })
    expect(parseLlavaConfig(unlimited).language).toMatchObject({ context: 32768, ropeTheta: 1e6 })
  })

  test('accepts the spellings of newer transformers', () => {
    const { image_token_index: _, ...top } = llava15({
      text: { rope_parameters: { rope_type: 'default', rope_theta: 500000 }, eos_token_id: [2, 7] },
      top: { image_token_id: 31999 },
    })
    const config = parseLlavaConfig(top)
    expect(config.imageToken).toBe(31999)
    expect(config.language.ropeTheta).toBe(500000)
    expect(config.language.eosTokens).toEqual([2, 7])
  })

  test('counts the class token among the visual tokens when all features are kept', () => {
    expect(parseLlavaConfig(llava15({ top: { vision_feature_select_strategy: 'full' } })).visualTokens).toBe(577)
  })

  test('names the model type found and those supported', () => {
    expect(errorOf({ model_type: 'qwen2_vl' }).message).toBe(
      'Cannot read the model config: model_type is "qwen2_vl", expected "llava" or "llava_next" or "llava_onevision"',
    )
  })

  test('reads LLaVA-NeXT as published: layer and selection left out, heights before widths', () => {
    const {
      vision_feature_layer: _,
      vision_feature_select_strategy: __,
      ...next
    } = llava15({
      top: {
        model_type: 'llava_next',
        image_grid_pinpoints: [
          [336, 672],
          [1008, 336],
        ],
      },
    })
    const config = parseLlavaConfig(next)
    expect(config).toMatchObject({ featureLayer: -2, featureSelect: 'patch', visualTokens: 576 })
    expect(config.tiles).toEqual({
      resolutions: [
        { width: 672, height: 336 },
        { width: 336, height: 1008 },
      ],
      unpadding: 'rounded',
    })
    expect(toHuggingFaceConfig(config)).toMatchObject({
      architectures: ['LlavaNextForConditionalGeneration'],
      model_type: 'llava_next',
      image_grid_pinpoints: [
        [336, 672],
        [1008, 336],
      ],
    })
    expect(parseLlavaConfig(toHuggingFaceConfig(config))).toEqual(config)
  })

  test('reads LLaVA-OneVision: SigLIP, how many tiles are kept, last layer and all features when left out', () => {
    const { vision_feature_layer: _, vision_feature_select_strategy: __, ...rest } = interleave as Json
    const json = { ...rest, model_type: 'llava_onevision', image_grid_pinpoints: [[384, 768]] }
    const config = parseLlavaConfig(json)
    expect(config).toMatchObject({ featureLayer: -1, featureSelect: 'full', visualTokens: 729 })
    expect(config.tiles?.mostTiles).toBe(9)
    expect(parseLlavaConfig({ ...json, vision_aspect_ratio: 'anyres_max_4' }).tiles?.mostTiles).toBe(4)
    expect(parseLlavaConfig(toHuggingFaceConfig(config))).toEqual(config)
    expect(errorOf({ ...json, vision_aspect_ratio: 'pad' }).message).toContain(
      'vision_aspect_ratio is "pad", expected "anyres_max_" and a number',
    )
  })

  test('refuses tiles that the vision encoder cannot see, and a class token among them', () => {
    const next = (pinpoints: unknown, top: Json = {}) =>
      errorOf(llava15({ top: { model_type: 'llava_next', image_grid_pinpoints: pinpoints, ...top } })).message
    expect(next([[300, 672]])).toContain('resolution 672x300 is not made of tiles of side 336')
    expect(next([])).toContain('image_grid_pinpoints is [], expected at least 1')
    expect(next(undefined)).toContain('image_grid_pinpoints is missing')
    expect(next([[336, 672]], { vision_feature_select_strategy: 'full' })).toContain('no place among tiles')
  })

  test('names every missing key, also those that other config classes default', () => {
    const json = llava15()
    json.text_config = { model_type: 'llama' }
    const error = errorOf(json)
    expect(error.constructor).toBe(Error)
    for (const key of ['vocab_size', 'rms_norm_eps', 'max_position_embeddings']) {
      expect(error.message).toContain(`text_config.${key} is missing`)
    }
    const { vision_feature_layer: _, ...headless } = llava15()
    expect(errorOf(headless).message).toContain('vision_feature_layer is missing, expected a number')
    const { text_config: __, ...textless } = llava15()
    expect(errorOf(textless).message).toContain('text_config is missing, expected an object')
  })

  test.each<[string, Json, typeof Error, string]>([
    [
      'RoPE scaling',
      llava15({ text: { rope_scaling: { type: 'linear', factor: 2 } } }),
      RangeError,
      'rope_scaling is {"type',
    ],
    [
      'new RoPE scaling',
      llava15({ text: { rope_parameters: { rope_type: 'yarn', rope_theta: 1 } } }),
      RangeError,
      'yarn',
    ],
    [
      'several feature layers',
      llava15({ top: { vision_feature_layer: [-2, -5] } }),
      TypeError,
      'is [-2,-5], expected a number',
    ],
    [
      'another activation',
      llava15({ text: { hidden_act: 'gelu' } }),
      RangeError,
      'hidden_act is "gelu", expected "silu"',
    ],
    [
      'another projector',
      llava15({ top: { projector_hidden_act: 'relu' } }),
      RangeError,
      'projector_hidden_act is "relu"',
    ],
    ['llama with biases', llava15({ text: { attention_bias: true } }), Error, 'attention_bias is true'],
    ['MLP biases', llava15({ text: { mlp_bias: true } }), RangeError, 'mlp_bias is true'],
    [
      'quantized weights',
      llava15({ top: { quantization_config: { bits: 4 } } }),
      RangeError,
      'quantization_config is {"bits":4}',
    ],
    ['another language model', llava15({ text: { model_type: 'gemma' } }), Error, 'text_config.model_type is "gemma"'],
    ['another encoder', llava15({ vision: { model_type: 'pixtral' } }), Error, 'vision_config.model_type is "pixtral"'],
    [
      'a number as text',
      llava15({ text: { hidden_size: '4096' } }),
      TypeError,
      'hidden_size is "4096", expected a number',
    ],
    ['a fraction', llava15({ text: { hidden_size: 4096.5 } }), TypeError, 'hidden_size is 4096.5, expected an integer'],
    ['absurd depth', llava15({ text: { num_hidden_layers: 1e9 } }), RangeError, 'expected at most 4096'],
    ['negative size', llava15({ vision: { patch_size: -14 } }), RangeError, 'patch_size is -14, expected at least 1'],
    [
      'an image token outside',
      llava15({ top: { image_token_index: 32064 } }),
      RangeError,
      'image token 32064 is outside',
    ],
    ['an eos token outside', llava15({ text: { eos_token_id: [2, 99999] } }), RangeError, 'eos token 99999 is outside'],
    [
      'uneven vision heads',
      llava15({ vision: { num_attention_heads: 15 } }),
      RangeError,
      'not a multiple of its 15 heads',
    ],
    ['uneven key-value heads', llava15({ text: { num_key_value_heads: 5 } }), RangeError, '5 key-value heads'],
    ['odd head size', llava15({ text: { head_dim: 127 } }), RangeError, 'head size 127'],
    [
      'uneven patches',
      llava15({ vision: { patch_size: 13 } }),
      RangeError,
      'image side 336 is not a multiple of patch 13',
    ],
    [
      'a layer that does not exist',
      llava15({ top: { vision_feature_layer: -26 } }),
      RangeError,
      'layer -26 does not exist',
    ],
    [
      'SigLIP without its class token',
      { ...interleave, vision_feature_select_strategy: 'default' },
      RangeError,
      'siglip',
    ],
  ])('refuses %s', (_, json, type, message) => {
    const error = errorOf(json)
    expect(error.constructor).toBe(type)
    expect(error.message).toContain(message)
    expect(error.message).not.toMatch(/\.$/)
  })

  test.each([[null], [7], ['x'], [[]], [undefined]])('refuses %j instead of an object', (json) => {
    expect(errorOf(json).message).toContain('expected an object')
  })

  test('is not confused by prototype keys', () => {
    const json = JSON.parse('{"model_type":"llava","__proto__":{"text_config":{}}}')
    expect(errorOf(json).message).toContain('missing')
    expect(errorOf(llava15({ text: { model_type: 'constructor' } })).message).toContain('model_type is "constructor"')
  })
})

describe('toHuggingFaceConfig', () => {
  test.each([
    ['llava-1.5', llava15()],
    ['llava-interleave', interleave],
    ['BakLLaVA', bakllava],
    ['a linear projector without bias', llava15({ top: { projector_layers: 1, multimodal_projector_bias: false } })],
    [
      'no bos, three eos',
      llava15({ text: { bos_token_id: null, eos_token_id: [2, 3, 4] }, top: { pad_token_id: -1 } }),
    ],
    ['a head size of its own', llava15({ text: { head_dim: 64, num_key_value_heads: 4 } })],
  ])('round-trips %s', (_, json) => {
    const config = parseLlavaConfig(json)
    const written = JSON.parse(JSON.stringify(toHuggingFaceConfig(config)))
    expect(parseLlavaConfig(written)).toEqual(config)
  })

  test('adds our own key only for the linear projector', () => {
    expect(toHuggingFaceConfig(parseLlavaConfig(llava15()))).not.toHaveProperty('projector_layers')
    expect(toHuggingFaceConfig(parseLlavaConfig(llava15({ top: { projector_layers: 1 } })))).toHaveProperty(
      'projector_layers',
      1,
    )
  })
})

test('counts the blocks that matter', () => {
  const config = parseLlavaConfig(llava15())
  expect(countUsedVisionBlocks(config)).toBe(23)
  expect(countUsedVisionBlocks({ ...config, featureLayer: -1 })).toBe(24)
  expect(countUsedVisionBlocks({ ...config, featureLayer: 3 })).toBe(3)
})

test('a config built by hand is checked for its derived count', () => {
  expect(() => checkLlavaConfig({ ...parseLlavaConfig(llava15()), visualTokens: 577 })).toThrow(
    '577 visual tokens per view, expected 576',
  )
})
