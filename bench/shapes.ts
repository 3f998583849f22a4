/** The shapes of published models, for benches on random weights. */

import { countVisualTokens, type LlavaConfig } from '../src/model/config.ts'

type Changes = {
  language?: Partial<LlavaConfig['language']>
  vision?: Partial<LlavaConfig['vision']>
  imageToken?: number
}

/** llava-hf/llava-1.5-7b-hf: CLIP ViT-L/14-336, Vicuna 7B. */
export function llava7B({ language, vision, imageToken = 32_000 }: Changes = {}): LlavaConfig {
  const config: LlavaConfig = {
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
      ...vision,
    },
    language: {
      kind: 'llama',
      vocabulary: 32_064,
      width: 4096,
      depth: 32,
      heads: 32,
      keyValueHeads: 32,
      headSize: 128,
      mlpWidth: 11_008,
      normEpsilon: 1e-5,
      ropeTheta: 10_000,
      context: 4096,
      tiedHead: false,
      attentionBias: false,
      bosToken: 1,
      eosTokens: [2],
      padToken: 32_001,
      ...language,
    },
    projector: { layers: 2, activation: 'gelu', bias: true },
    featureLayer: -2,
    featureSelect: 'patch',
    imageToken,
    visualTokens: 0,
  }
  return { ...config, visualTokens: countVisualTokens(config) }
}

/** llava-hf/llava-onevision-qwen2-0.5b-ov-hf: SigLIP so400m-384 without its last block, Qwen2 0.5B. One view per picture, as where there are several. */
export function oneVision05B({ language, vision }: Changes = {}): LlavaConfig {
  const config: LlavaConfig = {
    vision: {
      kind: 'siglip',
      imageSide: 384,
      patch: 14,
      width: 1152,
      depth: 26,
      heads: 16,
      mlpWidth: 4304,
      activation: 'gelu_tanh',
      normEpsilon: 1e-6,
      classToken: false,
      preNorm: false,
      patchBias: true,
      ...vision,
    },
    language: {
      kind: 'qwen2',
      vocabulary: 152_000,
      width: 896,
      depth: 24,
      heads: 14,
      keyValueHeads: 2,
      headSize: 64,
      mlpWidth: 4864,
      normEpsilon: 1e-6,
      ropeTheta: 1_000_000,
      context: 32_768,
      tiedHead: true,
      attentionBias: true,
      eosTokens: [151_645],
      ...language,
    },
    projector: { layers: 2, activation: 'gelu', bias: true },
    featureLayer: -1,
    featureSelect: 'full',
    imageToken: 151_646,
    visualTokens: 0,
  }
  return { ...config, visualTokens: countVisualTokens(config) }
}
