import { mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hashOf } from '../checkpoint/array-file.ts'
import { disposeBatch, makeBatch } from './batch-maker.ts'
import { openFeatureCache } from './feature-cache.ts'
import { type Lesson, openLesson } from './lesson.ts'
import { type TrainingEvent, train } from './run.ts'
import { tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'feature-cache-'))
})
afterAll(() => rm(folder, { recursive: true }))

const shape = [2, 3] as const
const features = Float32Array.of(1.1, -0, 1e-40, Number.NaN, Number.POSITIVE_INFINITY, -3)
const key = hashOf('a picture')
const bytes = (values: Float32Array | undefined) => values && Buffer.from(values.buffer).toString('hex')
const filesIn = async (path: string) =>
  (await readdir(path, { recursive: true }))
    .filter((name) => name.endsWith('.safetensors'))
    .map((name) => join(path, name))

describe('openFeatureCache', () => {
  test('gives back what was kept, to the bit', async () => {
    const cache = openFeatureCache(join(folder, 'bits'), { fingerprint: 'one', shape })
    expect(await cache.read(key)).toBeUndefined()
    await cache.write(key, features)
    expect(bytes(await cache.read(key))).toBe(bytes(features))
    const reopened = openFeatureCache(join(folder, 'bits'), { fingerprint: 'one', shape })
    expect(bytes(await reopened.read(key))).toBe(bytes(features))
    expect(cache.takeNotices()).toEqual([])
  })

  test('keeps encoders apart, and pictures', async () => {
    const options = { fingerprint: 'one', shape } as const
    await openFeatureCache(join(folder, 'apart'), options).write(key, features)
    const other = openFeatureCache(join(folder, 'apart'), { ...options, fingerprint: 'two' })
    expect(await other.read(key)).toBeUndefined()
    expect(await openFeatureCache(join(folder, 'apart'), options).read(hashOf(features))).toBeUndefined()
    const larger = openFeatureCache(join(folder, 'apart'), { ...options, shape: [3, 2] })
    expect(await larger.read(key)).toBeUndefined()
  })

  test.each([
    ['a changed bit', (data: Buffer) => data.fill((data.at(-5) ?? 0) ^ 1, data.length - 5, data.length - 4)],
    ['a lost end', (data: Buffer) => data.subarray(0, data.length - 4)],
    ['another header', (data: Buffer) => data.fill('x', 8, 12)],
    ['nothing', () => Buffer.alloc(0)],
  ])('takes a file with %s for absent, and replaces it', async (damage, change) => {
    const path = join(folder, damage)
    const cache = openFeatureCache(path, { fingerprint: 'one', shape })
    await cache.write(key, features)
    const [file = ''] = await filesIn(path)
    const whole = await readFile(file)
    const damaged = change(Buffer.from(whole))
    expect(damaged.equals(whole)).toBe(false)
    await writeFile(file, damaged)
    expect(await cache.read(key)).toBeUndefined()
    await cache.write(key, features)
    expect(bytes(await cache.read(key))).toBe(bytes(features))
    expect((await readdir(join(file, '..'))).length).toBe(1) // no scraps
  })

  test('tells once that it cannot write, and stays silent', async () => {
    const blocked = join(folder, 'a file')
    await writeFile(blocked, '')
    const cache = openFeatureCache(join(blocked, 'inside'), { fingerprint: 'one', shape })
    await Promise.all([cache.write(key, features), cache.write(hashOf(features), features)])
    await cache.write(key, features)
    const notices = cache.takeNotices()
    expect(notices).toHaveLength(1)
    expect(notices[0]).toMatch(/^Training goes on without keeping more features in .*inside: ENOTDIR/)
    expect(cache.takeNotices()).toEqual([])
    expect(await cache.read(key)).toBeUndefined()
  })
})

describe('a lesson that keeps features', () => {
  let base = ''
  let lesson: Lesson
  let calls = 0
  const beginning = { cursor: 0, skipped: 0 }
  const counted = (): Lesson => ({
    ...lesson,
    encodePictures: (pictures) => {
      calls += pictures.length
      return lesson.encodePictures(pictures)
    },
  })
  const passOver = async (one: Lesson) => {
    calls = 0
    const seen: string[] = []
    let position = beginning
    for (let batch = 0; batch < 3; batch++) {
      const made = await makeBatch(one, { source: one.source, position, parts: 2 })
      for (const { features: tensor } of made.inputs) seen.push(bytes((tensor!.data as Float32Array).slice())!)
      position = made.position
      disposeBatch(made)
    }
    return seen
  }
  const recipe = () => tinyRecipe(base, { featureCache: join(base, 'features'), steps: 8, validate: undefined })
  beforeAll(async () => {
    base = await writeTinyLesson()
    lesson = await openLesson(recipe(), { threads: 1 })
  })
  afterAll(async () => {
    await lesson.dispose()
    await rm(base, { recursive: true })
  })

  test('encodes no picture on the second pass, and none of another run', async () => {
    const first = await passOver(counted())
    expect(calls).toBeGreaterThanOrEqual(5)
    expect(await filesIn(join(base, 'features'))).toHaveLength(5)
    expect(await passOver(counted())).toEqual(first)
    expect(calls).toBe(0)
    const again = await openLesson(recipe(), { threads: 1 })
    expect(await passOver({ ...counted(), featureCache: again.featureCache })).toEqual(first)
    expect(calls).toBe(0)
    await again.dispose()
  })

  test('computes a damaged entry again', async () => {
    const first = await passOver(counted())
    for (const file of await filesIn(join(base, 'features'))) await truncate(file, (await stat(file)).size - 1)
    expect(await passOver(counted())).toEqual(first)
    expect(calls).toBeGreaterThanOrEqual(5)
    expect(await passOver(counted())).toEqual(first)
    expect(calls).toBe(0)
  })

  test('does not mistake another encoder or another preparation for its own', async () => {
    await passOver(counted())
    const other = await openLesson({ ...recipe(), seed: 1 }, { threads: 1 }) // the encoder starts at random
    const encode = { ...counted(), encodePictures: other.encodePictures, featureCache: other.featureCache }
    expect(await passOver(encode)).not.toEqual(await passOver(counted()))
    await other.dispose()
    expect(await filesIn(join(base, 'features'))).toHaveLength(10)
  })

  test('learns the same from kept features, and goes on where it cannot keep them', async () => {
    const logOf = async (name: string, featureCache: string) => {
      const events: TrainingEvent[] = []
      const run = { ...recipe(), featureCache }
      await train(run, { folder: join(base, name), threads: 1, onEvent: (event) => events.push(event) })
      const notices = events.filter(({ type }) => type === 'notice')
      return { log: await readFile(join(base, name, 'log.jsonl'), 'utf8'), notices: notices.length }
    }
    await writeFile(join(base, 'no folder'), '')
    const fresh = await logOf('fresh', join(base, 'fresh features'))
    expect(fresh.notices).toBe(0)
    expect(await logOf('kept', join(base, 'fresh features'))).toEqual(fresh)
    expect(await logOf('blocked', join(base, 'no folder'))).toEqual({ ...fresh, notices: 1 })
  }, 60_000)
})
