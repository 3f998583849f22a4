import { describe, expect, test } from 'vitest'
import { checkLlavaConfig, countUsedVisionBlocks, parseLlavaConfig, toHuggingFaceConfig } from './config.ts'
import { bakllava, interleave, llava15 } from './published-configs.fixture.ts'

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
