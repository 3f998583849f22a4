import { expect, test } from 'vitest'
import { errorOf, interleave, type Json, llava15 } from './published-configs.fixture.ts'

test('names the model type found and those supported', () => {
  expect(errorOf({ model_type: 'qwen2_vl' }).message).toBe(
    'Cannot read the model config: model_type is "qwen2_vl", expected "llava" or "llava_next" or "llava_onevision"',
  )
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
