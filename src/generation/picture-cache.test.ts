import { mkdtemp, readdir, rm, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { llava7B } from '../../bench/shapes.ts'
import { randomView, randomWeights, tinyConfig } from '../../tests/tiny-model.ts'
import { loadConfig } from '../checkpoint/load.ts'
import { type CompiledModel, compileModel, disposeModel } from './compiled-model.ts'
import { closeContext, openContext, readPrompt } from './context.ts'
import { clearPictureCache, countPictureCache, isWorthKeeping, openPictureCache } from './picture-cache.ts'
import { preparePicture } from './prompt.ts'

const config = tinyConfig()
const shape = [config.visualTokens, config.language.width] as const
let root = ''
let folder = ''
let model: CompiledModel
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'picture-cache-'))
  model = await compileModel({ config, weights: randomWeights(config) }, { threads: 1 })
})
beforeEach(async () => {
  folder = await mkdtemp(join(root, 'pictures-'))
})
afterAll(async () => {
  await disposeModel(model)
  await rm(root, { recursive: true })
})

const open = (identity = 'weights', limit?: number) =>
  openPictureCache(folder, { config, identity: async () => identity, ...(limit !== undefined && { limit }) })
const files = async () =>
  (await readdir(folder, { recursive: true }))
    .filter((file) => file.endsWith('.safetensors'))
    .map((file) => join(folder, file))
const picture = preparePicture(randomView(config, { seed: 5 }), config)
const prompt = { ids: Int32Array.of(1, 50, 3, 3, 3, 3, 70), pictures: [{ ...picture, start: 2 }] }
const tokens = (seed: number) => Float32Array.from({ length: shape[0] * shape[1] }, (_, i) => Math.sin(seed + i))

/** The logits as another process would compute them; `encodes` tells whether it had to look at the picture. */
async function ask(pictureCache = open()): Promise<{ logits: Float32Array; encodes: boolean }> {
  const blind = { ...model.sessions, encode: undefined as never }
  const askOf = async (sessions: CompiledModel['sessions']) => {
    const context = openContext({ ...model, sessions, recentPictures: new Map(), pictureCache })
    const { logits } = await readPrompt(context, prompt).finally(() => closeContext(context))
    await pictureCache.settled()
    return logits
  }
  try {
    return { logits: await askOf(blind), encodes: false }
  } catch {
    return { logits: await askOf(model.sessions), encodes: true }
  }
}

test('a picture that was asked about before is not encoded again, and the answer is the same to the bit', async () => {
  const first = await ask()
  const second = await ask()
  expect([first.encodes, second.encodes]).toEqual([true, false])
  expect(second.logits).toEqual(first.logits)
  expect((await ask(open('other weights'))).encodes).toBe(true)
  expect(await files()).toHaveLength(2)
})

test('a damaged entry is computed again and replaced', async () => {
  const { logits } = await ask()
  const [file = ''] = await files()
  await truncate(file, 100)
  const again = await ask()
  expect(again).toEqual({ logits, encodes: true })
  expect((await ask()).encodes).toBe(false)
  await writeFile(file, 'something else')
  expect((await ask()).encodes).toBe(true)
})

test('where nothing can be written, every picture is encoded', async () => {
  await writeFile(join(folder, 'file'), '')
  const blocked = openPictureCache(join(folder, 'file/inside'), { config, identity: async () => 'weights' })
  expect((await ask(blocked)).encodes).toBe(true)
  expect((await ask(blocked)).encodes).toBe(true)
  const lost = openPictureCache(folder, { config, identity: () => Promise.reject(new Error('the files are gone')) })
  expect((await ask(lost)).encodes).toBe(true)
})

test('what was used longest ago is deleted, of other models too', async () => {
  const keep = async (key: string, { identity = 'weights', limit = 1e6 } = {}) => {
    const cache = open(identity, limit)
    cache.write(key, { shape, data: tokens(key.length) })
    await cache.settled()
  }
  await keep('a', { identity: 'other' })
  const bytes = (await countPictureCache(folder)).bytes
  await keep('bb')
  await keep('ccc')
  expect(await countPictureCache(folder)).toEqual({ count: 3, bytes: 3 * bytes })
  for (const file of await files()) await utimes(file, 1000, 1000)
  expect(await open().read('bb', shape)).toEqual(tokens(2)) // makes it the latest but one
  await keep('dddd', { limit: 2 * bytes })
  expect((await countPictureCache(folder)).count).toBe(2)
  expect(await open().read('bb', shape)).toEqual(tokens(2))
  expect(await open().read('dddd', shape)).toEqual(tokens(4))
  expect(await open().read('ccc', shape)).toBeUndefined()
  await keep('eeeee', { limit: 1 })
  expect(await open().read('eeeee', shape)).toEqual(tokens(5))
  await writeFile(join(folder, 'not ours'), '')
  expect(await clearPictureCache(folder)).toEqual({ count: 1, bytes })
  expect(await readdir(folder)).toEqual(['not ours'])
})

test('only models whose encoder takes longer than a disk keep pictures', async () => {
  const picturebook = await loadConfig(fileURLToPath(new URL('../../checkpoints/picturebook', import.meta.url)))
  expect([picturebook, config, llava7B()].map(isWorthKeeping)).toEqual([false, false, true])
})
