/** A training run: samples in, updates made, progress told, checkpoints written. The life of one recipe, top to bottom. */

import { join } from 'node:path'
import type { Weights } from '../checkpoint/load.ts'
import type { ResidentTensor } from '../runtime/resident-tensor.ts'
import { type Batch, batchMaker } from './batch-maker.ts'
import { openLesson } from './lesson.ts'
import type { Recipe } from './recipe.ts'
import {
  appendLog,
  latestCheckpoint,
  logLength,
  openRunFolder,
  type Progress,
  readCheckpoint,
  writeCheckpoint,
} from './run-folder.ts'
import { scheduleFactor } from './schedule.ts'
import { createTrainingStep, disposeTrainingStep, scoreOnce, type TrainingStep, trainOnce } from './training-step.ts'
import { shares, type Tally, tallyAnswers, tallyLabels } from './validation.ts'

export type TrainingEvent =
  | {
      readonly type: 'start'
      readonly step: number
      readonly steps: number
      readonly trained: Readonly<Record<string, number>>
      readonly frozen: number
    }
  | {
      readonly type: 'step'
      readonly step: number
      readonly loss: number
      readonly gradientNorm: number
      /** Factor on the peak learning rates. */
      readonly schedule: number
      readonly picturesPerSecond: number
      readonly tokensPerSecond: number
    }
  | {
      readonly type: 'validation'
      readonly step: number
      readonly loss: number
      readonly accuracy: Readonly<Record<string, number>>
    }
  | { readonly type: 'checkpoint'; readonly step: number; readonly path: string }
  | { readonly type: 'skipped'; readonly sample: string; readonly reason: string }
  | { readonly type: 'end'; readonly step: number; readonly seconds: number; readonly skipped: number }

export type TrainingOptions = {
  /** Where recipe, log and checkpoints go. */
  readonly folder: string
  /** Go on from the newest checkpoint in the folder, if there is one. */
  readonly resume?: boolean
  readonly threads?: number
  /** Ends the run after the current step, with a checkpoint. */
  readonly signal?: AbortSignal | undefined
  readonly onEvent?: (event: TrainingEvent) => void
}

/** Trains as the recipe says; returns the trained weights by canonical name, frozen parts included. */
export async function train(recipe: Recipe, options: TrainingOptions): Promise<Weights> {
  const { folder, resume = false, threads, signal, onEvent = () => {} } = options
  const lesson = await openLesson(recipe, { ...(threads !== undefined && { threads }) })
  await openRunFolder(folder, { recipe, resume })
  const step = await createTrainingStep({
    objective: lesson.objective,
    groupOf: lesson.groupOf,
    startingValue: lesson.startingValue,
    optimizer: recipe.optimizer,
    ...(threads !== undefined && { threads }),
  })
  try {
    const tensors = new Map([...trainedOf(step), ...step.moments])
    let progress: Progress = { step: 0, cursor: 0, logBytes: 0, skipped: 0 }
    const from = resume ? await latestCheckpoint(folder) : undefined
    if (from !== undefined) progress = await readCheckpoint(from, { tensors, folder })

    onEvent({ type: 'start', step: progress.step, steps: recipe.steps, ...countWeights(step) })
    const started = performance.now()
    const batches = batchMaker(lesson, { cursor: progress.cursor, skipped: progress.skipped, onEvent })
    let upcoming = batches.next()
    let { skipped } = progress
    let saved = progress.step
    const window = { since: performance.now(), pictures: 0, tokens: 0, loss: 0, steps: 0 }

    for (let number = progress.step + 1; number <= recipe.steps; number++) {
      const batch = await upcoming
      upcoming = batches.next() // the next batch is made while this one is computed
      upcoming.catch(() => {}) // a failure is reported when the batch is asked for
      const factor = scheduleFactor(recipe.schedule, { step: number - 1, steps: recipe.steps })
      const rates = Object.fromEntries(Object.entries(recipe.rates).map(([part, rate]) => [part, rate * factor]))
      const { loss, gradientNorm } = await trainOnce(step, { batches: batch.inputs, number, rates })
      skipped = batch.skipped

      Object.assign(window, { pictures: window.pictures + batch.pictures, tokens: window.tokens + batch.tokens })
      Object.assign(window, { loss: window.loss + loss, steps: window.steps + 1 })
      if (number % recipe.logEvery === 0 || number === recipe.steps) {
        const seconds = (performance.now() - window.since) / 1000
        const event = {
          type: 'step',
          step: number,
          loss: window.loss / window.steps,
          gradientNorm,
          schedule: factor,
          picturesPerSecond: window.pictures / seconds,
          tokensPerSecond: window.tokens / seconds,
        } as const
        await appendLog(folder, event)
        onEvent(event)
        Object.assign(window, { since: performance.now(), pictures: 0, tokens: 0, loss: 0, steps: 0 })
      }
      const last = number === recipe.steps || signal?.aborted === true
      if (recipe.validate !== undefined && (number % recipe.validate.every === 0 || number === recipe.steps)) {
        const validation = {
          type: 'validation',
          step: number,
          ...(await validate(step, await lesson.validationBatches())),
        } as const
        await appendLog(folder, validation)
        onEvent(validation)
        window.since = performance.now()
      }
      if (last || number % recipe.checkpointEvery === 0) {
        const now = { step: number, cursor: batch.cursor, logBytes: await logLength(folder), skipped }
        await writeCheckpoint(folder, { tensors, progress: now, keep: recipe.keepCheckpoints })
        saved = number
        onEvent({
          type: 'checkpoint',
          step: number,
          path: join(folder, `checkpoint-${String(number).padStart(8, '0')}`),
        })
      }
      if (signal?.aborted === true) break
    }
    await upcoming.catch(() => {})
    onEvent({ type: 'end', step: saved, seconds: (performance.now() - started) / 1000, skipped })
    return lesson.wholeModel(step.weights)
  } finally {
    await disposeTrainingStep(step)
    await lesson.dispose()
  }
}

async function validate(
  step: TrainingStep,
  batches: readonly Batch[],
): Promise<{ loss: number; accuracy: Record<string, number> }> {
  const tally: Tally = new Map()
  let loss = 0
  for (const { inputs, samples, encoded } of batches) {
    for (const input of inputs) {
      const { loss: part, scores } = await scoreOnce(step, input)
      loss += part / (batches.length * inputs.length)
      if (encoded === undefined) {
        const { targets } = input
        if (targets !== undefined) tallyLabels(tally, { targets, scores })
      } else tallyAnswers(tally, { samples, encoded, scores })
    }
  }
  return { loss, accuracy: shares(tally) }
}

function trainedOf(step: TrainingStep): [string, ResidentTensor<'float32'>][] {
  const names = new Set(step.trained.map(({ name }) => name))
  return [...step.weights].filter(([name]) => names.has(name))
}

/** Weights per learning part, and how many are frozen. */
function countWeights(step: TrainingStep): { trained: Record<string, number>; frozen: number } {
  const trained: Record<string, number> = {}
  for (const { name, group } of step.trained)
    trained[group] = (trained[group] ?? 0) + (step.weights.get(name)?.data.length ?? 0)
  const all = [...step.weights.values()].reduce((sum, { data }) => sum + data.length, 0)
  return { trained, frozen: all - Object.values(trained).reduce((sum, count) => sum + count, 0) }
}
