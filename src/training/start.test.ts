import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { loadPart } from '../checkpoint/load-part.ts'
import { parseVisionEncoder } from '../model/clip-config.ts'
import { countVisualTokens, toHuggingFaceConfig } from '../model/config.ts'
import { openLesson } from './lesson.ts'
import { tinyConfig, tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'

const clip = fileURLToPath(new URL('../../fixtures/parity/clip', import.meta.url))
let base = ''
beforeAll(async () => {
  base = await writeTinyLesson()
})
afterAll(() => rm(base, { recursive: true, force: true }))
afterEach(() => vi.unstubAllEnvs())

test('a vision encoder starts from a CLIP folder, and is refused in a sentence where it does not fit the model', async () => {
  const start = { visionEncoder: clip }
  await expect(openLesson(tinyRecipe(base, { start }), { threads: 1 })).rejects.toThrow(
    /^Cannot start visionEncoder from .*clip: found imageSide 28, patch 7, width 32.*, expected imageSide 8, patch 4, width 8.* as in .*model$/,
  )
  const vision = parseVisionEncoder(JSON.parse(await readFile(join(clip, 'config.json'), 'utf8')))
  const config = { ...tinyConfig, vision, visualTokens: countVisualTokens({ ...tinyConfig, vision }) }
  await writeFile(join(base, 'model/config.json'), JSON.stringify(toHuggingFaceConfig(config)))
  const lesson = await openLesson(tinyRecipe(base, { start }), { threads: 1 })
  const stored = await loadPart(clip, { part: 'visionEncoder', config, model: base })
  for (const [name, { shape, data }] of stored) expect(lesson.startingValue({ name, shape }), name).toEqual(data)
  await lesson.dispose()
})

test('a part starts from a model that was pulled, by its name', async () => {
  vi.stubEnv('HF_HUB_CACHE', join(base, 'hub'))
  const folder = join(base, 'hub/models--some--clip')
  const commit = 'a'.repeat(40)
  await mkdir(join(folder, 'refs'), { recursive: true })
  await writeFile(join(folder, 'refs/main'), commit)
  await cp(clip, join(folder, 'snapshots', commit), { recursive: true })
  const lesson = await openLesson(tinyRecipe(base, { start: { visionEncoder: 'some/clip' } }), { threads: 1 })
  const other = await openLesson(tinyRecipe(base, { start: { visionEncoder: clip } }), { threads: 1 })
  const weight = { name: 'visionEncoder.patchEmbedding.weight', shape: [32, 3, 7, 7] }
  expect(lesson.startingValue(weight)).toEqual(other.startingValue(weight))
  for (const one of [lesson, other]) await one.dispose()
  await expect(openLesson(tinyRecipe(base, { start: { visionEncoder: 'no/clip' } }))).rejects.toThrow(
    'Cannot start visionEncoder from no/clip: there is no such folder and no such model in the cache, expected one, or fetch it with llava pull no/clip',
  )
})
