import { describe, expect, test } from 'vitest'
import { parseClipConfig } from './clip-config.ts'

// The keys of openai/clip-vit-large-patch14 that matter, with the end token that its first files had.
const large = {
  model_type: 'clip',
  projection_dim: 768,
  text_config: {
    hidden_size: 768,
    intermediate_size: 3072,
    num_attention_heads: 12,
    num_hidden_layers: 12,
    eos_token_id: 2,
  },
  text_config_dict: null,
  vision_config: {
    hidden_size: 1024,
    intermediate_size: 4096,
    num_attention_heads: 16,
    num_hidden_layers: 24,
    patch_size: 14,
  },
  vision_config_dict: null,
}

describe('parseClipConfig', () => {
  test('fills in what transformers leaves out', () => {
    const config = parseClipConfig(large)
    expect(config).toMatchObject({ kind: 'clip', embeddingWidth: 768, bias: false })
    expect(config.text).toMatchObject({ vocabulary: 49408, context: 77, activation: 'quick_gelu', readAt: 'largest' })
    expect(config.vision).toMatchObject({ imageSide: 224, patch: 14, width: 1024, classToken: true, preNorm: true })
    expect(parseClipConfig({ model_type: 'clip' }).text.readAt).toBe(49407)
  })

  test('SigLIP says nothing but what it is', () => {
    const config = parseClipConfig({
      model_type: 'siglip',
      text_config: { model_type: 'siglip_text_model' },
      vision_config: { model_type: 'siglip_vision_model' },
    })
    expect(config).toMatchObject({ kind: 'siglip', embeddingWidth: 768, bias: true })
    expect(config.text).toMatchObject({ vocabulary: 32000, context: 64, activation: 'gelu_tanh', readAt: 'last' })
    expect(config.vision).toMatchObject({ patch: 16, classToken: false, patchBias: true, normEpsilon: 1e-6 })
  })

  test('a *_config_dict of 2022 wins over the section as a whole', () => {
    const { text } = parseClipConfig({
      ...large,
      text_config: { ...large.text_config, hidden_act: 'quick_gelu' },
      text_config_dict: { hidden_act: 'gelu', hidden_size: 1024, num_attention_heads: 16 },
    })
    expect(text).toMatchObject({ activation: 'gelu', width: 1024, mlpWidth: 2048, readAt: 49407 })
  })

  test.each<[string, unknown, RegExp]>([
    [
      'another model',
      { model_type: 'llava' },
      /model_type is "llava", expected "clip" \(CLIPModel\) or "siglip" \(SiglipModel\)/,
    ],
    [
      'the encoder of another kind',
      { ...large, vision_config: { model_type: 'siglip_vision_model' } },
      /expected "clip_vision_model"/,
    ],
    [
      'a width that its heads do not divide',
      { ...large, text_config: { num_attention_heads: 5 } },
      /text width 512 is not a multiple of its 5 heads/,
    ],
    [
      'an end token outside the vocabulary',
      { ...large, text_config: { eos_token_id: 50000 } },
      /end token 50000 is outside the vocabulary of 49408/,
    ],
    [
      'SigLIP without its pooling head',
      { model_type: 'siglip', vision_config: { vision_use_head: false } },
      /expected a vision encoder with its pooling head/,
    ],
    [
      'texts and pictures of unequal size',
      { model_type: 'siglip', text_config: { projection_size: 512 } },
      /texts become 512 numbers and pictures 768/,
    ],
    [
      'a word for a number',
      { ...large, text_config: { hidden_size: 'many' } },
      /text_config.hidden_size is "many", expected a number/,
    ],
  ])('refuses %s', (_, json, reason) => {
    expect(() => parseClipConfig(json)).toThrow(reason)
  })
})
