import { describe, expect, test } from 'vitest'
import { parseLlavaConfig } from '../model/config.ts'
import {
  detectLayout,
  expectedTensors,
  isIgnored,
  layoutNames,
  optionalTensors,
  toCanonical,
  toForeign,
} from './layouts.ts'
import { tinyClip, tinySiglip } from './tiny-config.fixture.ts'

/** The config of llava-1.5-7b-hf, whose parameters are published. */
const llava15 = parseLlavaConfig({
  model_type: 'llava',
  image_token_index: 32000,
  pad_token_id: 32001,
  projector_hidden_act: 'gelu',
  vision_feature_layer: -2,
  vision_feature_select_strategy: 'default',
  text_config: { model_type: 'llama', max_position_embeddings: 4096, rms_norm_eps: 1e-5, vocab_size: 32000 + 64 },
  vision_config: {
    model_type: 'clip_vision_model',
    hidden_size: 1024,
    image_size: 336,
    intermediate_size: 4096,
    num_attention_heads: 16,
    num_hidden_layers: 24,
    patch_size: 14,
  },
})

function parameters(prefix: string): number {
  let sum = 0
  for (const [name, shape] of expectedTensors(llava15)) {
    if (name.startsWith(prefix)) sum += shape.reduce((a, b) => a * b, 1)
  }
  return sum
}

describe('expectedTensors', () => {
  test('counts the parameters of LLaVA-1.5-7B', () => {
    expect(parameters('visionEncoder.')).toBe(303_507_456)
    expect(parameters('visionEncoder.blocks.0.')).toBe(12_596_224)
    expect(parameters('projector.')).toBe(20_979_712)
    expect(parameters('languageModel.')).toBe(6_738_415_616 + 2 * 64 * 4096) // Vicuna-7B and 64 new vocabulary rows
  })

  test('follows grouped queries, attention biases, tied heads and SigLIP', () => {
    const shapes = expectedTensors(tinySiglip)
    const { width: D, heads, keyValueHeads, headSize: H } = tinySiglip.language
    expect(shapes.get('languageModel.blocks.1.attention.query.weight')).toEqual([heads * H, D])
    expect(shapes.get('languageModel.blocks.1.attention.key.weight')).toEqual([keyValueHeads * H, D])
    expect(shapes.get('languageModel.blocks.1.attention.value.bias')).toEqual([keyValueHeads * H])
    expect(shapes.has('languageModel.blocks.1.attention.output.bias')).toBe(false)
    expect(shapes.has('languageModel.head.weight')).toBe(false)
    expect(shapes.get('visionEncoder.patchEmbedding.bias')).toEqual([tinySiglip.vision.width])
    expect(shapes.get('visionEncoder.positionEmbedding')).toEqual([4, tinySiglip.vision.width])
    expect(shapes.has('visionEncoder.classEmbedding')).toBe(false)
    expect(shapes.has('visionEncoder.preNorm.weight')).toBe(false)
  })

  test('follows the projector: one or two layers, with or without bias', () => {
    const names = (layers: 1 | 2, bias: boolean) =>
      [...expectedTensors({ ...tinyClip, projector: { layers, bias, activation: 'gelu' } })]
        .filter(([name]) => name.startsWith('projector.'))
        .map(([name, shape]) => `${name} ${shape}`)
    expect(names(1, false)).toEqual(['projector.layers.0.weight 12,8'])
    expect(names(2, true)).toEqual([
      'projector.layers.0.weight 12,8',
      'projector.layers.0.bias 12',
      'projector.layers.1.weight 12,12',
      'projector.layers.1.bias 12',
    ])
  })
})

test('what follows the feature layer is optional', () => {
  const names = optionalTensors(llava15)
  expect(names.size).toBe(16 + 2)
  expect(names.has('visionEncoder.blocks.23.mlp.up.weight')).toBe(true)
  expect(names.has('visionEncoder.blocks.22.mlp.up.weight')).toBe(false)
  expect(names.has('visionEncoder.postNorm.bias')).toBe(true)
  expect(optionalTensors({ ...llava15, featureLayer: -1 }).size).toBe(2)
})

describe('renaming', () => {
  test.each(layoutNames)('every tensor has its own name in layout %s and comes back', (layout) => {
    for (const config of [tinyClip, tinySiglip]) {
      const ours = [...expectedTensors(config).keys()]
      const theirs = ours.map((name) => toForeign(name, layout))
      expect(new Set(theirs).size).toBe(ours.length)
      expect(theirs.map((name) => toCanonical(name, layout))).toEqual(ours)
      expect(detectLayout(theirs)).toBe(layout)
    }
  })

  // Names as they stand in published files, one of each kind.
  test.each([
    ['hugging-face', 'vision_tower.vision_model.embeddings.class_embedding', 'visionEncoder.classEmbedding'],
    ['hugging-face', 'vision_tower.vision_model.pre_layrnorm.bias', 'visionEncoder.preNorm.bias'],
    [
      'hugging-face',
      'vision_tower.vision_model.encoder.layers.23.self_attn.out_proj.bias',
      'visionEncoder.blocks.23.attention.output.bias',
    ],
    ['hugging-face', 'multi_modal_projector.linear_2.weight', 'projector.layers.1.weight'],
    [
      'hugging-face',
      'language_model.model.layers.10.post_attention_layernorm.weight',
      'languageModel.blocks.10.norm2.weight',
    ],
    ['hugging-face', 'language_model.lm_head.weight', 'languageModel.head.weight'],
    [
      'hugging-face-2025',
      'model.language_model.layers.0.self_attn.k_proj.weight',
      'languageModel.blocks.0.attention.key.weight',
    ],
    ['hugging-face-2025', 'model.vision_tower.vision_model.post_layernorm.weight', 'visionEncoder.postNorm.weight'],
    ['hugging-face-2025', 'lm_head.weight', 'languageModel.head.weight'],
    ['original', 'model.mm_projector.0.bias', 'projector.layers.0.bias'],
    ['original', 'model.mm_projector.weight', 'projector.layers.0.weight'],
    ['hugging-face', 'image_newline', 'projector.newline'],
    ['hugging-face-2025', 'model.image_newline', 'projector.newline'],
    ['original', 'model.image_newline', 'projector.newline'],
    ['original', 'model.embed_tokens.weight', 'languageModel.tokenEmbedding.weight'],
    [
      'original',
      'model.vision_tower.vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight',
      'visionEncoder.blocks.0.mlp.up.weight',
    ],
  ] as const)('%s: %s', (layout, theirs, ours) => {
    expect(toCanonical(theirs, layout)).toBe(ours)
  })

  test.each([
    'model.image_newlines',
    'language_model.model.layers.01.input_layernorm.weight',
    'language_model.model.layers.#.input_layernorm.weight',
    'language_model.model.layers.-1.input_layernorm.weight',
    'language_model.model.layers.0.self_attn.o_proj.bias',
    'constructor',
    '',
  ])('does not invent a meaning for %j', (name) => {
    for (const layout of layoutNames) expect(toCanonical(name, layout)).toBeUndefined()
  })

  test('ignores constants and the pooling head, nothing else', () => {
    expect(isIgnored('model.layers.3.self_attn.rotary_emb.inv_freq')).toBe(true)
    expect(isIgnored('vision_tower.vision_model.embeddings.position_ids')).toBe(true)
    expect(isIgnored('vision_tower.vision_model.head.attention.in_proj_weight')).toBe(true)
    expect(isIgnored('model.layers.3.self_attn.q_proj.weight')).toBe(false)
    expect(isIgnored('language_model.lm_head.weight')).toBe(false)
  })

  test('knows no layout of a text-only model of another family', () => {
    expect(detectLayout(['transformer.h.0.attn.weight'])).toBeUndefined()
    expect(() => toForeign('projector.layers.7.weight', 'hugging-face')).toThrow(RangeError)
  })
})
