/** Training on a GPU against training on the CPU. */

import { rm } from 'node:fs/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { disposeBatch, makeBatch } from '../src/training/batch-maker.ts'
import { openLesson } from '../src/training/lesson.ts'
import { tinyRecipe, writeTinyLesson } from '../src/training/tiny-lesson.fixture.ts'
import { fetchState } from '../src/training/training-state.ts'
import { createTrainingStep, disposeTrainingStep, trainOnce } from '../src/training/training-step.ts'
import { missingDriver } from './webgpu-driver.ts'

test.runIf(missingDriver !== undefined)('a machine without a GPU is told so in one sentence', () => {
  expect(missingDriver).toMatch(/^Cannot create session on device webgpu: [^\n]*$/)
})

let folder: string
beforeAll(async () => {
  folder = await writeTinyLesson()
})
afterAll(() => rm(folder, { recursive: true, force: true }))

/** Two updates, each from two batches: what the loss was, and the moments of the optimizer afterwards. */
async function trained(device: 'cpu' | 'webgpu') {
  const rates = { visionEncoder: 1e-3, projector: 1e-3, languageModel: 1e-3 }
  const recipe = tinyRecipe(folder, { stage: 'single-stage', rates })
  const lesson = await openLesson(recipe, { threads: 1 })
  const { optimizer, lengths, accumulate: parts } = recipe
  const step = await createTrainingStep({ ...lesson, lengths, optimizer, device, threads: 1 })
  try {
    const losses: number[] = []
    let position = { cursor: 0, skipped: 0 }
    for (const number of [1, 2]) {
      const batch = await makeBatch(lesson, { source: lesson.source, position, parts })
      position = batch.position
      const { loss, gradientNorm } = await trainOnce(step, { batches: batch.inputs, number, rates })
      losses.push(loss, gradientNorm)
      disposeBatch(batch)
    }
    await fetchState(step.state)
    return { losses, moments: new Map([...step.moments].map(([name, { data }]) => [name, data.slice()])) }
  } finally {
    await disposeTrainingStep(step)
    await lesson.dispose()
  }
}

test.skipIf(missingDriver !== undefined)(
  'all parts learn the same on device webgpu as on the CPU',
  async () => {
    const cpu = await trained('cpu')
    const gpu = await trained('webgpu')
    for (const [index, value] of cpu.losses.entries()) expect(gpu.losses[index]! / value).toBeCloseTo(1, 4)
    for (const [name, values] of cpu.moments) {
      const size = Math.hypot(...values)
      const away = Math.hypot(...values.map((value, i) => value - gpu.moments.get(name)![i]!))
      // The gradient of a key's bias is 0 in theory: softmax does not see what all keys share.
      expect(away, name).toBeLessThan(1e-3 * size + 1e-8)
    }
  },
  180_000,
)
