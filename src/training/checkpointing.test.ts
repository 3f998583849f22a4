import { expect, test } from 'vitest'
import { tinyClip, tinySiglip } from '../checkpoint/tiny-config.fixture.ts'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { adamWDefaults } from './adamw.ts'
import { answerInputs, labelInputs } from './batches.ts'
import { initialWeight } from './initialization.ts'
import { answerLoss, patchLabelLoss } from './objectives.ts'
import { computeGradients, createTrainingStep, disposeTrainingStep, type Inputs } from './training-step.ts'

const [batch, length, labels] = [2, 16, 5]
const models = { clip: { ...tinyClip, featureLayer: -1 }, siglip: tinySiglip }
const cases = (['answers', 'patch-labels'] as const).flatMap((objective) =>
  (['clip', 'siglip'] as const).map((model) => ({ objective, model, config: models[model] })),
)

/**
 * Every part learns, from pixels to answer or label. Not to the bit as the language model alone: where nobody reads its probabilities, the
 * encoder's attention runs fused, and rounds differently from the second pass.
 */
test.each(cases)('checkpointing gives the same loss and gradients, $objective, $model', async ({
  objective,
  config,
}) => {
  const S = config.vision.imageSide
  const P = config.visualTokens
  const wave = Float32Array.from({ length: batch * 3 * S * S }, (_, i) => Math.sin(i * 12.9898))
  const samples = Array.from({ length: batch }, (_, b) => ({
    ids: Int32Array.from({ length }, (_, t) => (t >= 1 && t <= P ? config.imageToken : (3 * b + 7 * t) % 19)),
    loss: Uint8Array.from({ length }, (_, t) => (t > P ? 1 : 0)),
    pictures: [{ start: 1, length: P, views: 1 }],
    answers: [{ start: P + 1, end: length }],
  }))
  const row = (b: number) => {
    const each = (step: number) => Int32Array.from({ length: P }, (_, p) => (b + step * p) % labels)
    return { parts: () => each(2), centers: () => each(3) }
  }
  const inputs: Inputs = {
    pixels: residentTensor('float32', [batch, 3, S, S], { data: wave }),
    ...(objective === 'answers'
      ? answerInputs(samples, { pictureTokens: P, length, tokenCount: batch * (length - P - 1) })
      : labelInputs([row(0), row(1)], { backgrounds: 1, backgroundWeight: 1, share: 1 })),
  }
  const gradientsOf = async (checkpointing: boolean) => {
    const step = await createTrainingStep({
      objective: (weights) =>
        objective === 'answers'
          ? answerLoss(config, weights, { batch, length, form: 'pixels', checkpointing })
          : patchLabelLoss(config, weights, { batch, labels, checkpointing }),
      groupOf: () => 'all',
      startingValue: (weight) => initialWeight(weight, { seed: 5, depth: 2 }),
      optimizer: adamWDefaults,
      threads: 1,
    })
    const loss = await computeGradients(step, [inputs])
    const gradients = new Map([...step.gradients].map(([name, { data }]) => [name, data.slice()]))
    await disposeTrainingStep(step)
    return { loss, gradients }
  }
  const [kept, again] = [await gradientsOf(false), await gradientsOf(true)]
  expect(again.loss).toBeCloseTo(kept.loss, 6)
  expect([...again.gradients.keys()]).toEqual([...kept.gradients.keys()])
  for (const [name, values] of kept.gradients) {
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
    values.forEach((value, index) => {
      expect(Math.abs(value - again.gradients.get(name)![index]!)).toBeLessThanOrEqual(1e-5 * Math.max(1, largest))
    })
  }
})
