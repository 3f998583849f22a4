/** Runs over pictures of several views and over several pictures, from the files to a model that answers. */

import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { loadConfig } from '../checkpoint/load.ts'
import { encodePng } from '../image/encode.ts'
import { filledPixels } from '../image/pixels.ts'
import { toHuggingFaceConfig } from '../model/config.ts'
import { disposeBatch, makeBatch } from './batch-maker.ts'
import { openLesson } from './lesson.ts'
import type { Recipe } from './recipe.ts'
import { type TrainingEvent, train } from './run.ts'
import { tinyConfig, tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'

const P = tinyConfig.visualTokens
/** Of heads that the runtime's cached attention takes: the model is asked while it learns. */
const language = { ...tinyConfig.language, width: 32, heads: 2, keyValueHeads: 2, headSize: 16 }
const pinpoints = [
  [8, 16],
  [16, 8],
  [16, 16],
]
const kinds = {
  next: { processor: 'LlavaNextImageProcessor', mostTiles: undefined },
  onevision: { processor: 'LlavaOnevisionImageProcessor', mostTiles: 2 },
} as const

let base = ''
/** Beside the lesson's model one that looks at tiles, and rows with one picture, with two, and with none. */
beforeAll(async () => {
  base = await writeTinyLesson()
  const write = (name: string, value: unknown) => writeFile(join(base, name), JSON.stringify(value))
  const preprocessor = JSON.parse(await readFile(join(base, 'model/preprocessor_config.json'), 'utf8'))
  for (const [name, { processor, mostTiles }] of Object.entries(kinds)) {
    await mkdir(join(base, name))
    const resolutions = pinpoints.map(([height = 0, width = 0]) => ({ width, height }))
    const tiles = { resolutions, unpadding: 'rounded', ...(mostTiles && { mostTiles }) } as const
    await write(`${name}/config.json`, toHuggingFaceConfig({ ...tinyConfig, language, tiles }))
    await write(`${name}/preprocessor_config.json`, {
      ...preprocessor,
      image_processor_type: processor,
      image_grid_pinpoints: pinpoints,
      ...(mostTiles && { size: { height: 8, width: 8 } }),
    })
    for (const file of ['tokenizer.json', 'tokenizer_config.json']) {
      await writeFile(join(base, name, file), await readFile(join(base, 'model', file)))
    }
  }
  const sizes = { wide: [24, 8], high: [6, 20], even: [12, 12] } as const
  for (const [name, [width, height]] of Object.entries(sizes)) {
    await writeFile(join(base, 'pictures', `${name}.png`), await encodePng(filledPixels(width, height, [9, 200, 30])))
  }
  const row = (id: string, images: string[], answer: string) => ({
    id,
    ...(images.length > 0 && { image: images.length === 1 ? images[0] : images }),
    conversations: [
      { from: 'human', value: `${'<image>\n'.repeat(images.length)}What colour is it?` },
      { from: 'gpt', value: answer },
    ],
  })
  const rows = [
    row('wide', ['wide.png'], 'It is green.'),
    row('two', ['even.png', 'high.png'], 'It is green.'),
    row('none', [], 'It is red.'),
    row('high', ['high.png'], 'It is green.'),
  ]
  await write('views.json', rows)
  await write('three.json', [...rows, row('three', ['red.png', 'even.png', 'red.png'], 'It is red.')])
}, 60_000)
afterAll(() => rm(base, { recursive: true }))

const recipeFor = (model: string, changes: Readonly<Record<string, unknown>> = {}): Recipe => {
  const llava = { file: join(base, 'views.json'), validation: join(base, 'views.json'), images: join(base, 'pictures') }
  return tinyRecipe(base, {
    model: join(base, model),
    data: { llava },
    pictures: 2,
    length: 60,
    accumulate: 1,
    steps: 2,
    logEvery: 1,
    checkpointEvery: 1,
    validate: undefined,
    ...changes,
  })
}

async function losses(folder: string): Promise<number[]> {
  const lines = (await readFile(join(folder, 'log.jsonl'), 'utf8')).trim().split('\n')
  return lines.map((line) => JSON.parse(line)).flatMap(({ type, loss }) => (type === 'step' ? [loss] : []))
}

describe.each(['next', 'onevision', 'model'])('a lesson of %s', (model) => {
  test('plans views and visual tokens by the sizes of pictures, and reads no features of blanks', async () => {
    const lesson = await openLesson(recipeFor(model, { batch: 4 }), { threads: 1 })
    const batch = await makeBatch(lesson, { source: lesson.source, position: { cursor: 0, skipped: 0 }, parts: 1 })
    const views = { next: 4 * 10, onevision: 4 * 5, model: 4 * 2 }[model]!
    expect(batch.skips).toEqual([])
    expect(batch.inputs[0]!.features!.shape).toEqual([views, P, tinyConfig.vision.width])
    const planned = new Map(
      batch.samples.map(({ id }, i) => [id, batch.encoded![i]!.pictures.map(({ views }) => views)]),
    )
    const expected = {
      next: { wide: [3], high: [3], two: [5, 3], none: [] },
      onevision: { wide: [3], high: [3], two: [1, 1], none: [] },
      model: { wide: [1], high: [1], two: [1, 1], none: [] },
    }[model]
    expect(Object.fromEntries(planned)).toEqual(expected)
    disposeBatch(batch)
    await lesson.dispose()
  })
})

test('learns, the newline too, and goes on as if it had never stopped, with features kept on disk', async () => {
  const featureCache = join(base, 'next features')
  const [whole, broken] = [join(base, 'next whole'), join(base, 'next broken')]
  const weights = await train(recipeFor('next', { featureCache }), { folder: whole, threads: 1 })
  const controller = new AbortController()
  const onEvent = ({ type }: TrainingEvent) => type === 'checkpoint' && controller.abort()
  const recipe = recipeFor('next', { featureCache })
  await train(recipe, { folder: broken, threads: 1, signal: controller.signal, onEvent })
  expect(await losses(broken)).toHaveLength(1)
  const resumed = await train(recipe, { folder: broken, threads: 1, resume: true })
  expect(await losses(broken)).toEqual(await losses(whole))
  for (const [name, { data }] of weights) expect(data, name).toEqual(resumed.get(name)!.data)
  const lesson = await openLesson(recipeFor('next'), { threads: 1 })
  const shape = [language.width]
  const name = 'projector.newline'
  expect(weights.get(name)!.data).not.toEqual(lesson.startingValue({ name, shape }))
  await lesson.dispose()
}, 60_000)

test('a sample with more pictures than the recipe says is skipped', async () => {
  const llava = { file: join(base, 'three.json'), images: join(base, 'pictures') }
  const lesson = await openLesson(recipeFor('next', { data: { llava }, batch: 4 }), { threads: 1 })
  const batch = await makeBatch(lesson, { source: lesson.source, position: { cursor: 0, skipped: 0 }, parts: 2 })
  expect(batch.skips.map(({ reason }) => reason)).toContain(
    'Cannot train on sample three: found 3 pictures, expected at most 2',
  )
  disposeBatch(batch)
  await lesson.dispose()
})

test('a sample with more views than the recipe says is skipped, and the graph has room for fewer', async () => {
  const lesson = await openLesson(recipeFor('next', { views: 3 }), { threads: 1 })
  const batch = await makeBatch(lesson, { source: lesson.source, position: { cursor: 0, skipped: 0 }, parts: 2 })
  expect(batch.inputs[0]!.features!.shape[0]).toBe(2 * 3)
  expect(batch.skips.map(({ reason }) => reason)).toContain(
    'Cannot train on sample two: its pictures have 8 views, expected at most 3',
  )
  disposeBatch(batch)
  await lesson.dispose()
})

test('LoRA learns beside a model of tiles, packed, and the model is asked while it learns', async () => {
  const folder = join(base, 'lora')
  const start = { languageModel: join(base, 'next whole') }
  const lora = { rank: 2, alpha: 4, targets: ['attention.query', 'mlp.up'] }
  const validation = { every: 2, batches: 1, generate: 2 }
  const events: TrainingEvent[] = []
  const recipe = recipeFor('next', { start, lora, pack: true, validate: validation })
  const weights = await train(recipe, { folder, threads: 1, onEvent: (event) => events.push(event) })
  expect(events.flatMap((event) => (event.type === 'answers' ? [event.answers.length] : []))).toEqual([2, 2])
  expect(await readdir(join(folder, 'adapter'))).toContain('adapter_model.safetensors')
  expect((await loadConfig(join(base, 'next'))).tiles?.resolutions).toHaveLength(3)
  expect(weights.has('projector.newline')).toBe(true)
}, 60_000)

test('stages that see a picture in one view refuse a model that cuts tiles', async () => {
  const data = { picturebook: {} }
  const recipe = recipeFor('next', { stage: 'encoder', rates: { visionEncoder: 1e-3 }, data, pictures: 1 })
  await expect(openLesson(recipe)).rejects.toThrow('stage encoder sees a picture in one view')
  expect(() => recipeFor('next', { stage: 'encoder', rates: { visionEncoder: 1e-3 }, data })).toThrow(
    'found pictures 2',
  )
})
