/** Tiny LLaVA models with random weights, complete in every part: for tests that need a model and not its knowledge. */

import { expectedTensors } from '../src/checkpoint/layouts.ts'
import type { Weights } from '../src/checkpoint/load.ts'
import { saveCheckpoint } from '../src/checkpoint/save.ts'
import { trainBpe } from '../src/conversation/train-bpe.ts'
import { type Pixels, pixels } from '../src/image/pixels.ts'
import { countVisualTokens, type LlavaConfig } from '../src/model/config.ts'

type Changes = {
  vision?: Partial<LlavaConfig['vision']>
  language?: Partial<LlavaConfig['language']>
  projector?: Partial<LlavaConfig['projector']>
} & Partial<Pick<LlavaConfig, 'featureLayer' | 'featureSelect' | 'imageToken' | 'tiles'>>

const specialTokens = ['<unk>', '<s>', '</s>', '<image>', '<pad>']

const corpus = [
  'USER: \nWhat is in the picture? ASSISTANT: A red house and two trees.',
  'USER: \nHow many birds are there? ASSISTANT: There are three birds, left of the tree.',
  'USER: Is there a cat? ASSISTANT: No, there is no cat in the picture.',
]

/** CLIP with LLaMA unless changed; 4 visual tokens per picture, a vocabulary of 320. */
export function tinyConfig({ vision, language, projector, ...rest }: Changes = {}): LlavaConfig {
  const config: LlavaConfig = {
    vision: {
      kind: 'clip',
      imageSide: 8,
      patch: 4,
      width: 16,
      depth: 3,
      heads: 2,
      mlpWidth: 32,
      activation: 'quick_gelu',
      normEpsilon: 1e-5,
      classToken: true,
      preNorm: true,
      patchBias: false,
      ...vision,
    },
    language: {
      kind: 'llama',
      vocabulary: 320,
      width: 32,
      depth: 3,
      heads: 4,
      keyValueHeads: 4,
      headSize: 16, // the smallest that the KV cache supports
      mlpWidth: 48,
      normEpsilon: 1e-5,
      ropeTheta: 10000,
      context: 1024,
      tiedHead: false,
      attentionBias: false,
      bosToken: 1,
      eosTokens: [2],
      padToken: 4,
      ...language,
    },
    projector: { layers: 2, activation: 'gelu', bias: true, ...projector },
    featureLayer: -2,
    featureSelect: 'patch',
    imageToken: 3,
    visualTokens: 0,
    ...rest,
  }
  return { ...config, visualTokens: countVisualTokens(config) }
}

/** SigLIP with Qwen2: no class token, patch and attention biases, grouped-query attention, a tied head. */
export function tinySiglipConfig(changes: Changes = {}): LlavaConfig {
  return tinyConfig({
    featureLayer: -1,
    featureSelect: 'full',
    ...changes,
    vision: {
      kind: 'siglip',
      activation: 'gelu_tanh',
      classToken: false,
      preNorm: false,
      patchBias: true,
      ...changes.vision,
    },
    language: { kind: 'qwen2', keyValueHeads: 2, attentionBias: true, tiedHead: true, ...changes.language },
  })
}

/** Weights large enough for answers to depend on every part of the model. */
export function randomWeights(config: LlavaConfig, { seed = 1 }: { seed?: number } = {}): Weights {
  const random = uniform(seed)
  return new Map(
    [...expectedTensors(config)].map(([name, shape]) => {
      const inputs = shape.slice(1).reduce((product, size) => product * size, 1)
      // A tied head finds the token that was read in the residual stream: small embeddings leave room for others.
      const size = name.endsWith('tokenEmbedding.weight') ? (config.language.tiedHead ? 0.2 : 3) : 1
      const scale = shape.length === 1 ? 0.3 : size * Math.sqrt(3 / inputs)
      const center = /norm\d?\.weight$/i.test(name) ? 1 : 0
      const data = new Float32Array(shape.reduce((product, size) => product * size, 1))
      for (let i = 0; i < data.length; i++) data[i] = center + scale * (2 * random() - 1)
      return [name, { shape, data }]
    }),
  )
}

/** Pixels [3, S, S] as a vision encoder reads them. */
export function randomPixels(config: LlavaConfig, { seed }: { seed: number }): Float32Array {
  const random = uniform(seed)
  return Float32Array.from({ length: 3 * config.vision.imageSide ** 2 }, () => 4 * random() - 2)
}

/** The same as the one view of a picture that was preprocessed. */
export function randomView(config: LlavaConfig, { seed }: { seed: number }) {
  return { data: randomPixels(config, { seed }), views: 1, side: config.vision.imageSide }
}

/** A picture of coloured noise that is not square. */
export function randomPicture({ seed }: { seed: number }): Pixels {
  const random = uniform(seed)
  return pixels(
    12,
    9,
    Uint8Array.from({ length: 12 * 9 * 3 }, () => 256 * random()),
  )
}

/** The files of a model folder besides its config and weights, by name. */
export function tinyFiles(config: LlavaConfig): Record<string, string> {
  const side = config.vision.imageSide
  const processor =
    config.tiles === undefined
      ? 'CLIPImageProcessor'
      : config.tiles.mostTiles === undefined
        ? 'LlavaNextImageProcessor'
        : 'LlavaOnevisionImageProcessor'
  const files = {
    'tokenizer.json': trainBpe(corpus, { vocabulary: 300, specialTokens }),
    'tokenizer_config.json': {
      bos_token: '<s>',
      eos_token: '</s>',
      pad_token: '<pad>',
      unk_token: '<unk>',
      llava_template: 'picturebook',
    },
    'preprocessor_config.json': {
      image_processor_type: processor,
      ...(config.tiles && {
        image_grid_pinpoints: config.tiles.resolutions.map(({ width, height }) => [height, width]),
      }),
      size: processor === 'LlavaOnevisionImageProcessor' ? { height: side, width: side } : { shortest_edge: side },
      crop_size: { height: side, width: side },
      resample: 3,
      image_mean: [0.5, 0.5, 0.5],
      image_std: [0.25, 0.25, 0.25],
    },
    'generation_config.json': { max_new_tokens: 12 },
  }
  return Object.fromEntries(Object.entries(files).map(([name, json]) => [name, JSON.stringify(json)]))
}

/** Writes a complete model folder, which must not exist yet. */
export async function writeTinyModel(
  folder: string,
  { config = tinyConfig(), seed = 1 }: { config?: LlavaConfig; seed?: number } = {},
): Promise<void> {
  await saveCheckpoint(folder, { config, weights: randomWeights(config, { seed }), files: tinyFiles(config) })
}

function uniform(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}
