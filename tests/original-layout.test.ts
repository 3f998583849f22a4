/**
 * Original LLaVA releases, made here from the tiny models of fixtures/parity by their names and config keys, compute what transformers computes with the
 * Hugging Face form of the same weights.
 */

import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { toForeign } from '../src/checkpoint/layouts.ts'
import { loadConfig, loadImageProcessor, loadWeights, type Weights } from '../src/checkpoint/load.ts'
import { writeSafetensors } from '../src/checkpoint/safetensors-writer.ts'
import { compileModel, disposeModel } from '../src/generation/compiled-model.ts'
import { encodePicture } from '../src/generation/encode-picture.ts'
import { readModelFolder } from '../src/generation/model-folder.ts'
import { makePrompt, preparePicture } from '../src/generation/prompt.ts'
import { trace } from '../src/generation/trace.ts'
import { preprocess } from '../src/image/preprocess.ts'
import { Llava } from '../src/llava.ts'
import type { LlavaConfig } from '../src/model/config.ts'
import { noise, readTensors, relativeDifference } from './references.ts'
import { randomPicture, randomWeights, tinyConfig } from './tiny-model.ts'

const fixtures = fileURLToPath(new URL('../fixtures/', import.meta.url))
const top = mkdtempSync(join(tmpdir(), 'llava-original-'))
const folder = join(top, 'model')
afterEach(() => rmSync(folder, { recursive: true, force: true }))
afterAll(() => rmSync(top, { recursive: true, force: true }))

type Json = Record<string, unknown>
type References = {
  cases: Record<string, { pictures: { width: number; height: number; seed: number }[]; ids: number[] }>
}

/** The keys that original releases put beside those of their language model. */
const ownKeys = {
  mm_hidden_size: 32,
  mm_projector_type: 'mlp2x_gelu',
  mm_resampler_type: null,
  mm_use_im_patch_token: false,
  mm_use_im_start_end: false,
  mm_vision_select_feature: 'patch',
  mm_vision_select_layer: -2,
  mm_vision_tower: 'somebody/tiny-encoder',
  use_mm_proj: true,
}

/** Writes a model as an original release: the vision encoder's config as a folder of its own, its weights inside or beside. */
async function writeOriginal(
  { config, weights }: { config: Json; weights: Weights },
  { encoder, apart = false }: { encoder: Json; apart?: boolean },
): Promise<void> {
  const entries = [...weights].map(([name, tensor]) => [toForeign(name, 'original'), tensor] as const)
  const prefix = 'model.vision_tower.vision_tower.'
  const isEncoders = (name: string) => name.startsWith(prefix)
  const inside = entries.filter(([name]) => !apart || !isEncoders(name))
  mkdirSync(join(folder, 'tiny-encoder'), { recursive: true })
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...ownKeys, ...config }))
  writeFileSync(join(folder, 'tiny-encoder', 'config.json'), JSON.stringify(encoder))
  await writeSafetensors(join(folder, 'model.safetensors'), inside, { dtype: 'F32' })
  if (!apart) return
  const alone = entries
    .filter(([name]) => isEncoders(name))
    .map(([name, tensor]) => [name.slice(prefix.length), tensor] as const)
  // A whole CLIP has more than its vision encoder.
  const text = ['text_model.final_layer_norm.weight', { shape: [2], data: new Float32Array(2) }] as const
  await writeSafetensors(join(folder, 'tiny-encoder', 'model.safetensors'), [...alone, text], { dtype: 'F32' })
}

function readFixture(name: string): {
  config: Json & { text_config: Json; vision_config: Json }
  references: References
} {
  const json = (file: string) => JSON.parse(readFileSync(join(fixtures, 'parity', name, file), 'utf8'))
  return { config: json('config.json'), references: json('references.json') }
}

async function weightsOf(name: string): Promise<Weights> {
  const from = join(fixtures, 'parity', name)
  return loadWeights(from, await loadConfig(from))
}

const families = [
  ['next-llama', 'LlavaLlamaForCausalLM', {}],
  ['next-mistral', 'LlavaMistralForCausalLM', {}],
  // LLaVA-NeXT takes the last of SigLIP's blocks off; its weights are not stored.
  ['onevision-qwen2', 'LlavaQwenForCausalLM', { num_hidden_layers: 4 }],
] as const

describe.each(families)('%s as %s', (name, architecture, encoderChange) => {
  test('cuts, arranges and computes as the same weights in transformers', async () => {
    const { config, references } = readFixture(name)
    const most = String(config.vision_aspect_ratio ?? '').replace('anyres', '')
    await writeOriginal(
      {
        config: {
          ...config.text_config,
          architectures: [architecture],
          model_type: 'llava',
          image_aspect_ratio: `anyres${most}`,
          mm_patch_merge_type: 'spatial_unpad',
          image_grid_pinpoints: (config.image_grid_pinpoints as number[][]).map(([height, width]) => [width, height]),
        },
        weights: await weightsOf(name),
      },
      { encoder: { ...config.vision_config, ...encoderChange } },
    )
    const [found, processor] = [await loadConfig(folder), await loadImageProcessor(folder)]
    expect(found.imageToken).toBe(-200)
    const model = await compileModel({ config: found, weights: await loadWeights(folder, found) }, { threads: 1 })
    const expected = await readTensors(join(fixtures, 'parity', name, 'references.safetensors'))
    const image = config.image_token_index
    for (const [which, { pictures, ids }] of Object.entries(references.cases)) {
      const short = ids.filter((id, i) => id !== image || ids[i - 1] !== image)
      const prepared = pictures.map((picture) =>
        preparePicture(preprocess(noise(picture), processor, { shown: pictures.length }), found),
      )
      const placed = Int32Array.from(short, (id) => (id === image ? found.imageToken : id))
      const prompt = makePrompt(
        { ids: placed, loss: new Uint8Array(placed.length) },
        { pictures: prepared, config: found },
      )
      const values = await trace(model, prompt)
      for (const stage of ['visualTokens', 'mergedEmbeddings', 'logits']) {
        const reference = expected.get(`${which}.${stage}`)!.data
        expect(relativeDifference(values.get(stage)!.data, reference), `${which}, ${stage}`).toBeLessThanOrEqual(1e-4)
      }
    }
    await disposeModel(model)
  })
})

describe('LLaVA 1 and 1.5', () => {
  const clip = readFixture('clip-llama')
  const language = { ...clip.config.text_config, architectures: ['LlavaLlamaForCausalLM'], model_type: 'llava' }
  const encoder = { model_type: 'clip', vision_config: clip.config.vision_config }

  test('find their vision encoder in a folder of its own, a whole CLIP', async () => {
    const weights = await weightsOf('clip-llama')
    await writeOriginal({ config: { ...language, image_aspect_ratio: 'pad' }, weights }, { encoder, apart: true })
    const config = await loadConfig(folder)
    const found = await loadWeights(folder, config)
    const there = await loadConfig(join(fixtures, 'parity', 'clip-llama'))
    expect({ ...config, imageToken: 0 }).toEqual({ ...there, imageToken: 0 })
    expect(new Map(found)).toEqual(new Map(weights))
    expect(await loadImageProcessor(folder)).toMatchObject({
      pad: true,
      crop: { width: 28, height: 28 },
      tiles: undefined,
    })
  })

  test('say where the vision encoder is expected when it is nowhere', async () => {
    await writeOriginal({ config: language, weights: await weightsOf('clip-llama') }, { encoder, apart: true })
    const config = await loadConfig(folder)
    const json = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
    const known = 'openai/clip-vit-large-patch14-336'
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...json, mm_vision_tower: known }))
    await expect(loadWeights(folder, config)).rejects.toThrow(
      /found no vision encoder among them, expected a folder "clip-vit-large-patch14-336" with it inside the model's folder or beside it$/,
    )
    writeFileSync(join(folder, 'config.json'), JSON.stringify(json))
    rmSync(join(folder, 'tiny-encoder', 'model.safetensors'))
    writeFileSync(join(folder, 'tiny-encoder', 'pytorch_model.bin'), '')
    await expect(loadWeights(folder, config)).rejects.toThrow(/tiny-encoder: found only pytorch_model\.bin, a pickle/)
  })

  test('crop where the config does not say that they pad, with the colours of the encoder', async () => {
    await writeOriginal({ config: language, weights: await weightsOf('clip-llama') }, { encoder })
    const own = { image_processor_type: 'CLIPImageProcessor', image_mean: [0.1, 0.2, 0.3] }
    writeFileSync(join(folder, 'tiny-encoder', 'preprocessor_config.json'), JSON.stringify(own))
    expect(await loadImageProcessor(folder)).toMatchObject({ pad: false, mean: [0.1, 0.2, 0.3] })
  })

  test('the first one has a single linear layer', async () => {
    const weights = new Map(await weightsOf('clip-llama'))
    for (const part of ['weight', 'bias']) weights.delete(`projector.layers.1.${part}`)
    await writeOriginal({ config: { ...language, mm_projector_type: 'linear' }, weights }, { encoder })
    const config = await loadConfig(folder)
    const { data: W } = weights.get('projector.layers.0.weight')!
    const { data: bias } = weights.get('projector.layers.0.bias')!
    const model = await compileModel({ config, weights: await loadWeights(folder, config) }, { threads: 1 })
    const picture = preparePicture(
      preprocess(noise({ width: 28, height: 28, seed: 1 }), await loadImageProcessor(folder)),
      config,
    )
    const { visualTokens, patchFeatures } = await encodePicture(model, picture, { features: true })
    const [C, D] = [config.vision.width, config.language.width]
    const expected = Array.from(visualTokens, (_, i) => {
      const [p, d] = [Math.floor(i / D), i % D]
      return Array.from({ length: C }, (_, c) => W[d * C + c]! * patchFeatures![p * C + c]!).reduce(
        (a, b) => a + b,
        bias[d]!,
      )
    })
    expect(relativeDifference(visualTokens, expected)).toBeLessThanOrEqual(1e-5)
    await disposeModel(model)
  })
})

describe('a whole folder with tokenizer.model', () => {
  const config = tinyConfig({ language: { vocabulary: 400 } })
  const weights = randomWeights(config)
  const original = (change: Json = {}): Json => ({
    architectures: ['LlavaLlamaForCausalLM'],
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    head_dim: 16,
    rms_norm_eps: 1e-5,
    max_position_embeddings: 1024,
    vocab_size: 400,
    ...change,
  })
  const encoder = {
    model_type: 'clip_vision_model',
    image_size: 8,
    patch_size: 4,
    hidden_size: 16,
    intermediate_size: 32,
    num_hidden_layers: 3,
    num_attention_heads: 2,
  }
  const write = async (change: Json = {}, encoderJson: Json = encoder) => {
    await writeOriginal({ config: original(change), weights }, { encoder: encoderJson })
    cpSync(join(fixtures, 'sentencepiece', 'tokenizer.model'), join(folder, 'tokenizer.model'))
  }

  test('answers about pictures, for which its vocabulary has no token', async () => {
    await write({ image_aspect_ratio: 'pad' })
    const read = await readModelFolder(folder)
    expect(read.template).toMatchObject({ name: 'vicuna_v1' })
    expect(read.stopTokens).toEqual([2])
    await using llava = await Llava.load(folder, { threads: 1 })
    const options = { question: 'What is in the picture?', image: randomPicture({ seed: 5 }), maxTokens: 8 }
    const { usage } = await llava.ask(options)
    expect(usage).toMatchObject({ imageTokens: 4, completionTokens: 8 })
    const values = await llava.trace(options)
    const ids = [...values.get('ids')!.data]
    expect(ids.filter((id) => id === -200)).toHaveLength(4)
    const others = await llava.trace({ ...options, image: randomPicture({ seed: 6 }) })
    expect(others.get('logits')!.data.slice(-400)).not.toEqual(values.get('logits')!.data.slice(-400))
  })

  test.each<[string, Json, RegExp]>([
    [
      'another language model',
      { architectures: ['LlavaMptForCausalLM'] },
      /architectures is "LlavaMptForCausalLM", expected "LlavaLlama/,
    ],
    ['a prototype key as one', { architectures: ['constructor'] }, /architectures is "constructor", expected/],
    [
      'an unknown projector',
      { mm_projector_type: 'ldpnet' },
      /of an original LLaVA release: mm_projector_type is "ldpnet", expected "linear"/,
    ],
    ['a resampler', { mm_resampler_type: 'perceiver' }, /mm_resampler_type .* no resampler/],
    ['tokens around pictures', { mm_use_im_start_end: true }, /mm_use_im_start_end is true/],
    [
      'another way with pictures',
      { image_aspect_ratio: 'highres' },
      /image_aspect_ratio is "highres", expected square, pad or anyres/,
    ],
    [
      'another way with tiles',
      { image_aspect_ratio: 'anyres', mm_patch_merge_type: 'flat' },
      /mm_patch_merge_type is "flat"/,
    ],
    [
      'an unknown encoder',
      { mm_vision_tower: '../../etc/unknown' },
      /"..\/..\/etc\/unknown" is not known, expected a folder "unknown"/,
    ],
    [
      'no layer',
      { mm_vision_select_layer: undefined },
      /of an original LLaVA release: mm_vision_select_layer is missing/,
    ],
    ['no norm epsilon', { rms_norm_eps: undefined }, /rms_norm_eps is missing/],
  ])('refuses %s in one sentence', async (_, change, expected) => {
    await write(change)
    const error = await readModelFolder(folder).catch((error: Error) => error)
    expect(String(error)).toMatch(expected)
    expect((error as Error).message).toMatch(/^Cannot load the model [^\n]*[^.\n]$/)
  })

  test('reads grids written as a range', async () => {
    await write({
      image_aspect_ratio: 'anyres',
      mm_patch_merge_type: 'spatial_unpad',
      image_grid_pinpoints: '(1x1),...,(2x3)',
    })
    const { tiles } = await loadConfig(folder)
    expect(tiles?.resolutions.map(({ width, height }) => [width / 8, height / 8])).toEqual([
      [1, 1],
      [1, 2],
      [1, 3],
      [2, 1],
      [2, 2],
      [2, 3],
    ])
    expect(tiles?.unpadding).toBe('truncated')
    expect((await loadImageProcessor(folder)).tiles?.resolutions).toEqual(tiles?.resolutions)
  })

  test('knows the published vision encoders by name', async () => {
    const published: [string, Partial<LlavaConfig['vision']>][] = [
      ['openai/clip-vit-large-patch14', { kind: 'clip', imageSide: 224, depth: 24 }],
      ['openai/clip-vit-large-patch14-336', { kind: 'clip', imageSide: 336, width: 1024 }],
      ['google/siglip-so400m-patch14-384', { kind: 'siglip', imageSide: 384, width: 1152, depth: 27 }],
    ]
    for (const [name, expected] of published) {
      await write({ mm_vision_tower: name })
      expect((await loadConfig(folder)).vision).toMatchObject(expected)
      rmSync(folder, { recursive: true })
    }
  })
})
