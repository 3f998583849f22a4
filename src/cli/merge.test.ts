import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectedTensors } from '../checkpoint/layouts.ts'
import { loadWeights, type Weights } from '../checkpoint/load.ts'
import { type LoraAdapter, mergeAdapter, writeAdapter } from '../checkpoint/lora.ts'
import { saveCheckpoint } from '../checkpoint/save.ts'
import { tinyClip } from '../checkpoint/tiny-config.fixture.ts'
import { mergeFolders } from './merge.ts'

let folder = ''
const at = (name: string) => join(folder, name)
const numbers = (shape: readonly number[], seed: number) => ({
  shape,
  data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(seed + i)),
})
const weights: Weights = new Map([...expectedTensors(tinyClip)].map(([name, shape], i) => [name, numbers(shape, i)]))
const adapterOf = (layer: string, [out, width]: readonly [number, number]): LoraAdapter => ({
  base: 'model',
  rank: 2,
  alpha: 4,
  layers: new Map([[layer, { A: numbers([2, width], 1), B: numbers([out, 2], 2) }]]),
  whole: new Map(),
})
const query = adapterOf('languageModel.blocks.0.attention.query', [12, 12])

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'merge-'))
  const files = { 'tokenizer.json': '{"kept": true}' }
  await saveCheckpoint(at('model'), { config: tinyClip, weights, files })
  await writeAdapter(at('adapter'), query)
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const merge = (model: string, adapter: string, options: { out: string; undo?: boolean }) =>
  mergeFolders({ model: at(model), adapter: at(adapter) }, { dtype: 'F32', ...options, out: at(options.out) })

describe('mergeFolders', () => {
  test('writes the merged model with what else lay in its folder, and takes the adapter out again', async () => {
    expect(await merge('model', 'adapter', { out: 'merged' })).toEqual({ layers: 1, whole: 0 })
    expect(await loadWeights(at('merged'), tinyClip)).toEqual(await mergeAdapter(weights, query))
    await merge('merged', 'adapter', { out: 'back', undo: true })
    for (const [name, { data }] of await loadWeights(at('back'), tinyClip)) {
      expect(data.every((value, i) => Math.abs(value - weights.get(name)!.data[i]!) < 1e-6)).toBe(true)
    }
    expect(await readFile(join(at('back'), 'tokenizer.json'), 'utf8')).toBe('{"kept": true}')
  })

  test('says that a folder is not there', async () => {
    await expect(merge('none', 'adapter', { out: 'x' })).rejects.toThrow(/^Cannot merge into .*none: there is no such/)
    await expect(merge('model', 'none', { out: 'x' })).rejects.toThrow(
      /^Cannot read the adapter .*none: there is no such/,
    )
  })

  test('refuses an adapter of another model, and writes nothing', async () => {
    await writeAdapter(at('wider'), adapterOf('languageModel.blocks.0.attention.query', [16, 12]))
    await expect(merge('model', 'wider', { out: 'x' })).rejects.toThrow(
      'Cannot merge the adapter: found [12, 12] for languageModel.blocks.0.attention.query.weight in the model, expected [16, 12]',
    )
    await writeAdapter(at('deeper'), adapterOf('languageModel.blocks.7.mlp.up', [24, 12]))
    await expect(merge('model', 'deeper', { out: 'x' })).rejects.toThrow('found no such weight')
    await expect(loadWeights(at('x'), tinyClip)).rejects.toThrow('ENOENT')
  })

  test('overwrites neither the model nor a folder of other things', async () => {
    await expect(merge('model', 'adapter', { out: 'model' })).rejects.toThrow(
      /^Cannot use --out .*model: it is the model itself, expected another folder$/,
    )
    await writeFile(join(at('adapter'), 'notes.txt'), '')
    await expect(merge('model', 'adapter', { out: 'adapter' })).rejects.toThrow(/^Cannot use --out .*adapter: found/)
  })
})
