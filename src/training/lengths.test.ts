import { afterEach, expect, test } from 'vitest'
import { tinyClip } from '../checkpoint/tiny-config.fixture.ts'
import { adamWDefaults } from './adamw.ts'
import { answerInputs, type EncodedSample, stacked } from './batches.ts'
import { initialWeight } from './initialization.ts'
import { answerLoss } from './objectives.ts'
import { partOf } from './stages.ts'
import {
  computeGradients,
  createTrainingStep,
  disposeTrainingStep,
  scoreOnce,
  type TrainingStep,
} from './training-step.ts'

const config = { ...tinyClip, featureLayer: -1 }
const P = config.visualTokens

const open: TrainingStep[] = []
afterEach(async () => {
  for (const step of open.splice(0)) await disposeTrainingStep(step)
})

async function stepOf(length: number, lengths?: readonly number[]): Promise<TrainingStep> {
  const step = await createTrainingStep({
    objective: (weights, options) => answerLoss(config, weights, { batch: 1, length, ...options, form: 'features' }),
    lengths,
    groupOf: partOf,
    startingValue: (weight) => initialWeight(weight, { seed: 5, depth: 2 }),
    optimizer: adamWDefaults,
    threads: 1,
  })
  open.push(step)
  return step
}

const sample = (tokens: number): EncodedSample => ({
  ids: Int32Array.from({ length: tokens }, (_, t) => (t >= 1 && t <= P ? config.imageToken : (7 * t) % 19)),
  loss: Uint8Array.from({ length: tokens }, (_, t) => (t >= tokens - 4 ? 1 : 0)),
  pictures: [{ start: 1, length: P, views: 1 }],
  answers: [{ start: tokens - 4, end: tokens }],
})
const batchOf = (tokens: number, length: number) => ({
  ...answerInputs([sample(tokens)], { pictureTokens: P, length, tokenCount: 8 }),
  features: stacked([Float32Array.from({ length: P * config.vision.width }, (_, i) => Math.sin(tokens + i))], {
    shape: [P, config.vision.width],
  }),
})

test('batches of several lengths share weights and gradients, and learn what they would at full length', async () => {
  const [mixed, full] = [await stepOf(24, [12, 16]), await stepOf(24)]
  const short = [batchOf(12, 12), batchOf(15, 16)]
  const long = [batchOf(12, 24), batchOf(15, 24)]
  expect(await computeGradients(mixed, short)).toBeCloseTo(await computeGradients(full, long), 5)
  for (const [name, { data }] of full.gradients) {
    const other = mixed.gradients.get(name)!.data
    expect(
      data.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i]!)), 0),
      name,
    ).toBeLessThan(1e-5)
  }
  expect((await scoreOnce(mixed, short[0]!)).loss).toBeCloseTo((await scoreOnce(full, long[0]!)).loss, 5)
})

test('a length is compiled when its first batch comes, and once', async () => {
  const step = await stepOf(24, [12, 16])
  expect(step.shorter.compiled.size).toBe(0)
  await computeGradients(step, [batchOf(20, 24)])
  expect(step.shorter.compiled.size).toBe(0)
  await computeGradients(step, [batchOf(12, 12)])
  const compiled = step.shorter.compiled.get(12)
  await computeGradients(step, [batchOf(11, 12)])
  expect([...step.shorter.compiled]).toEqual([[12, compiled]])
})
