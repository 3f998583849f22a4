/** Two complete models of a few thousand parameters for tests: CLIP with LLaMA, SigLIP with Qwen2. */

import type { LlavaConfig } from '../model/config.ts'

export const tinyClip: LlavaConfig = {
  vision: {
    kind: 'clip',
    imageSide: 8,
    patch: 4,
    width: 8,
    depth: 3,
    heads: 2,
    mlpWidth: 16,
    activation: 'quick_gelu',
    normEpsilon: 1e-5,
    classToken: true,
    preNorm: true,
    patchBias: false,
  },
  language: {
    kind: 'llama',
    vocabulary: 20,
    width: 12,
    depth: 2,
    heads: 3,
    keyValueHeads: 3,
    headSize: 4,
    mlpWidth: 24,
    normEpsilon: 1e-5,
    ropeTheta: 10000,
    context: 64,
    tiedHead: false,
    attentionBias: false,
    bosToken: 1,
    eosTokens: [2],
    padToken: 0,
  },
  projector: { layers: 2, activation: 'gelu', bias: true },
  featureLayer: -2,
  featureSelect: 'patch',
  imageToken: 19,
  visualTokens: 4,
}

export const tinySiglip: LlavaConfig = {
  ...tinyClip,
  vision: {
    ...tinyClip.vision,
    kind: 'siglip',
    imageSide: 9, // the last pixel is not looked at, as in SigLIP-so400m
    activation: 'gelu_tanh',
    classToken: false,
    preNorm: false,
    patchBias: true,
  },
  language: { ...tinyClip.language, kind: 'qwen2', heads: 4, keyValueHeads: 2, tiedHead: true, attentionBias: true },
  featureLayer: -1,
  featureSelect: 'full',
}
