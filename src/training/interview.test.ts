import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { saveCheckpoint } from '../checkpoint/save.ts'
import { decodeImage } from '../image/decode.ts'
import { Llava } from '../llava.ts'
import { toHuggingFaceConfig } from '../model/config.ts'
import { interview, prepareInterview } from './interview.ts'
import { openLesson } from './lesson.ts'
import { train } from './run.ts'
import { parseRunLog } from './run-log.ts'
import { tinyConfig, tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'

/** The tiny model with heads as large as cached generation wants them. */
const config = {
  ...tinyConfig,
  language: { ...tinyConfig.language, width: 32, heads: 2, keyValueHeads: 2, headSize: 16, mlpWidth: 64 },
}
const changes = { validate: { every: 10, batches: 2, generate: 3 }, keepBest: 'accuracy' }

let base = ''
beforeAll(async () => {
  base = await writeTinyLesson()
  await writeFile(join(base, 'model', 'config.json'), JSON.stringify(toHuggingFaceConfig(config)))
})
afterAll(() => rm(base, { recursive: true, force: true }))

test('a killed and resumed run asks the same questions, gets the same answers and leaves the same files', async () => {
  const [whole, stopped] = [join(base, 'whole'), join(base, 'stopped')]
  const recipe = tinyRecipe(base, changes)
  const weights = await train(recipe, { folder: whole, threads: 1 })
  const controller = new AbortController()
  await train(recipe, {
    folder: stopped,
    threads: 1,
    signal: controller.signal,
    onEvent: (event) => event.type === 'answers' && event.step === 10 && controller.abort(),
  })
  // As if it had been killed while it wrote: lines after the checkpoint, a picture half there, one gone.
  await writeFile(join(stopped, 'log.jsonl'), '{"type":"answers","step":11,"answ', { flag: 'a' })
  await writeFile(join(stopped, 'samples', '.01.png.partial-x'), 'half')
  await rm(join(stopped, 'samples', '02.png'))
  await train(recipe, { folder: stopped, resume: true, threads: 1 })

  const log = await readFile(join(whole, 'log.jsonl'), 'utf8')
  expect(await readFile(join(stopped, 'log.jsonl'), 'utf8')).toBe(log)
  const { questions, answers } = parseRunLog(log, 'log')
  expect(answers.map(({ step }) => step)).toEqual([0, 10, 20, 30])
  expect(questions.map(({ picture }) => picture)).toEqual(['samples/00.png', 'samples/01.png', 'samples/02.png'])
  expect(questions[0]).toMatchObject({ question: 'What colour is it?', reference: expect.stringMatching(/^It is /) })
  for (const name of ['00.png', '01.png', '02.png']) {
    const bytes = await readFile(join(whole, 'samples', name))
    expect(await readFile(join(stopped, 'samples', name))).toEqual(bytes)
    expect(await decodeImage(bytes)).toMatchObject({ width: 10, height: 8 })
  }
  expect(await readdir(join(stopped, 'samples'))).toEqual(['00.png', '01.png', '02.png'])
  const names = async (folder: string) =>
    (await readdir(folder)).filter((name) => !name.startsWith('checkpoint')).sort()
  expect(await names(stopped)).toEqual(await names(whole))

  // What the log says last is what a user of the exported model is told.
  expect(new Set(answers.map((one) => JSON.stringify(one.answers))).size).toBeGreaterThan(1)
  const model = join(base, 'exported')
  const files = Object.fromEntries(
    await Promise.all(
      ['tokenizer.json', 'preprocessor_config.json'].map(async (name) => [
        name,
        await readFile(join(base, 'model', name), 'utf8'),
      ]),
    ),
  )
  const tokenizerConfig = JSON.parse(await readFile(join(base, 'model', 'tokenizer_config.json'), 'utf8'))
  files['tokenizer_config.json'] = JSON.stringify({ ...tokenizerConfig, llava_template: 'picturebook' })
  await saveCheckpoint(model, { config, weights, files })
  await using llava = await Llava.load(model, { threads: 1 })
  for (const [index, { picture = '', question }] of questions.entries()) {
    const { answer } = await llava.ask({ image: join(whole, picture), question, maxTokens: 24 })
    const said = answers.at(-1)?.answers[index]?.text ?? ''
    expect(said === '' ? answer : answer.slice(0, said.length)).toBe(said)
  }
}, 240_000)

test('scores by skill what can be scored, and only shows the rest', async () => {
  const lesson = await openLesson(tinyRecipe(base, changes), { threads: 1 })
  try {
    const prepared = await prepareInterview(lesson)
    const questions = prepared.map((one, index) => ({
      ...one,
      asked: { ...one.asked, skill: index < 2 ? 'colour' : 'other' },
      score: index === 2 ? undefined : () => index === 0,
    }))
    const said = await interview(questions, { lesson, weights: lesson.wholeModel(new Map()), threads: 1 })
    expect(said.accuracy).toEqual({ colour: 0.5 })
    expect(said.answers.map(({ right }) => right)).toEqual([true, false, undefined])
  } finally {
    await lesson.dispose()
  }
}, 60_000)

test('a picturebook sample says whether an answer to its question is right', async () => {
  const data = { picturebook: { turns: 2, skills: { existence: 1 } } }
  const model = fileURLToPath(new URL('../../checkpoints/picturebook', import.meta.url))
  const lesson = await openLesson(tinyRecipe(base, { data, model, length: 176, validate: changes.validate }), {
    threads: 1,
  })
  try {
    const questions = await prepareInterview(lesson)
    expect(questions).toHaveLength(3)
    for (const { asked, score } of questions) {
      expect(asked.skill).toMatch(/^[a-z-]+$/)
      expect(score?.(asked.reference)).toBe(true)
      expect(score?.('Never mind.')).toBe(false)
    }
  } finally {
    await lesson.dispose()
  }
}, 60_000)

test('a recipe that asks where nobody can answer, or too much, is refused', () => {
  const recipe = (more: Readonly<Record<string, unknown>>) => () => tinyRecipe('x', more)
  const encoder = { stage: 'encoder', rates: { visionEncoder: 1 }, data: { picturebook: {} } }
  expect(recipe({ ...encoder, validate: changes.validate })).toThrow('asks the model in stage encoder')
  expect(recipe({ validate: { ...changes.validate, generate: 5 } })).toThrow(
    'validate.generate is 5, expected at most the 4 samples that it validates with',
  )
  expect(recipe({ validate: undefined, keepBest: 'loss' })).toThrow('it has keepBest but does not validate')
})
