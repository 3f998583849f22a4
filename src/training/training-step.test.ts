import { afterEach, describe, expect, test } from 'vitest'
import { tinyClip, tinySiglip } from '../checkpoint/tiny-config.fixture.ts'
import type { LlavaConfig } from '../model/config.ts'
import { languageModel, logits } from '../model/language-model.ts'
import { mergedSequence } from '../model/llava.ts'
import { project } from '../model/projector.ts'
import { patchFeatures } from '../model/vision-encoder.ts'
import { parameters } from '../model/weights.ts'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import { causalMask, constant, input, type Tensor, writeOnnx } from '../tensor/index.ts'
import { adamWDefaults } from './adamw.ts'
import { answerInputs, labelInputs, wordInput, wordTargets } from './batches.ts'
import { captionInputs } from './caption-batches.ts'
import { contrastSettings } from './contrast-settings.ts'
import { contrastiveLoss } from './contrastive.ts'
import { initialWeight } from './initialization.ts'
import { answerLoss, type PictureForm, patchLabelLoss, pictureWordLoss } from './objectives.ts'
import { partOf, type StageName, stages } from './stages.ts'
import {
  computeGradients,
  createTrainingStep,
  disposeTrainingStep,
  type Inputs,
  scoreOnce,
  type TrainingStep,
  trainOnce,
} from './training-step.ts'

const length = 16
const labels = 5
const encoder = { visionEncoder: 3e-3, labelHead: 1e-2, pictureHead: 1e-2, textEncoder: 1e-2, similarity: 1e-2 }
const rates = { ...encoder, projector: 1e-2, languageModel: 1e-2, placeTable: 1e-2, captioner: 1e-2 }

const open: TrainingStep[] = []
afterEach(async () => {
  for (const step of open.splice(0)) await disposeTrainingStep(step)
})

type Setting = { config: LlavaConfig; stage: StageName; batch: number; form?: PictureForm; weightDecay?: number }

async function stepOf({ config, stage, batch, form, weightDecay = 0 }: Setting): Promise<TrainingStep> {
  const { learns, objective, pictures } = stages[stage]
  const step = await createTrainingStep({
    objective: (weights) =>
      objective === 'patch-labels'
        ? patchLabelLoss(config, weights, { batch, labels })
        : objective === 'picture-words'
          ? pictureWordLoss(config, weights, { batch })
          : objective === 'captions'
            ? contrastiveLoss(config, weights, { batch, settings: contrastOf(config) })
            : answerLoss(config, weights, { batch, length, form: form ?? pictures }),
    groupOf: (name) => learns.find((part) => part === partOf(name)),
    startingValue: (weight) => {
      const values = initialWeight(weight, { seed: 5, depth: 2 })
      // A frozen language model must listen to its input: at 0.02 it hardly does.
      const deaf =
        stage === 'feature-alignment' && /^languageModel.*(attention|mlp|head|tokenEmbedding)\./.test(weight.name)
      return deaf ? values.map((x) => x * 15) : values
    },
    optimizer: { ...adamWDefaults, weightDecay },
    threads: 1,
  })
  open.push(step)
  return step
}

const wave = (size: number, seed: number) => Float32Array.from({ length: size }, (_, i) => Math.sin(seed + i * 12.9898))

/** Samples of unequal lengths: a picture at position 1, then text; the second half of the text is learned. */
function encodedSamples(config: LlavaConfig, batch: number) {
  const P = config.visualTokens
  return Array.from({ length: batch }, (_, b) => {
    const tokens = length - (b % 3)
    const isPicture = (t: number) => t >= 1 && t <= P
    const ids = Int32Array.from({ length: tokens }, (_, t) => (isPicture(t) ? config.imageToken : (3 * b + 7 * t) % 19))
    const start = P + 4
    const loss = Uint8Array.from({ length: tokens }, (_, t) => (t >= start ? 1 : 0))
    return {
      ids,
      loss,
      pictures: [{ start: 1, length: config.visualTokens, views: 1 }],
      answers: [{ start, end: tokens }],
    }
  })
}

const countLearned = (samples: ReturnType<typeof encodedSamples>) =>
  samples.reduce((sum, { answers }) => sum + answers[0]!.end - answers[0]!.start, 0)

function pixelsOf(config: LlavaConfig, { batch, first = 0 }: { batch: number; first?: number }) {
  const S = config.vision.imageSide
  const each = 3 * S * S
  const data = new Float32Array(batch * each)
  for (let b = 0; b < batch; b++) data.set(wave(each, 100 * (first + b)), b * each)
  return residentTensor('float32', [batch, 3, S, S], { data })
}

const labelRows = (config: LlavaConfig, batch: number) =>
  Array.from({ length: batch }, (_, b) => {
    const each = (step: number) => Int32Array.from({ length: config.visualTokens }, (_, p) => (b + step * p) % labels)
    return { parts: () => each(2), centers: () => each(3) }
  })

async function featuresOf(config: LlavaConfig, { weights }: TrainingStep | { weights: undefined }, batch: number) {
  const pixels = pixelsOf(config, { batch })
  const graph = writeOnnx(
    { features: patchFeatures(config, parameters, input('pixels', 'float32', pixels.shape)) },
    { parameters: 'inputs' },
  )
  const values = graph.parameters.map(({ name, shape }) => {
    const sizes = shape.map(Number)
    const data = initialWeight({ name, shape: sizes }, { seed: 5, depth: 2 })
    return [name, weights?.get(name) ?? residentTensor('float32', sizes, { data })] as const
  })
  const session = await createSession(graph.model, { threads: 1 })
  const { features } = await run(session, { pixels, ...Object.fromEntries(values) })
  await disposeSession(session)
  return features!
}

const tower = { width: 8, depth: 1, heads: 2 }
const contrastOf = (config: LlavaConfig) =>
  contrastSettings(config, { contrast: { textEncoder: tower, captioner: tower, contrasts: 1 }, length: 6 })

async function inputsOf({ config, stage, batch, form }: Setting): Promise<Inputs> {
  if (stages[stage].objective === 'patch-labels') {
    return {
      pixels: pixelsOf(config, { batch }),
      ...labelInputs(labelRows(config, batch), { backgrounds: 1, backgroundWeight: 1, share: 1 }),
    }
  }
  if (stages[stage].objective === 'captions') {
    const captions = Array.from({ length: batch }, (_, b) => ({
      ids: [1, 4 + b, 9, 2],
      contrasts: [{ fact: 'category', ids: [1, 4 + b, 10, 11, 2] }],
    }))
    const options = { config, settings: contrastOf(config), share: 1 }
    return { pixels: pixelsOf(config, { batch }), ...captionInputs(captions, options) }
  }
  if (stages[stage].objective === 'picture-words') {
    const weighing = { backgrounds: 1, backgroundWeight: 1, share: 1 }
    return {
      features: await featuresOf(config, { weights: undefined }, batch),
      ...wordTargets(labelRows(config, batch), { ...weighing, wordIds: [4, 5, 6, 7, 8] }),
    }
  }
  const samples = encodedSamples(config, batch)
  const targets = answerInputs(samples, {
    pictureTokens: config.visualTokens,
    length,
    tokenCount: countLearned(samples),
  })
  switch (form ?? stages[stage].pictures) {
    case 'pixels':
      return { ...targets, pixels: pixelsOf(config, { batch }) }
    case 'features':
      return { ...targets, features: await featuresOf(config, { weights: undefined }, batch) }
    case 'words':
      return {
        ...targets,
        ...wordInput(labelRows(config, batch), {
          wordIds: [4, 5, 6, 7, 8],
          count: config.visualTokens,
          backgrounds: 1,
        }),
      }
  }
}

const models = { clip: { ...tinyClip, featureLayer: -1 }, siglip: tinySiglip }
const settings = (Object.keys(stages) as StageName[]).flatMap((stage) =>
  (['clip', 'siglip'] as const).map((model) => ({ stage, model, config: models[model] })),
)

/** What may remain of the loss after 40 steps, where it is not half: a projector alone can do little, an encoder has two tasks. */
const learnedShare: Partial<Record<StageName, number>> = {
  'feature-alignment': 0.9,
  'word-alignment': 0.9,
  encoder: 0.7,
}

describe('a training step', () => {
  test.each(settings)('of stage $stage learns one batch by heart, $model', async ({ stage, config }) => {
    const setting = { stage, config, batch: 2 }
    const [step, batch] = [await stepOf(setting), await inputsOf(setting)]
    const losses: number[] = []
    for (let number = 1; number <= 40; number++) {
      losses.push((await trainOnce(step, { batches: [batch], number, rates })).loss)
    }
    expect(losses[0]).toBeGreaterThan(1)
    expect(losses.at(-1)).toBeLessThan(losses[0]! * (learnedShare[stage] ?? 0.5))
    expect((await scoreOnce(step, batch)).loss).toBeLessThan(losses.at(-1)! * 1.1)
  })

  test.each(settings)('of stage $stage changes the parts that it trains and no other, $model', async ({
    stage,
    config,
  }) => {
    const setting = { stage, config, batch: 2, weightDecay: 0.1 }
    const [step, batch] = [await stepOf(setting), await inputsOf(setting)]
    const before = new Map([...step.weights].map(([name, { data }]) => [name, data.slice()]))
    await trainOnce(step, { batches: [batch], number: 1, rates })
    const changed = [...step.weights].filter(([name, { data }]) => data.some((x, i) => x !== before.get(name)![i]))
    const parts = new Set(changed.map(([name]) => partOf(name)))
    expect(parts).toEqual(new Set(stages[stage].learns))
    expect(changed.map(([name]) => name).sort()).toEqual(step.trained.map(({ name }) => name).sort())
    const frozen = [...step.weights.keys()].filter((name) => !parts.has(partOf(name)))
    expect(frozen.length > 0).toBe(stage.endsWith('-alignment'))
  })

  test('over two accumulated parts equals one over both', async () => {
    const config = models.clip
    const samples = encodedSamples(config, 4)
    const tokenCount = countLearned(samples)
    const features = await featuresOf(config, { weights: undefined }, 4)
    const part = (from: number, to: number) => ({
      ...answerInputs(samples.slice(from, to), { pictureTokens: config.visualTokens, length, tokenCount }),
      features: residentTensor('float32', [to - from, 4, 8], {
        data: (features.data as Float32Array).slice(from * 32, to * 32),
      }),
    })
    const [halves, whole] = [
      await stepOf({ config, stage: 'instruction-tuning', batch: 2 }),
      await stepOf({ config, stage: 'instruction-tuning', batch: 4 }),
    ]
    const parts = [part(0, 2), part(2, 4)]
    expect(await computeGradients(halves, parts)).toBeCloseTo(await computeGradients(whole, [part(0, 4)]), 5)
    for (const [name, { data }] of whole.gradients) {
      data.forEach((value, i) => {
        expect(Math.abs(value - halves.gradients.get(name)!.data[i]!)).toBeLessThan(1e-5)
      })
    }
    const one = await trainOnce(halves, { batches: parts, number: 1, rates })
    const other = await trainOnce(whole, { batches: [part(0, 4)], number: 1, rates })
    expect(one.gradientNorm).toBeCloseTo(other.gradientNorm, 5)
  })

  test.each(['clip', 'siglip'] as const)('gives the same loss from pixels as from features, %s', async (model) => {
    const config = models[model]
    const losses = await Promise.all(
      (['pixels', 'features'] as const).map(async (form) => {
        const setting = { config, stage: 'instruction-tuning', batch: 3, form } as const
        return (await scoreOnce(await stepOf(setting), await inputsOf(setting))).loss
      }),
    )
    expect(losses[0]).toBeCloseTo(losses[1]!, 5)
  })

  test('refuses a stage in which everything is frozen', async () => {
    const options = {
      objective: (weights: Parameters<typeof patchLabelLoss>[1]) =>
        patchLabelLoss(models.clip, weights, { batch: 1, labels }),
      groupOf: () => undefined,
      startingValue: (weight: { name: string; shape: readonly number[] }) =>
        initialWeight(weight, { seed: 0, depth: 1 }),
      optimizer: adamWDefaults,
    }
    await expect(createTrainingStep(options)).rejects.toThrow('every weight of this stage is frozen')
  })

  test('stops at a loss that is not a number', async () => {
    const setting = { config: models.clip, stage: 'encoder', batch: 1 } as const
    const [step, batch] = [await stepOf(setting), await inputsOf(setting)]
    ;(batch.pixels!.data as Float32Array)[0] = Number.NaN
    await expect(trainOnce(step, { batches: [batch], number: 7, rates })).rejects.toThrow('the loss is NaN at step 7')
  })
})

describe('answerLoss', () => {
  test.each([
    'clip',
    'siglip',
  ] as const)('is the mean of −log p over the answers, as plain loops say, %s', async (model) => {
    const config = models[model]
    const batch = 3
    const setting = { config, stage: 'instruction-tuning', batch } as const
    const step = await stepOf(setting)
    const samples = encodedSamples(config, batch)
    const scores = await logitsEverywhere(step, { config, samples, features: await featuresOf(config, step, batch) })
    const V = config.language.vocabulary
    const costs = samples.flatMap(({ ids, loss }, b) =>
      [...ids].flatMap((id, t) => {
        if (loss[t] !== 1) return []
        const row = [...scores.slice((b * length + t - 1) * V, (b * length + t) * V)]
        return [Math.log(row.reduce((sum, score) => sum + Math.exp(score), 0)) - row[id]!]
      }),
    )
    const expected = costs.reduce((sum, cost) => sum + cost, 0) / costs.length
    expect((await scoreOnce(step, await inputsOf(setting))).loss).toBeCloseTo(expected, 5)
  })
})

/** Logits of every position [B, L, V] by a graph without targets. */
async function logitsEverywhere(
  step: TrainingStep,
  {
    config,
    samples,
    features,
  }: {
    config: LlavaConfig
    samples: ReturnType<typeof encodedSamples>
    features: Awaited<ReturnType<typeof featuresOf>>
  },
): Promise<Float32Array> {
  const batch = samples.length
  const { ids, places } = answerInputs(samples, { pictureTokens: config.visualTokens, length, tokenCount: 1 })
  const tokens = project(config, parameters, input('features', 'float32', features.shape))
  const pictures = { tokens, places: input('places', 'int64', places!.shape) }
  const embeddings = mergedSequence(config, parameters, { ids: input('ids', 'int64', [batch, length]), pictures })
  const positions: Tensor = input('positions', 'int64', [batch, length])
  const context = { kind: 'whole', positions, mask: constant('float32', [length, length], causalMask(length)) } as const
  const { hidden } = languageModel(config.language, parameters, { embeddings, context })
  const graph = writeOnnx({ scores: logits(config.language, parameters, hidden) }, { parameters: 'inputs' })
  const session = await createSession(graph.model, { threads: 1 })
  const given = Object.fromEntries(graph.parameters.map(({ name }) => [name, step.weights.get(name)!]))
  const index = BigInt64Array.from({ length: batch * length }, (_, i) => BigInt(i % length))
  const { scores } = await run(session, {
    ...given,
    ids: ids!,
    places: places!,
    features,
    positions: residentTensor('int64', [batch, length], { data: index }),
  })
  await disposeSession(session)
  return scores!.data as Float32Array
}
