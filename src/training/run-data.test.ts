import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { disposeBatch, makeBatch } from './batch-maker.ts'
import { openLesson } from './lesson.ts'
import type { Recipe } from './recipe.ts'
import { train } from './run.ts'
import { tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'

let base = ''
beforeAll(async () => {
  base = await writeTinyLesson()
  const rows = ['red', 'green', 'blue'].map((name, id) => ({
    id: `text ${id}`,
    conversations: [
      { from: 'human', value: 'What colour is it?' },
      { from: 'gpt', value: `It is ${name}.` },
    ],
  }))
  await writeFile(join(base, 'text.json'), JSON.stringify(rows))
  const names = ['red', 'green', 'blue', 'white', 'black']
  const varied = Array.from({ length: 60 }, (_, id) => {
    const name = names[id % 5]
    const question = 'What colour is it? '.repeat(1 + (id % 3))
    const picture = id % 3 === 0 ? {} : { image: `${name}.png` }
    const value = 'image' in picture ? `<image>\n${question}` : question
    return {
      id,
      ...picture,
      conversations: [
        { from: 'human', value },
        { from: 'gpt', value: `It is ${name}.` },
      ],
    }
  })
  await writeFile(join(base, 'varied.json'), JSON.stringify(varied))
})
afterAll(() => rm(base, { recursive: true, force: true }))

const pictures = () => ({ file: join(base, 'data.json'), images: join(base, 'pictures') })
const text = () => ({ file: join(base, 'text.json'), images: join(base, 'pictures') })
const varied = () => ({ file: join(base, 'varied.json'), images: join(base, 'pictures') })
const mixed = () => [
  { weight: 3, llava: pictures() },
  { weight: 1, llava: text() },
]
const short = { steps: 8, logEvery: 2, checkpointEvery: 3, validate: undefined }
const settings = {
  mixed: () => tinyRecipe(base, { ...short, data: mixed() }),
  packed: () => tinyRecipe(base, { ...short, data: mixed(), pack: true, length: 64 }),
  bucketed: () => tinyRecipe(base, { ...short, data: { llava: varied() }, bucket: true, lengths: [20, 24, 30] }),
  'single-stage': () =>
    tinyRecipe(base, {
      ...short,
      stage: 'single-stage',
      data: mixed(),
      rates: { visionEncoder: 1e-3, projector: 1e-2, languageModel: 1e-2 },
    }),
} as const satisfies Record<string, () => Recipe>
const names = Object.keys(settings) as (keyof typeof settings)[]

/** What a run leaves, apart from the time that it took. */
async function outcome(folder: string) {
  const last =
    (await readdir(folder))
      .filter((name) => name.startsWith('checkpoint-'))
      .sort()
      .at(-1) ?? ''
  const { seconds: _, ...progress } = JSON.parse(await readFile(join(folder, last, 'progress.json'), 'utf8'))
  const state = (await readFile(join(folder, last, 'state.safetensors'))).toString('base64')
  return { progress, log: await readFile(join(folder, 'log.jsonl'), 'utf8'), state }
}

async function stopAndGoOn(recipe: Recipe, folder: string): Promise<void> {
  for (let part = 0; part < 20; part++) {
    const controller = new AbortController()
    let done = 0
    await train(recipe, {
      folder,
      resume: true,
      threads: 1,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type === 'checkpoint') controller.abort()
        if (event.type === 'end') done = event.step
      },
    })
    if (done === recipe.steps) return
  }
}

describe('a run over data of several kinds', () => {
  test.each(names)('learns, and ends the same when it is stopped and resumed: %s', async (name) => {
    const recipe = settings[name]()
    const [whole, broken] = [join(base, `${name} whole`), join(base, `${name} broken`)]
    await train(recipe, { folder: whole, threads: 1 })
    await stopAndGoOn(recipe, broken)
    const result = await outcome(whole)
    expect(await outcome(broken)).toEqual(result)
    const losses = result.log
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
      .flatMap(({ type, loss }) => (type === 'step' ? [loss] : []))
    expect(losses).toHaveLength(4)
    expect(losses.at(-1)).toBeLessThan(losses[0])
  }, 120_000)
})

describe('a packed batch', () => {
  test('holds more samples than rows, each once, and leaves the next to the next batch', async () => {
    const lesson = await openLesson(settings.packed(), { threads: 1 })
    const unpacked = await openLesson({ ...settings.packed(), pack: false }, { threads: 1 })
    let position = { cursor: 0, skipped: 0 }
    const drawn: string[] = []
    for (let number = 0; number < 3; number++) {
      const batch = await makeBatch(lesson, { source: lesson.source, position, parts: 2 })
      expect(batch.samples.length).toBeGreaterThan(4)
      expect(batch.position.cursor - position.cursor).toBe(batch.samples.length + batch.skips.length)
      const weights = batch.inputs.flatMap(({ targetWeights }) => [...(targetWeights!.data as Float32Array)])
      expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(1, 5)
      expect(batch.pictures).toBeLessThan(batch.samples.length)
      drawn.push(...batch.samples.map(({ id }) => id))
      position = batch.position
      disposeBatch(batch)
    }
    const order: string[] = []
    let at = { cursor: 0, skipped: 0 }
    while (order.length < drawn.length) {
      const batch = await makeBatch(unpacked, { source: unpacked.source, position: at, parts: 1 })
      order.push(...batch.samples.map(({ id }) => id))
      at = batch.position
      disposeBatch(batch)
    }
    expect([...drawn].sort()).toEqual(order.slice(0, drawn.length).sort())
    await lesson.dispose()
    await unpacked.dispose()
  })
})

describe('batches from buckets', () => {
  test('are of one kind and of the shortest length that holds them', async () => {
    const recipe = { ...settings.bucketed(), accumulate: 1 }
    const lesson = await openLesson(recipe, { threads: 1 })
    const P = lesson.pictureTokens
    let position = { cursor: 0, skipped: 0 }
    const lengths = new Set<number>()
    let mixedBatches = 0
    for (let number = 0; number < 30; number++) {
      const batch = await makeBatch(lesson, { source: lesson.source, position, parts: 1 })
      const length = batch.inputs[0]!.ids!.shape[1]!
      const needed = batch.encoded!.map(({ ids, pictures }) => ids.length + (pictures.length === 0 ? P : 0))
      const possible = [...recipe.lengths!, recipe.length].filter((one) => one >= Math.max(...needed))
      expect(length).toBe(Math.min(...possible))
      expect(batch.tokens).toBe(length * recipe.batch)
      if (batch.pictures > 0 && batch.pictures < recipe.batch) mixedBatches++
      lengths.add(length)
      position = batch.position
      disposeBatch(batch)
    }
    expect(lengths.size).toBeGreaterThan(2)
    expect(mixedBatches).toBeLessThanOrEqual(1) // where the two kinds meet
    expect(position.skipped).toBe(0)
    await lesson.dispose()
  })
})

test('a skipped sample leaves the later buckets as they are', async () => {
  const lesson = await openLesson({ ...settings.bucketed(), batch: 4, accumulate: 1 }, { threads: 1 })
  const bad = new Set([3, 17, 40])
  const sample = async (index: number) => {
    if (bad.has(index)) throw new Error('broken')
    return lesson.source.sample(index)
  }
  const idsOf = async (source: typeof lesson.source) => {
    const batches: string[][] = []
    let position = { cursor: 0, skipped: 0 }
    for (let number = 0; number < 15; number++) {
      const batch = await makeBatch(lesson, { source, position, parts: 1 })
      batches.push(batch.samples.map(({ id }) => id))
      position = batch.position
      disposeBatch(batch)
    }
    expect(position.cursor).toBe(60)
    return batches
  }
  const whole = await idsOf(lesson.source)
  const holed = await idsOf({ ...lesson.source, sample })
  holed.forEach((ids, index) => {
    expect(ids).toHaveLength(4)
    const good = whole[index]!.filter((id) => !bad.has(Number(id)))
    expect(new Set(ids)).toEqual(new Set(good))
  })
  await lesson.dispose()
})

test('a length beyond the context of the model is refused', async () => {
  await expect(openLesson(tinyRecipe(base, { length: 65 }))).rejects.toThrow('expected at most the 64 tokens')
})
