import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { LlavaConfig } from '../model/config.ts'
import { fromFloat32, toFloat32 } from './dtype.ts'
import { closeCheckpoint, openCheckpoint } from './folder.ts'
import { detectLayout, expectedTensors, type LayoutName, layoutNames, optionalTensors, toForeign } from './layouts.ts'
import { loadConfig, loadWeights, type Weights } from './load.ts'
import { type TensorToWrite, writeSafetensors } from './safetensors-writer.ts'
import { saveCheckpoint } from './save.ts'
import { tinyClip, tinySiglip } from './tiny-config.fixture.ts'
import { openWeightReader } from './weight-reader.ts'

let root: string
let folder: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'checkpoint-'))
  folder = join(root, 'model')
})
afterEach(() => rm(root, { recursive: true }))

function randomWeights(config: LlavaConfig): Map<string, { shape: readonly number[]; data: Float32Array }> {
  let seed = 1
  return new Map(
    [...expectedTensors(config)].map(([name, shape]) => {
      const data = new Float32Array(shape.reduce((a, b) => a * b, 1))
      for (let i = 0; i < data.length; i++) {
        seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
        data[i] = seed / 2 ** 31 - 1
      }
      return [name, { shape, data }]
    }),
  )
}

function inLayout(weights: Weights, layout: LayoutName): Map<string, TensorToWrite> {
  return new Map([...weights].map(([name, tensor]) => [toForeign(name, layout), tensor]))
}

async function writeShards(tensors: Map<string, TensorToWrite>, count: number): Promise<void> {
  await mkdir(folder)
  const weightMap: Record<string, string> = {}
  for (let shard = 0; shard < count; shard++) {
    const file = `model-0000${shard + 1}-of-0000${count}.safetensors`
    const part = [...tensors].filter((_, i) => i % count === shard)
    for (const [name] of part) weightMap[name] = file
    await writeSafetensors(join(folder, file), part, { metadata: { format: 'pt' } })
  }
  await writeFile(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }))
}

async function writeWhole(tensors: Iterable<readonly [string, TensorToWrite]>): Promise<void> {
  await mkdir(folder)
  await writeSafetensors(join(folder, 'model.safetensors'), tensors)
}

describe('a whole model', () => {
  test.each([
    ['CLIP with LLaMA', tinyClip],
    ['SigLIP with Qwen2', tinySiglip],
    ['a linear projector', { ...tinyClip, projector: { layers: 1, activation: 'gelu', bias: true } } as LlavaConfig],
  ])('%s survives saving and loading', async (_, config) => {
    const weights = randomWeights(config)
    await saveCheckpoint(folder, { config, weights, files: { 'tokenizer.json': '{}' } })
    expect((await readdir(folder)).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json'])
    expect(await loadConfig(folder)).toEqual(config)
    expect(await loadWeights(folder, config)).toEqual(weights)
    expect(await readdir(root)).toEqual(['model'])
  })

  test.each([
    'hugging-face',
    'hugging-face-2025',
  ] as const)('is copied tensor by tensor under the names of %s', async (layout) => {
    const weights = randomWeights(tinyClip)
    await saveCheckpoint(folder, { config: tinyClip, weights })
    const stored = await openWeightReader(folder, tinyClip)
    const copy = join(root, `copy-${layout}`)
    await saveCheckpoint(copy, { config: tinyClip, weights: stored, layout })
    await stored.close()
    expect(await loadWeights(copy, tinyClip)).toEqual(weights)
    const checkpoint = await openCheckpoint(copy)
    expect(detectLayout(checkpoint.tensors.keys())).toBe(layout)
    await closeCheckpoint(checkpoint)
    await rm(copy, { recursive: true })
  })

  test('is not saved at all when a tensor cannot be read', async () => {
    const shapes = new Map([...randomWeights(tinyClip)].map(([name, { shape }]) => [name, shape]))
    const saving = (read: (name: string) => Promise<Float32Array>) =>
      saveCheckpoint(folder, { config: tinyClip, weights: { shapes, read, close: async () => {} } })
    await expect(saving(() => Promise.reject(new Error('gone')))).rejects.toThrow('gone')
    await expect(saving(async () => new Float32Array(3))).rejects.toThrow(/found 3 elements of F32 for shape/)
    expect(await readdir(root)).toEqual([])
  })

  test.each(['F16', 'BF16'] as const)('is rounded to %s and says so', async (dtype) => {
    const weights = randomWeights(tinyClip)
    await saveCheckpoint(folder, { config: tinyClip, weights, dtype })
    const loaded = await loadWeights(folder, tinyClip)
    for (const [name, { data }] of weights) {
      expect(loaded.get(name)?.data).toEqual(toFloat32(dtype, fromFloat32(dtype, data)))
    }
    const json = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'))
    expect(json.torch_dtype).toBe({ F16: 'float16', BF16: 'bfloat16' }[dtype])
  })

  test.each(layoutNames)('is loaded from layout %s, whole and in shards', async (layout) => {
    for (const config of [tinyClip, tinySiglip]) {
      const weights = randomWeights(config)
      await writeShards(inLayout(weights, layout), 3)
      expect(await loadWeights(folder, config)).toEqual(weights)
      await rm(folder, { recursive: true })
      await writeWhole(inLayout(weights, layout))
      expect(await loadWeights(folder, config)).toEqual(weights)
      await rm(folder, { recursive: true })
    }
  })

  test('of the first release has a linear projector under another name', async () => {
    const config: LlavaConfig = { ...tinyClip, projector: { layers: 1, activation: 'gelu', bias: true } }
    const weights = randomWeights(config)
    const tensors = [...inLayout(weights, 'original')].map(
      ([name, tensor]) => [name.replace('mm_projector.0', 'mm_projector'), tensor] as const,
    )
    await writeWhole(tensors)
    expect(await loadWeights(folder, config)).toEqual(weights)
  })
})

describe('loadWeights', () => {
  test('reports missing, surplus and misshaped tensors in one message', async () => {
    const tensors = inLayout(randomWeights(tinyClip), 'hugging-face')
    tensors.delete('language_model.model.norm.weight')
    tensors.set('image_newline', { shape: [12], data: new Float32Array(12) })
    tensors.set('multi_modal_projector.linear_1.weight', { shape: [8, 12], data: new Float32Array(96) })
    await writeShards(tensors, 2)
    await expect(loadWeights(folder, tinyClip)).rejects.toThrow(
      new Error(
        `Cannot load the weights of ${folder}: the tensors do not fit the config: ` +
          '1 missing (languageModel.norm.weight); 1 surplus ("projector.newline"); ' +
          '1 misshaped (projector.layers.0.weight [8, 12] instead of [12, 8])',
      ),
    )
  })

  test('lists eight of many', async () => {
    await writeWhole(inLayout(randomWeights(tinyClip), 'hugging-face'))
    const deeper = { ...tinyClip, language: { ...tinyClip.language, depth: 4 } }
    const error: Error = await loadWeights(folder, deeper).then(
      () => expect.unreachable(),
      (error) => error,
    )
    expect(error.message).toContain('18 missing (languageModel.blocks.2.norm1.weight')
    expect(error.message).toContain('… 10 more)')
    expect(error.message.match(/languageModel\.blocks/g)).toHaveLength(8)
    const shallower = { ...tinyClip, language: { ...tinyClip.language, depth: 1 } }
    await expect(loadWeights(folder, shallower)).rejects.toThrow('9 surplus ("languageModel.blocks.1.norm1.weight"')
  })

  test('does without what follows the feature layer, and ignores harmless surplus', async () => {
    const weights = randomWeights(tinyClip)
    for (const name of optionalTensors(tinyClip)) weights.delete(name)
    const tensors = inLayout(weights, 'hugging-face')
    tensors.set('language_model.model.layers.0.self_attn.rotary_emb.inv_freq', {
      shape: [2],
      data: new Float32Array(2),
    })
    tensors.set('vision_tower.vision_model.embeddings.position_ids', {
      dtype: 'I64',
      shape: [1, 5],
      data: new Uint8Array(40),
    })
    await writeWhole(tensors)
    expect(await loadWeights(folder, tinyClip)).toEqual(weights)
  })

  test('leaves out the stored copy of a tied head', async () => {
    const weights = randomWeights(tinySiglip)
    const embedding = weights.get('languageModel.tokenEmbedding.weight')!
    const tensors = inLayout(weights, 'hugging-face').set('language_model.lm_head.weight', embedding)
    await writeWhole(tensors)
    expect(await loadWeights(folder, tinySiglip)).toEqual(weights)
  })

  test('refuses weights that are no numbers with a point, and unknown layouts', async () => {
    const tensors = inLayout(randomWeights(tinyClip), 'hugging-face')
    tensors.set('language_model.model.norm.weight', { dtype: 'I8', shape: [12], data: new Uint8Array(12) })
    await writeWhole(tensors)
    await expect(loadWeights(folder, tinyClip)).rejects.toThrow(
      '"language_model.model.norm.weight" is I8, expected F64',
    )
    await rm(folder, { recursive: true })
    await writeWhole([['wte.weight', { shape: [1], data: new Float32Array(1) }]])
    await expect(loadWeights(folder, tinyClip)).rejects.toThrow(
      'found 1 tensors ("wte.weight"), expected names of layout',
    )
  })

  test('refuses two names for one tensor', async () => {
    const tensors = inLayout(randomWeights(tinyClip), 'original')
    tensors.set('model.mm_projector.weight', { shape: [12, 8], data: new Float32Array(96) })
    await writeWhole(tensors)
    await expect(loadWeights(folder, tinyClip)).rejects.toThrow('both mean projector.layers.0.weight')
  })
})

describe('saveCheckpoint', () => {
  test('refuses weights that do not fit and leaves nothing behind', async () => {
    const weights = randomWeights(tinyClip)
    weights.delete('projector.layers.1.bias')
    await expect(saveCheckpoint(folder, { config: tinyClip, weights })).rejects.toThrow(
      '1 missing (projector.layers.1.bias)',
    )
    expect(await readdir(root)).toEqual([])
  })

  test('replaces a checkpoint when asked, and nothing else ever', async () => {
    const weights = randomWeights(tinyClip)
    const save = (replace: boolean) => saveCheckpoint(folder, { config: tinyClip, weights, replace })
    await save(false)
    await expect(save(false)).rejects.toThrow('Cannot write folder')
    weights.set('projector.layers.1.bias', { shape: [12], data: new Float32Array(12).fill(5) })
    await save(true)
    expect(await loadWeights(folder, tinyClip)).toEqual(weights)
    await rm(join(folder, 'config.json'))
    await expect(save(true)).rejects.toThrow('Cannot write folder')
    expect(await readdir(root)).toEqual(['model'])
  })

  test.each([
    '../x',
    'a/b',
    '',
    '.hidden',
    'config.json',
    'model.safetensors',
  ])('refuses the file name %j', async (name) => {
    const weights = randomWeights(tinyClip)
    const saving = saveCheckpoint(folder, { config: tinyClip, weights, files: { [name]: '' } })
    await expect(saving).rejects.toThrow('found the file name')
  })
})

test('loadConfig names the file that it cannot parse', async () => {
  await mkdir(folder)
  await writeFile(join(folder, 'config.json'), '{"model_type": "llava",')
  await expect(loadConfig(folder)).rejects.toThrow(SyntaxError)
  await expect(loadConfig(folder)).rejects.toThrow(join(folder, 'config.json'))
})
