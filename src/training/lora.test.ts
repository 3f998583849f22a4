import { readdir, readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { mergeAdapter, readAdapter } from '../checkpoint/lora.ts'
import { saveCheckpoint } from '../checkpoint/save.ts'
import { tinyClip } from '../checkpoint/tiny-config.fixture.ts'
import type { LlavaConfig } from '../model/config.ts'
import { parameters } from '../model/weights.ts'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { adamWDefaults } from './adamw.ts'
import { answerInputs } from './batches.ts'
import { initialWeight } from './initialization.ts'
import { adaptedLayers, adaptedWeights, isAdapter, learnedAdapter, learningPart } from './lora.ts'
import { answerLoss } from './objectives.ts'
import { parseRecipe, type Recipe, readRecipe } from './recipe.ts'
import { train } from './run.ts'
import { readState } from './run-checkpoint.ts'
import { tinyConfig, tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'
import { computeGradients, createTrainingStep, disposeTrainingStep, scoreOnce, trainOnce } from './training-step.ts'

const lora = { rank: 2, alpha: 6, targets: ['attention.query', 'mlp.down'] }
const rates = { projector: 1e-2, languageModel: 1e-2 }
const start = { languageModel: 'base' }
const recipe = { name: 'test', lora, rates, start }
const named = (targets: string[], change: Partial<Pick<Recipe, 'rates' | 'start'>> = {}) => [
  ...adaptedLayers({ ...recipe, lora: { ...lora, targets }, ...change }, tinyClip),
]
const ofBlocks = (name: string) => [0, 1].map((block) => `languageModel.blocks.${block}.${name}`)

describe('adaptedLayers', () => {
  test('finds layers by the end of their name, by pattern and by their whole name', () => {
    expect(named(['attention.query'])).toEqual(ofBlocks('attention.query'))
    expect(named(['languageModel.blocks.1.mlp.*'])).toEqual(
      ['gate', 'up', 'down'].map((name) => `languageModel.blocks.1.mlp.${name}`),
    )
    expect(named(['head', 'mlp.up', 'languageModel.blocks.0.mlp.up'])).toEqual([
      'languageModel.head',
      ...ofBlocks('mlp.up'),
    ])
    expect(named(['blocks.*.*.*'])).toHaveLength(2 * 7) // every layer but the head, as in LLaVA
  })

  test('finds them only in parts that learn, and in blocks that are used', () => {
    const vision = { rates: { visionEncoder: 1e-3 }, start: { visionEncoder: 'base' } }
    expect(named(['attention.query'], vision)).toEqual(
      [0, 1].map((block) => `visionEncoder.blocks.${block}.attention.query`), // the third block comes after the features
    )
  })

  test('finds none without lora', () => {
    expect(adaptedLayers({ ...recipe, lora: undefined }, tinyClip).size).toBe(0)
  })

  test.each([
    'attention.qery',
    'query.attention',
    'tion.query',
    'norm1',
    'tokenEmbedding',
    'visionEncoder.*.*.mlp.up',
  ])('refuses %s, which names no linear layer that learns', (target) => {
    expect(() => named(['mlp.up', target])).toThrow(
      `Cannot use recipe test: lora target ${target} names no linear layer of projector, languageModel, expected some of projector.layers.0, projector.layers.1, attention.query, attention.key, attention.value, attention.output, mlp.gate, mlp.up, mlp.down, languageModel.head`,
    )
  })

  test('refuses to adapt what starts at random', () => {
    expect(() => named(['mlp.up'], { start: {} })).toThrow(
      'Cannot use recipe test: lora adapts languageModel, which starts at random, expected a folder in start.languageModel',
    )
  })
})

test('the weight source is the same one without lora, so that the graph is, too', () => {
  expect(adaptedWeights(parameters, { lora: undefined, layers: new Set() })).toBe(parameters)
})

test('an adapted part learns its adapters alone, another part as a whole', () => {
  const layers = adaptedLayers(recipe, tinyClip)
  const part = (name: string) => learningPart(name, { rates, layers })
  expect(part('languageModel.blocks.0.attention.query.lora.A')).toBe('languageModel')
  for (const name of ['attention.query.weight', 'attention.key.weight', 'norm1.weight']) {
    expect(part(`languageModel.blocks.0.${name}`)).toBeUndefined()
  }
  expect(part('projector.layers.0.bias')).toBe('projector')
  expect(part('visionEncoder.preNorm.weight')).toBeUndefined()
})

describe('a training step', () => {
  const length = 12
  const config: LlavaConfig = tinyClip
  const random = (name: string, shape: readonly number[]) => initialWeight({ name, shape }, { seed: 3, depth: 2 })
  const weightOf = ({ name, shape }: { name: string; shape: readonly number[] }) => random(name, shape)
  /** B as if it had learned already. */
  const learned = ({ name, shape }: { name: string; shape: readonly number[] }) =>
    name.endsWith('.lora.B') ? random(name.replace('.B', '.A'), shape) : random(name, shape)

  const stepWith = (settings: Recipe['lora'], startingValue = weightOf) => {
    const layers = adaptedLayers({ ...recipe, lora: settings }, config)
    return createTrainingStep({
      objective: (base) =>
        answerLoss(config, adaptedWeights(base, { lora: settings, layers }), { batch: 2, length, form: 'features' }),
      groupOf: (name) => learningPart(name, { rates, layers }),
      startingValue,
      optimizer: adamWDefaults,
      threads: 1,
    })
  }
  const inputs = () => {
    const [P, C] = [config.visualTokens, config.vision.width]
    const ids = Int32Array.from({ length }, (_, t) => (t >= 1 && t <= P ? config.imageToken : (5 * t) % 17))
    const loss = Uint8Array.from({ length }, (_, t) => (t >= 8 ? 1 : 0))
    const sample = { ids, loss, pictures: [{ start: 1, length: P, views: 1 }], answers: [{ start: 8, end: length }] }
    const data = Float32Array.from({ length: 2 * P * C }, (_, i) => Math.sin(i))
    return {
      ...answerInputs([sample, sample], { pictureTokens: P, length, tokenCount: 8 }),
      features: residentTensor('float32', [2, P, C], { data }),
    }
  }

  test('begins with the loss of the model without adapters, to the bit', async () => {
    const [plain, adapted] = [await stepWith(undefined), await stepWith(lora)]
    expect((await scoreOnce(adapted, inputs())).loss).toBe((await scoreOnce(plain, inputs())).loss)
    await Promise.all([plain, adapted].map(disposeTrainingStep))
  })

  test('has the gradients of central differences for A and B', async () => {
    const step = await stepWith(lora, learned)
    await computeGradients(step, [inputs()])
    const adapters = step.trained.filter(({ name }) => isAdapter(name))
    expect(adapters).toHaveLength(2 * 2 * 2)
    for (const { name } of adapters) {
      const values = step.weights.get(name)!.data
      const slope = step.gradients.get(`gradient:${name}`)!.data
      const direction = Float32Array.from(values, (_, i) => Math.cos(3 * i + name.length))
      const origin = values.slice()
      const lossAt = async (epsilon: number) => {
        values.set(origin.map((value, i) => value + epsilon * direction[i]!))
        const { loss } = await scoreOnce(step, inputs())
        values.set(origin)
        return loss
      }
      const epsilon = 2e-2
      const coarse = ((await lossAt(epsilon)) - (await lossAt(-epsilon))) / (2 * epsilon)
      const fine = ((await lossAt(epsilon / 2)) - (await lossAt(-epsilon / 2))) / epsilon
      const analytic = slope.reduce((total, value, i) => total + value * direction[i]!, 0)
      const scale = Math.hypot(...slope.map((value, i) => value * direction[i]!))
      expect(scale).toBeGreaterThan(1e-3)
      expect(Math.abs(analytic - (4 * fine - coarse) / 3) / scale).toBeLessThan(1e-2)
    }
    await disposeTrainingStep(step)
  })

  test('scores as the merged weights do', async () => {
    const adapted = await stepWith(lora, learned)
    const layers = adaptedLayers(recipe, config)
    const adapter = learnedAdapter({ recipe, layers }, { trained: adapted.weights, model: new Map() })
    const merged = await mergeAdapter(adapted.weights, adapter!)
    const plain = await stepWith(undefined, ({ name }) => merged.get(name)!.data)
    const bare = await stepWith(undefined)
    const [own, others, before] = await Promise.all([adapted, plain, bare].map((step) => scoreOnce(step, inputs())))
    const numbers = (scored: typeof own) => Array.from(scored!.scores.data as Float32Array)
    const distanceTo = (other: typeof own) => {
      const given = numbers(other)
      return Math.max(...numbers(own).map((value, i) => Math.abs(value - given[i]!)))
    }
    expect(distanceTo(others)).toBeLessThan(1e-5)
    expect(distanceTo(before)).toBeGreaterThan(1e-2)
    await Promise.all([adapted, plain, bare].map(disposeTrainingStep))
  })

  test('leaves the base weights as they are, to the bit, and moves the rest', async () => {
    const step = await stepWith(lora)
    const before = new Map([...step.weights].map(([name, { data }]) => [name, data.slice()]))
    for (let number = 1; number <= 5; number++) await trainOnce(step, { batches: [inputs()], number, rates })
    for (const [name, { data }] of step.weights) {
      const same = data.every((value, i) => Object.is(value, before.get(name)![i]))
      expect([name, same]).toEqual([name, !isAdapter(name) && !name.startsWith('projector.')])
    }
    await disposeTrainingStep(step)
  })
})

describe('a run', () => {
  let folder = ''
  const settings = { rank: 2, alpha: 4, targets: ['attention.*', 'mlp.down'] }
  const tuned = (change: Record<string, unknown> = {}) => {
    const from = join(folder, 'base')
    return tinyRecipe(folder, {
      lora: settings,
      start: { languageModel: from, projector: from },
      steps: 12,
      validate: undefined,
      ...change,
    })
  }
  beforeAll(async () => {
    folder = await writeTinyLesson()
    await train(tinyRecipe(folder, { steps: 2, validate: undefined }), { folder: join(folder, 'base'), threads: 1 })
  })
  afterAll(() => rm(folder, { recursive: true, force: true }))

  const stateOf = (run: string, step: number) => join(folder, run, `checkpoint-${String(step).padStart(8, '0')}`)

  test('stores adapters and what learns whole, and goes on as if it had never stopped', async () => {
    await train(tuned(), { folder: join(folder, 'unbroken'), threads: 1 })
    const names = [...(await readState(stateOf('unbroken', 12))).keys()].filter((name) => !name.includes(':'))
    expect(names.filter(isAdapter)).toHaveLength(2 * 2 * 5)
    expect(names.filter((name) => !isAdapter(name)).every((name) => name.startsWith('projector.'))).toBe(true)

    const controller = new AbortController()
    await train(tuned(), {
      folder: join(folder, 'stopped'),
      threads: 1,
      signal: controller.signal,
      onEvent: ({ type }) => type === 'checkpoint' && controller.abort(),
    })
    expect(await readdir(join(folder, 'stopped'))).not.toContain('checkpoint-00000012')
    await train(tuned(), { folder: join(folder, 'stopped'), threads: 1, resume: true })
    const bytes = (run: string, file: string) => readFile(join(folder, run, file))
    for (const file of ['checkpoint-00000012/state.safetensors', 'adapter/adapter_model.safetensors', 'log.jsonl']) {
      expect((await bytes('stopped', file)).equals(await bytes('unbroken', file))).toBe(true)
    }
  }, 60_000)

  test('drops the same of what enters adapters when it goes on, and when blocks are computed twice', async () => {
    const lossesOf = async (run: string, change: Record<string, unknown>, steps = 3) => {
      const recipe = tuned({ steps, logEvery: 1, checkpointEvery: 1, ...change })
      await train(recipe, { folder: join(folder, run), threads: 1, resume: run === 'dropped' })
      const lines = (await readFile(join(folder, run, 'log.jsonl'), 'utf8')).trim().split('\n')
      return lines.flatMap((line) => JSON.parse(line).loss ?? [])
    }
    const dropped = { lora: { ...settings, dropout: 0.5 } }
    const controller = new AbortController()
    await train(tuned({ steps: 3, logEvery: 1, checkpointEvery: 1, ...dropped }), {
      folder: join(folder, 'dropped'),
      threads: 1,
      signal: controller.signal,
      onEvent: ({ type }) => type === 'checkpoint' && controller.abort(),
    })
    const losses = await lossesOf('dropped', dropped)
    expect(losses).toHaveLength(3)
    expect(losses).toEqual(await lossesOf('dropped-unbroken', dropped))
    const twice = await lossesOf('dropped-recomputed', { ...dropped, checkpointing: true })
    for (const [index, loss] of twice.entries()) expect(Math.abs(loss - losses[index]!)).toBeLessThan(1e-5)
    // B begins at 0, so the first step's loss tells nothing of dropout; the next ones do.
    const plain = await lossesOf('not-dropped', { lora: settings })
    expect(plain[0]).toBe(losses[0])
    expect(plain.slice(1)).not.toEqual(losses.slice(1))
    const config = JSON.parse(await readFile(join(folder, 'dropped', 'adapter', 'adapter_config.json'), 'utf8'))
    expect(config.lora_dropout).toBe(0.5)
  }, 60_000)

  test('returns its model merged: what its adapter makes of the model it started from', async () => {
    const trained = await train(tuned(), { folder: join(folder, 'run'), threads: 1 })
    const none = { steps: 1, rates: { projector: 1e-30, languageModel: 1e-30 }, lora: undefined }
    const base = await train(tuned(none), { folder: join(folder, 'nothing'), threads: 1 })
    const adapter = await readAdapter(join(folder, 'run', 'adapter'))
    expect(adapter).toMatchObject({ base: join(folder, 'base'), rank: 2, alpha: 4 })
    expect([...adapter.whole.keys()].every((name) => name.startsWith('projector.'))).toBe(true)
    expect(await mergeAdapter(base, adapter)).toEqual(trained)
    const changed = [...trained].filter(([name, { data }]) =>
      data.some((value, i) => value !== base.get(name)!.data[i]),
    )
    const layers = [...adapter.layers.keys()].map((layer) => `${layer}.weight`)
    expect(new Set(changed.map(([name]) => name))).toEqual(new Set([...layers, ...adapter.whole.keys()]))
  }, 60_000)

  test('answers as its merged model does', async () => {
    const from = join(folder, 'run', 'merged')
    const trained = await train(tuned({ validate: { every: 12, batches: 2 } }), {
      folder: join(folder, 'scored'),
      threads: 1,
    })
    await saveCheckpoint(from, { config: tinyConfig, weights: trained })
    const still = {
      lora: undefined,
      start: { visionEncoder: from, languageModel: from, projector: from },
      rates: { projector: 1e-30 },
      steps: 1,
      validate: { every: 1, batches: 2 },
    }
    await train(tuned(still), { folder: join(folder, 'merged'), threads: 1 })
    const lossOf = async (run: string) => {
      const lines = (await readFile(join(folder, run, 'log.jsonl'), 'utf8')).trim().split('\n')
      return lines.map((line) => JSON.parse(line)).find(({ type }) => type === 'validation').loss
    }
    expect(Math.abs((await lossOf('merged')) - (await lossOf('scored')))).toBeLessThan(1e-5)
  }, 60_000)

  test('is nothing to start another run from, whose frozen weights it does not hold', async () => {
    const again = tuned({ start: { languageModel: join(folder, 'run') } })
    await expect(train(again, { folder: join(folder, 'again') })).rejects.toThrow(
      /^Cannot start languageModel from .*run: it holds LoRA adapters only, expected the model of that run$/,
    )
  })

  test('is refused before anything is written when a target names no layer', async () => {
    const wrong = tuned({ lora: { ...settings, targets: ['attention.qery'] } })
    await expect(train(wrong, { folder: join(folder, 'wrong') })).rejects.toThrow(
      /^Cannot use recipe tiny: lora target/,
    )
    expect(await readdir(folder)).not.toContain('wrong')
  })
})

describe('a recipe', () => {
  const read = (change: unknown) => () => parseRecipe({ ...tinyRecipe('x'), lora: change }, 'r')

  test.each([
    [{ ...lora, rank: 0 }, /lora\.rank/],
    [{ ...lora, alpha: -1 }, /lora\.alpha/],
    [{ ...lora, targets: [] }, /lora\.targets/],
    [{ ...lora, targets: ['(a|b)'] }, /lora\.targets\.0 is "\(a\|b\)", expected names with dots between/],
    [{ ...lora, dropout: 1 }, /lora\.dropout/],
  ])('says what is wrong with %o', (change, message) => {
    expect(read(change)).toThrow(TypeError)
    expect(read(change)).toThrow(message)
  })

  test('of this repository can be read', async () => {
    const recipes = new URL('../../recipes/lora/', import.meta.url).pathname
    for (const name of await readdir(recipes))
      expect((await readRecipe(join(recipes, name))).lora?.rank).toBeGreaterThan(0)
  })
})
