import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { tinyClip, tinySiglip } from '../checkpoint/tiny-config.fixture.ts'
import type { Sample } from '../instruction-data/sample.ts'
import type { LlavaConfig } from '../model/config.ts'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { adamWDefaults } from './adamw.ts'
import { captionInputs, type EncodedCaption, encodeCaption } from './caption-batches.ts'
import { type ContrastSettings, contrastSettings } from './contrast-settings.ts'
import { contrastiveLoss } from './contrastive.ts'
import { initialWeight } from './initialization.ts'
import { openLesson } from './lesson.ts'
import { parseRecipe } from './recipe.ts'
import { train } from './run.ts'
import { partOf, stages } from './stages.ts'
import { tinyConfig, tinyRecipe, tinyTokenizer, writeTinyLesson } from './tiny-lesson.fixture.ts'
import {
  computeGradients,
  createTrainingStep,
  disposeTrainingStep,
  type Inputs,
  scoreOnce,
  type TrainingStep,
} from './training-step.ts'
import { shares, type Tally, tallyCaptions } from './validation.ts'

const tower = { width: 8, depth: 1, heads: 2 }
const sizes = { textEncoder: tower, captioner: tower, contrasts: 2 }
const open: TrainingStep[] = []
afterEach(async () => {
  for (const step of open.splice(0)) await disposeTrainingStep(step)
})

function settingsOf(config: LlavaConfig, changes: Record<string, unknown> = {}): ContrastSettings {
  return contrastSettings(config, { contrast: { ...sizes, ...changes }, length: 8 })
}

async function stepOf(config: LlavaConfig, settings: ContrastSettings): Promise<TrainingStep> {
  const { learns } = stages.contrastive
  const step = await createTrainingStep({
    objective: (weights) => contrastiveLoss(config, weights, { batch: 3, settings }),
    groupOf: (name) => learns.find((part) => part === partOf(name)),
    startingValue: ({ name, shape }) => {
      const values = initialWeight({ name: name.replace(/^captioner\./, ''), shape }, { seed: 5, depth: 2 })
      return name === 'similarity.bias' ? values.fill(-1) : values // at −10 most pairs weigh too little to be measured
    },
    optimizer: adamWDefaults,
    threads: 1,
  })
  open.push(step)
  return step
}

const captions: EncodedCaption[] = [
  { ids: [1, 5, 6, 2], contrasts: [{ fact: 'count', ids: [1, 5, 7, 2] }] },
  {
    ids: [1, 8, 2],
    contrasts: [
      { fact: 'count', ids: [1, 9, 2] },
      { fact: 'place', ids: [1, 8, 8, 8, 2] },
    ],
  },
  { ids: [1, 5, 6, 9, 10, 2], contrasts: [] },
]

function inputsOf(config: LlavaConfig, settings: ContrastSettings): Inputs {
  const S = config.vision.imageSide
  const pixels = Float32Array.from({ length: 3 * 3 * S * S }, (_, i) => Math.sin(i * i))
  return {
    pixels: residentTensor('float32', [3, 3, S, S], { data: pixels }),
    ...captionInputs(captions, { config, settings, share: 1 }),
  }
}

describe.each([
  ['CLIP', tinyClip],
  ['SigLIP', tinySiglip],
] as const)('the contrastive loss of an encoder of the kind of %s', (_, config) => {
  test('equals the formula, pair by pair', async () => {
    const settings = settingsOf(config, { captioning: 0 })
    const step = await stepOf(config, settings)
    const { loss, scores } = await scoreOnce(step, inputsOf(config, settings))
    // Three captions, then two places for false ones per picture, of which three are taken.
    const taken = [0, 1, 2, 3, 5, 6]
    let sum = 0
    for (let picture = 0; picture < 3; picture++) {
      for (const text of taken) {
        const logit = Number(scores.data[picture * 9 + text])
        sum += Math.log(1 + Math.exp(picture === text ? -logit : logit))
      }
    }
    expect(loss).toBeCloseTo(sum / 3, 4)
  })

  test('has the slope that small steps measure, through every part', async () => {
    const settings = settingsOf(config)
    const step = await stepOf(config, settings)
    const inputs = inputsOf(config, settings)
    await computeGradients(step, [inputs])
    const parts = new Set(step.trained.map(({ name }) => partOf(name)))
    expect(parts).toEqual(new Set(stages.contrastive.learns))
    for (const part of parts) {
      const names = step.trained.map(({ name }) => name).filter((name) => partOf(name) === part)
      const slope = names.reduce(
        (sum, name) =>
          sum + Number(step.gradients.get(`gradient:${name}`)!.data.reduce((total, value) => total + value ** 2, 0)),
        0,
      )
      const along = async (size: number) => {
        for (const name of names) move(step, name, size)
        const { loss } = await scoreOnce(step, inputs)
        for (const name of names) move(step, name, -size)
        return loss
      }
      const size = 3e-4 / Math.sqrt(slope)
      const measured = ((await along(size)) - (await along(-size))) / (2 * size)
      expect(measured / slope, part).toBeCloseTo(1, 1)
    }
  })
})

/** Moves a weight along its gradient. */
function move(step: TrainingStep, name: string, size: number): void {
  const [weight, slope] = [step.weights.get(name)!.data, step.gradients.get(`gradient:${name}`)!.data]
  for (let i = 0; i < weight.length; i++) weight[i] = weight[i]! + size * slope[i]!
}

describe('captionInputs', () => {
  const settings = settingsOf(tinyClip)
  const inputs = captionInputs(captions, { config: tinyClip, settings, share: 0.5 })
  const rowOf = (name: 'pairLabels' | 'pairWeights', row: number) => [...inputs[name].data.slice(row * 9, row * 9 + 9)]

  test('a picture belongs to its caption alone; places without a false caption weigh nothing', () => {
    expect(rowOf('pairLabels', 1)).toEqual([-1, 1, -1, -1, -1, -1, -1, -1, -1])
    expect(rowOf('pairWeights', 1).map((weight) => weight > 0)).toEqual([
      true,
      true,
      true,
      true,
      false,
      true,
      true,
      false,
      false,
    ])
    expect(rowOf('pairWeights', 1)[0]).toBeCloseTo(0.5 / 3)
  })

  test('two pictures with the same caption belong to both', () => {
    const same = captionInputs([captions[0]!, captions[0]!, captions[1]!], { config: tinyClip, settings, share: 1 })
    expect([...same.pairLabels.data.slice(0, 9)]).toEqual([1, 1, -1, -1, -1, -1, -1, -1, -1])
  })

  test('each token is followed by the next, and the end by nothing', () => {
    expect([...inputs.targets.data.slice(0, 8)].map(Number)).toEqual([5, 6, 2, 0, 0, 0, 0, 0])
    const weights = [...inputs.targetWeights.data] as number[]
    expect(weights.slice(0, 8).map((weight) => weight > 0)).toEqual([
      true,
      true,
      true,
      false,
      false,
      false,
      false,
      false,
    ])
    expect(weights.reduce((sum, weight) => sum + weight, 0)).toBeCloseTo(0.5)
  })
})

test('encodeCaption takes the first answer where there is no caption, and refuses what is too long', () => {
  const options = { tokenizer: tinyTokenizer, config: tinyConfig, settings: settingsOf(tinyConfig) }
  const say = (text: string): Sample => ({
    id: '7',
    pictures: [],
    turns: [
      { role: 'user', content: [{ type: 'text', text: 'What colour is it?' }] },
      { role: 'assistant', content: [{ type: 'text', text }] },
    ],
  })
  const { ids, contrasts } = encodeCaption(say('It is red.'), options)
  expect([ids[0], ids.at(-1), contrasts]).toEqual([1, 2, []])
  expect(() => encodeCaption(say('It is red. '.repeat(9)), options)).toThrow(
    /Cannot train on sample 7: its caption has \d+ tokens, expected at most 8/,
  )
  expect(() => encodeCaption(say(' '), options)).toThrow(/Cannot train on sample 7: it has neither caption nor answer/)
  const caption = () => ({
    text: 'It is red.',
    contrasts: [
      { fact: 'colour', text: 'It is blue.' },
      { fact: 'colour', text: 'It is red. '.repeat(9) },
    ],
  })
  expect(encodeCaption({ ...say(''), caption }, options).contrasts).toHaveLength(1)
})

test('tallyCaptions counts a caption as right when it beats the others', () => {
  const tally: Tally = new Map()
  const data = Float32Array.from([3, 1, 2, 0, 0, 0, 0, 0, 0, 1, 3, 2, 0, 0, 4, 1, 0, 0, 0, 9, 3, 0, 0, 0, 0, 0, 0])
  tallyCaptions(tally, { captions, scores: residentTensor('float32', [3, 9], { data }) })
  expect(shares(tally)).toEqual({ retrieval: 2 / 3, count: 1 / 2, contrasts: 1 / 2, place: 1 })
})

test('a recipe says what it needs for the lesson, and only for this one', () => {
  const recipe = { name: 'x', model: 'm', data: { picturebook: {} }, batch: 2, steps: 1, contrast: {} }
  const rates = { visionEncoder: 1e-3, textEncoder: 1e-3 }
  expect(parseRecipe({ ...recipe, stage: 'contrastive', rates }, 'x').contrast).toMatchObject({ contrasts: 3 })
  expect(() => parseRecipe({ ...recipe, stage: 'encoder', rates: { visionEncoder: 1e-3 } }, 'x')).toThrow(
    /it has contrast in stage encoder, expected contrastive/,
  )
  expect(() => contrastSettings(tinyClip, { contrast: { textEncoder: { ...tower, heads: 3 } }, length: 8 })).toThrow(
    /text width 8 is not a multiple of its 3 heads/,
  )
  expect(() => contrastSettings(tinySiglip, { contrast: { embedding: 4 }, length: 8 })).toThrow(
    /texts become 4 numbers and pictures 8/,
  )
})

describe('a run', { timeout: 120_000 }, () => {
  let base = ''
  beforeAll(async () => {
    base = await writeTinyLesson()
    const rows: { image: string }[] = JSON.parse(await readFile(join(base, 'data.json'), 'utf8'))
    await writeFile(whole(), JSON.stringify(rows.filter(({ image }) => image !== 'missing.png')))
  })
  afterAll(() => rm(base, { recursive: true, force: true }))

  const whole = () => join(base, 'whole.json')

  const recipeOf = (changes: Record<string, unknown> = {}) =>
    tinyRecipe(base, {
      stage: 'contrastive',
      data: { llava: { file: whole(), validation: whole(), images: join(base, 'pictures') } },
      rates: { visionEncoder: 1e-2, pictureHead: 1e-2, textEncoder: 1e-2, similarity: 1e-2, captioner: 1e-2 },
      contrast: { ...sizes, contrasts: 0, embedding: 8 },
      length: 16,
      batch: 5,
      accumulate: 1,
      ...changes,
    })

  test('learns which caption belongs to which picture', async () => {
    const folder = join(base, 'learned')
    const accuracies: Record<string, number>[] = []
    const losses: number[] = []
    await train(recipeOf({ steps: 60, logEvery: 10, checkpointEvery: 60, validate: { every: 60, batches: 1 } }), {
      folder,
      threads: 1,
      onEvent: (event) => {
        if (event.type === 'validation') accuracies.push(event.accuracy)
        if (event.type === 'step') losses.push(event.loss)
      },
    })
    expect(losses.at(-1)!).toBeLessThan(losses[0]! / 4)
    expect(accuracies.at(-1)!.retrieval).toBeGreaterThanOrEqual(0.8)
  })

  test('ends the same to the bit after an interruption, and gives back the model without the scaffolding', async () => {
    const whole = await train(recipeOf({ steps: 8 }), { folder: join(base, 'whole'), threads: 1 })
    const controller = new AbortController()
    const folder = join(base, 'stopped')
    await train(recipeOf({ steps: 8 }), {
      folder,
      threads: 1,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type === 'checkpoint') controller.abort()
      },
    })
    expect(await readdir(folder)).not.toContain('checkpoint-00000008')
    await train(recipeOf({ steps: 8 }), { folder, threads: 1, resume: true })
    for (const name of ['log.jsonl', 'checkpoint-00000008/state.safetensors']) {
      expect(await readFile(join(folder, name)), name).toEqual(await readFile(join(base, 'whole', name)))
    }
    expect(new Set([...whole.keys()].map(partOf))).toEqual(new Set(['visionEncoder', 'projector', 'languageModel']))
  })

  test('what it made is where the next stage starts', async () => {
    const lesson = await openLesson(tinyRecipe(base, { start: { visionEncoder: join(base, 'whole') } }), { threads: 1 })
    const name = 'visionEncoder.patchEmbedding.weight'
    const value = lesson.startingValue({ name, shape: [8, 3, 4, 4] })
    await lesson.dispose()
    const fresh = initialWeight({ name, shape: [8, 3, 4, 4] }, { seed: 0, depth: 3 })
    expect(value).not.toEqual(fresh)
  })
})
