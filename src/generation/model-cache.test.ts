import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { randomView, randomWeights, tinyConfig, tinySiglipConfig } from '../../tests/tiny-model.ts'
import { saveCheckpoint } from '../checkpoint/save.ts'
import { type CompiledModel, compileModel, compileSupplied, disposeModel } from './compiled-model.ts'
import { encodePicture } from './encode-picture.ts'
import { allocateCache } from './kv-cache.ts'
import { prefill, step } from './language-calls.ts'
import { cachedWeights, cacheFolder, clearCache, listCache, prepareCache } from './model-cache.ts'
import { type Precision, precisions } from './precision.ts'
import { preparePicture } from './prompt.ts'

const config = tinyConfig()
let root = ''
let folder = ''
let cache = ''

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'llava-cache-'))
  folder = join(root, 'model')
  await saveCheckpoint(folder, { config, weights: randomWeights(config), dtype: 'F16' })
})
beforeEach(async () => {
  cache = await mkdtemp(join(root, 'cache-'))
})
afterAll(() => rm(root, { recursive: true }))

async function logitsOf(model: CompiledModel) {
  const memory = allocateCache(model.config.language, { capacity: 64 })
  const picture = preparePicture(randomView(config, { seed: 3 }), config)
  const { visualTokens } = await encodePicture(model, picture)
  const ids = Int32Array.of(1, 20, ...new Array(config.visualTokens).fill(config.imageToken), 30, 31)
  const first = await prefill(model, {
    ids,
    pictures: [{ start: 2, length: picture.length, visualTokens }],
    cache: memory,
    past: 0,
  })
  const second = await step(model, { ids: [40], past: [ids.length], cache: memory })
  await disposeModel(model)
  return [...first, ...second]
}

async function fromCache(precision: Precision) {
  const weights = await cachedWeights({ folder, config }, { precision, cache })
  return logitsOf(await compileSupplied({ config, weights, precision }, { threads: 1 }))
}

test.each(precisions)('a model in %s from the cache computes what it computes from memory', async (precision) => {
  const { loadWeights } = await import('../checkpoint/load.ts')
  const weights = await loadWeights(folder, config)
  const inMemory = await logitsOf(await compileModel({ config, weights }, { precision, threads: 1 }))
  expect(await fromCache(precision)).toEqual(inMemory)
})

test('weights for a GPU are kept apart from those for the CPU, in other forms', async () => {
  const [cpu, gpu] = [
    await cachedWeights({ folder, config }, { precision: 'int8', cache }),
    await cachedWeights({ folder, config }, { precision: 'int8', cache, device: 'webgpu' }),
  ]
  const inBlocks = 'visionEncoder.blocks.0.mlp.down.weight@int8-32'
  expect([cpu.has(inBlocks), gpu.has(inBlocks)]).toEqual([false, true])
  expect(await listCache(cache)).toHaveLength(2)
})

test('a tied head and a vision encoder without class token are stored too', async () => {
  const siglip = tinySiglipConfig()
  const other = join(root, 'siglip')
  await saveCheckpoint(other, { config: siglip, weights: randomWeights(siglip) })
  const weights = await cachedWeights({ folder: other, config: siglip }, { precision: 'int4', cache })
  const model = await compileSupplied({ config: siglip, weights, precision: 'int4' }, { threads: 1 })
  const memory = allocateCache(siglip.language, { capacity: 8 })
  const logits = await prefill(model, { ids: Int32Array.of(1, 2), pictures: [], cache: memory, past: 0 })
  await disposeModel(model)
  expect(logits.every(Number.isFinite)).toBe(true)
})

describe('entries', () => {
  test('a second opening converts nothing; another precision has an entry of its own', async () => {
    const seen: number[] = []
    const open = (precision: Precision) =>
      cachedWeights({ folder, config }, { precision, cache, onProgress: ({ done, all }) => seen.push(done / all) })
    await open('int8')
    expect(seen.at(-1)).toBe(1)
    const count = seen.length
    await open('int8')
    expect(seen.length).toBe(count)
    await open('int4')
    expect(seen.length).toBeGreaterThan(count)
    const models = await listCache(cache)
    expect(models.map(({ precision }) => precision).sort()).toEqual(['int4', 'int8'])
    expect(models[0]!.model).toBe(folder)
  })

  test('changed weights are converted anew', async () => {
    const changing = join(root, 'changing')
    const weights = randomWeights(config)
    await saveCheckpoint(changing, { config, weights })
    await cachedWeights({ folder: changing, config }, { precision: 'int8', cache })
    weights.get('languageModel.blocks.1.mlp.up.weight')!.data.fill(0.5)
    await saveCheckpoint(changing, { config, weights, replace: true })
    await cachedWeights({ folder: changing, config }, { precision: 'int8', cache })
    expect((await listCache(cache)).length).toBe(2)
  })

  test('a damaged entry is made again', async () => {
    const before = await fromCache('int4')
    const [entry] = await readdir(cache)
    const file = join(cache, entry!, 'weights.bin')
    await truncate(file, (await stat(file)).size - 1)
    expect(await fromCache('int4')).toEqual(before)
    await writeFile(join(cache, entry!, 'index.json'), '{')
    expect(await fromCache('int4')).toEqual(before)
  })

  test('an entry made for other processors is made again', async () => {
    const before = await fromCache('mixed')
    const [entry] = await readdir(cache)
    const file = join(cache, entry!, 'index.json')
    const index = JSON.parse(await readFile(file, 'utf8'))
    await writeFile(file, JSON.stringify({ ...index, saturating: !index.saturating, parts: [] }))
    expect(await fromCache('mixed')).toEqual(before)
    expect(JSON.parse(await readFile(file, 'utf8'))).toEqual(index)
  })

  test('an interrupted conversion leaves nothing', async () => {
    const abort = new AbortController()
    const converting = cachedWeights(
      { folder, config },
      { precision: 'int4', cache, signal: abort.signal, onProgress: () => abort.abort(new Error('enough')) },
    )
    await expect(converting).rejects.toThrow('enough')
    expect(await readdir(cache)).toEqual([])
  })

  test('clearing takes entries and remains of killed conversions, and nothing else', async () => {
    await cachedWeights({ folder, config }, { precision: 'int8', cache })
    await writeFile(join(cache, 'notes.txt'), 'mine')
    await writeFile(join(cache, `.${'a'.repeat(32)}.partial-1`), '')
    const { models, bytes } = await clearCache(cache)
    expect(models).toBe(1)
    expect(bytes).toBeGreaterThan(0)
    expect(await readdir(cache)).toEqual(['notes.txt'])
    expect(await clearCache(join(cache, 'nowhere'))).toEqual({ models: 0, bytes: 0 })
  })

  test('weights begin at pages and nothing overlaps', async () => {
    await cachedWeights({ folder, config }, { precision: 'mixed', cache })
    const [entry] = await readdir(cache)
    const { parts } = JSON.parse(await readFile(join(cache, entry!, 'index.json'), 'utf8'))
    let end = 0
    for (const { offset, bytes } of parts) {
      expect(offset % 4096).toBe(0)
      expect(offset).toBeGreaterThanOrEqual(end)
      end = offset + bytes
    }
    expect(
      parts.some(({ name }: { name: string }) => name.includes('blocks.2.') && name.startsWith('visionEncoder')),
    ).toBe(false)
  })
})

test('the folder follows the environment', async () => {
  expect(cacheFolder({ LLAVA_CACHE: '/data' })).toBe('/data/converted')
  expect(cacheFolder({ XDG_CACHE_HOME: '/c' }, 'linux')).toBe('/c/llava-ts/converted')
  expect(cacheFolder({}, 'darwin')).toMatch(/Library.Caches.llava-ts.converted$/)
  expect(await prepareCache(join(cache, 'a', 'b'))).toBe(true)
  expect(await prepareCache(join(folder, 'config.json', 'b'))).toBe(false)
  expect(await prepareCache('/proc/llava')).toBe(false)
})
