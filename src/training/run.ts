/** A training run: samples in, updates made, progress told, checkpoints written. The life of one recipe, top to bottom. */

import type { Weights } from '../checkpoint/load.ts'
import type { ResidentTensor } from '../runtime/resident-tensor.ts'
import { disposeBatch } from './batch-maker.ts'
import { batchQueue } from './batch-queue.ts'
import { type Lesson, openLesson } from './lesson.ts'
import type { Recipe } from './recipe.ts'
import { appendLog, openRunFolder, type Progress, readCheckpoint, syncLog, writeCheckpoint } from './run-folder.ts'
import { scheduleFactor } from './schedule.ts'
import { createTrainingStep, disposeTrainingStep, type TrainingStep, trainOnce } from './training-step.ts'
import { validate } from './validation.ts'

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
      /** Mean since the last such event. */
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
  /** `seconds` counts the whole run, with what was trained before it was resumed. */
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

/**
 * Trains as the recipe says; returns the trained weights by canonical name, frozen parts included.
 *
 * A run that is killed and resumed ends with the same weights and the same log, to the bit, as one that was not, on the same machine with the
 * same number of threads.
 */
export async function train(recipe: Recipe, options: TrainingOptions): Promise<Weights> {
  const { folder, resume = false } = options
  const threads = { ...(options.threads !== undefined && { threads: options.threads }) }
  const lesson = await openLesson(recipe, threads)
  try {
    const checkpoint = await openRunFolder(folder, { recipe, resume })
    const { objective, groupOf, startingValue } = lesson
    const { optimizer } = recipe
    const step = await createTrainingStep({ objective, groupOf, startingValue, optimizer, ...threads })
    try {
      const progress = await readCheckpoint(checkpoint, { tensors: stateOf(step), folder })
      await learn({ lesson, step, progress }, options)
      return lesson.wholeModel(step.weights)
    } finally {
      await disposeTrainingStep(step)
    }
  } finally {
    await lesson.dispose()
  }
}

type Run = { readonly lesson: Lesson; readonly step: TrainingStep; readonly progress: Progress }

/** From `progress` to the last step of the recipe, or to the signal. */
async function learn({ lesson, step, progress: from }: Run, options: TrainingOptions): Promise<void> {
  const { folder, signal, onEvent = () => {} } = options
  const { recipe } = lesson
  const { steps } = recipe
  let progress = from
  let saved = from.step
  const save = async () => {
    progress = { ...progress, logBytes: await syncLog(folder) }
    const path = await writeCheckpoint(folder, { tensors: stateOf(step), progress, keep: recipe.keepCheckpoints })
    saved = progress.step
    onEvent({ type: 'checkpoint', step: saved, path })
  }
  const tell = async (event: TrainingEvent) => {
    await appendLog(folder, withoutPace(event))
    onEvent(event)
  }

  onEvent({ type: 'start', step: from.step, steps, ...countWeights(step) })
  const queue = batchQueue(lesson, { position: from, count: steps - from.step })
  let pace = newPace()
  try {
    while (progress.step < steps && signal?.aborted !== true) {
      const start = performance.now()
      const number = progress.step + 1
      const batch = await queue.next()
      for (const skip of batch.skips) await tell({ type: 'skipped', ...skip })
      const schedule = scheduleFactor(recipe.schedule, { step: number - 1, steps })
      const rates = Object.fromEntries(Object.entries(recipe.rates).map(([part, rate]) => [part, rate * schedule]))
      const { loss, gradientNorm } = await trainOnce(step, { batches: batch.inputs, number, rates })
      disposeBatch(batch)
      pace = { ...pace, pictures: pace.pictures + batch.pictures, tokens: pace.tokens + batch.tokens }
      let unlogged = { loss: progress.unlogged.loss + loss, steps: progress.unlogged.steps + 1 }

      if (isDue(number, { every: recipe.logEvery, steps })) {
        const mean = unlogged.loss / unlogged.steps
        await tell({ type: 'step', step: number, loss: mean, gradientNorm, schedule, ...perSecond(pace) })
        unlogged = { loss: 0, steps: 0 }
        pace = newPace()
      }
      if (recipe.validate !== undefined && isDue(number, { every: recipe.validate.every, steps })) {
        const validating = performance.now()
        const { backgrounds } = lesson.source.labels ?? {}
        const scores = await validate(step, await lesson.validationBatches(), { backgrounds })
        await tell({ type: 'validation', step: number, ...scores })
        pace = { ...pace, since: pace.since + performance.now() - validating }
      }
      const seconds = progress.seconds + (performance.now() - start) / 1000
      progress = { ...progress, ...batch.position, step: number, unlogged, seconds }
      if (number % recipe.checkpointEvery === 0) await save()
    }
    if (progress.step !== saved) await save()
  } finally {
    await queue.close()
  }
  onEvent({ type: 'end', step: progress.step, seconds: progress.seconds, skipped: progress.skipped })
}

function isDue(number: number, { every, steps }: { every: number; steps: number }): boolean {
  return number % every === 0 || number === steps
}

type Pace = { readonly since: number; readonly pictures: number; readonly tokens: number }

function newPace(): Pace {
  return { since: performance.now(), pictures: 0, tokens: 0 }
}

function perSecond({ since, pictures, tokens }: Pace): { picturesPerSecond: number; tokensPerSecond: number } {
  const seconds = (performance.now() - since) / 1000
  return { picturesPerSecond: pictures / seconds, tokensPerSecond: tokens / seconds }
}

/** The log holds what the run computes, which is the same however often it is stopped; how fast it went is not. */
function withoutPace(event: TrainingEvent): Readonly<Record<string, unknown>> {
  if (event.type !== 'step') return event
  const { picturesPerSecond: _, tokensPerSecond: __, ...computed } = event
  return computed
}

/** All that a step changes: trained weights and the optimizer's moments. */
function stateOf(step: TrainingStep): Map<string, ResidentTensor<'float32'>> {
  const trained = new Set(step.trained.map(({ name }) => name))
  return new Map([...[...step.weights].filter(([name]) => trained.has(name)), ...step.moments])
}

/** Weights per learning part, and how many are frozen. */
function countWeights(step: TrainingStep): { trained: Record<string, number>; frozen: number } {
  const sizeOf = (name: string) => step.weights.get(name)?.data.length ?? 0
  const trained: Record<string, number> = {}
  for (const { name, group } of step.trained) trained[group] = (trained[group] ?? 0) + sizeOf(name)
  const all = [...step.weights.keys()].reduce((sum, name) => sum + sizeOf(name), 0)
  return { trained, frozen: all - Object.values(trained).reduce((sum, count) => sum + count, 0) }
}
