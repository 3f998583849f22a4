import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { SampleSource } from '../instruction-data/sample.ts'
import { disposeBatch, makeBatch } from './batch-maker.ts'
import { batchQueue } from './batch-queue.ts'
import { type Lesson, openLesson } from './lesson.ts'
import { tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'

let folder = ''
let lesson: Lesson
beforeAll(async () => {
  folder = await writeTinyLesson()
  lesson = await openLesson(tinyRecipe(folder), { threads: 1 })
})
afterAll(async () => {
  await lesson.dispose()
  await rm(folder, { recursive: true })
})

const beginning = { cursor: 0, skipped: 0 }
const make = (source: SampleSource, position = beginning) => makeBatch(lesson, { source, position, parts: 2 })
/** The good sample at every index, except where `bad` says so. */
const withBad = (bad: (index: number) => boolean): SampleSource => ({
  size: undefined,
  sample: async (index) => {
    if (bad(index)) throw new Error(`number ${index} is broken`)
    return lesson.source.sample(0)
  },
})

describe('makeBatch', () => {
  test('makes one set of inputs per accumulated part', async () => {
    const batch = await make(lesson.source)
    expect(batch.inputs.map(({ ids, features }) => [ids!.shape, features!.shape])).toEqual([
      [
        [2, 40],
        [2, 4, 8],
      ],
      [
        [2, 40],
        [2, 4, 8],
      ],
    ])
    const weights = batch.inputs.flatMap(({ targetWeights }) => [...(targetWeights!.data as Float32Array)])
    expect(weights.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 6)
    expect(batch.samples).toHaveLength(4)
    disposeBatch(batch)
  })

  test('skips bad samples, tells which and why, and draws on', async () => {
    const batch = await make(withBad((index) => index === 1 || index === 2))
    expect(batch.position).toEqual({ cursor: 6, skipped: 2 })
    expect(batch.skips).toEqual([
      { sample: 'number 1', reason: 'number 1 is broken' },
      { sample: 'number 2', reason: 'number 2 is broken' },
    ])
  })

  test('skips a sample whose picture cannot be read', async () => {
    const good = await lesson.source.sample(0)
    const broken = {
      ...good,
      pictures: [{ ...good.pictures[0]!, pixels: () => Promise.reject(new Error('no such picture')) }],
    }
    const source = { size: undefined, sample: async (index: number) => (index === 0 ? broken : good) }
    expect((await make(source)).skips).toEqual([{ sample: 'number 0', reason: 'no such picture' }])
  })

  test('fails when too many of what it has drawn was bad', async () => {
    const bad = withBad((index) => index % 10 === 0)
    const draw = async () => {
      let position = beginning
      for (let batch = 0; batch < 60; batch++) ({ position } = await make(bad, position))
    }
    await expect(draw()).rejects.toThrow(/Cannot train: \d+ of 2\d\d samples were unusable.*number \d+ is broken/)
  })

  test('goes on when few were', async () => {
    const source = withBad((index) => index % 100 === 0)
    const { position } = await make(source, { cursor: 1000, skipped: 10 })
    expect(position).toEqual({ cursor: 1005, skipped: 11 })
  })

  test('draws the same from a position, whatever was drawn before', async () => {
    const first = await make(lesson.source)
    const [once, again] = [await make(lesson.source, first.position), await make(lesson.source, first.position)]
    expect(once.samples.map(({ id }) => id)).toEqual(again.samples.map(({ id }) => id))
    once.inputs.forEach((inputs, part) => {
      for (const [name, tensor] of Object.entries(inputs)) expect(tensor.data).toEqual(again.inputs[part]![name]!.data)
    })
  })
})

describe('batchQueue', () => {
  test('gives the batches that `makeBatch` gives, as many as asked for', async () => {
    const queue = batchQueue(lesson, { position: beginning, count: 3 })
    let position = beginning
    for (let number = 0; number < 3; number++) {
      const expected = await make(lesson.source, position)
      const batch = await queue.next()
      expect(batch.samples.map(({ id }) => id)).toEqual(expected.samples.map(({ id }) => id))
      expect(batch.position).toEqual(expected.position)
      position = batch.position
    }
    await expect(queue.next()).rejects.toThrow('the queue has 3')
    await queue.close()
  })

  test('reports a batch that cannot be made when its turn has come', async () => {
    const source = withBad((index) => index >= 4)
    const queue = batchQueue({ ...lesson, source }, { position: beginning, count: 2 })
    await queue.next()
    await expect(queue.next()).rejects.toThrow('unusable')
    await queue.close()
  })
})
