/** A training run: samples in, updates made, progress told, checkpoints written. The life of one recipe, top to bottom. */

import { join } from 'node:path'
import type { Weights } from '../checkpoint/load.ts'
import { mergeAdapter, writeAdapter } from '../checkpoint/lora.ts'
import type { Compute } from '../runtime/device.ts'
import type { ResidentTensor } from '../runtime/resident-tensor.ts'
import { disposeBatch } from './batch-maker.ts'
import { batchQueue } from './batch-queue.ts'
import {
  type AskedQuestion,
  type GivenAnswer,
  type InterviewQuestion,
  interview,
  prepareInterview,
  writeThumbnails,
} from './interview.ts'
import { type Lesson, openLesson } from './lesson.ts'
import type { Recipe } from './recipe.ts'
import { type Progress, readCheckpoint, writeCheckpoint } from './run-checkpoint.ts'
import { appendLog, appendPace, openRunFolder, syncLog } from './run-folder.ts'
import { scheduleFactor } from './schedule.ts'
import { fetchState, placeState } from './training-state.ts'
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
      /** Share of answers per skill that would be said word for word, given the right words before. */
      readonly accuracy: Readonly<Record<string, number>>
    }
  /** What the model is asked all through the run; told once, before the first answers. */
  | { readonly type: 'questions'; readonly questions: readonly AskedQuestion[] }
  /** What it says by itself, in the order of the questions, and the share of right answers per skill where the truth is known. */
  | {
      readonly type: 'answers'
      readonly step: number
      readonly answers: readonly GivenAnswer[]
      readonly accuracy: Readonly<Record<string, number>>
    }
  | { readonly type: 'checkpoint'; readonly step: number; readonly path: string }
  | { readonly type: 'skipped'; readonly sample: string; readonly reason: string }
  /** Something that does not stop the run but should be known, a sentence. */
  | { readonly type: 'notice'; readonly text: string }
  /** `seconds` counts the whole run, with what was trained before it was resumed. */
  | { readonly type: 'end'; readonly step: number; readonly seconds: number; readonly skipped: number }

export type TrainingOptions = Compute & {
  /** Where recipe, log and checkpoints go. */
  readonly folder: string
  /** Go on from the newest checkpoint in the folder, if there is one. */
  readonly resume?: boolean
  /** Ends the run after the current step, with a checkpoint. */
  readonly signal?: AbortSignal | undefined
  readonly onEvent?: (event: TrainingEvent) => void
}

/**
 * Trains as the recipe says; returns the trained weights by canonical name, frozen parts included. What LoRA learned is merged into them and lies
 * by itself in `adapter` below the folder.
 *
 * A run that is killed and resumed ends with the same weights and the same log, to the bit, as one that was not, on the same machine with the
 * same device and the same number of threads.
 */
export async function train(recipe: Recipe, options: TrainingOptions): Promise<Weights> {
  const { folder, resume = false, device, threads } = options
  const lesson = await openLesson(recipe, { device, threads })
  try {
    const giveBack = await openRunFolder(folder, { recipe, resume })
    try {
      const { objective, groupOf, startingValue } = lesson
      const { optimizer, lengths } = recipe
      const step = await createTrainingStep({ objective, lengths, groupOf, startingValue, optimizer, device, threads })
      try {
        const onNotice = (text: string) => options.onEvent?.({ type: 'notice', text })
        const progress = await readCheckpoint(folder, { tensors: stateOf(step), onNotice })
        await placeState(step.state)
        await learn({ lesson, step, progress }, options)
        await fetchState(step.state)
        const adapter = lesson.adapter(step.weights)
        if (adapter !== undefined) await writeAdapter(join(folder, 'adapter'), adapter)
        return await modelOf(lesson, step)
      } finally {
        await disposeTrainingStep(step)
      }
    } finally {
      await giveBack()
    }
  } finally {
    await lesson.dispose()
  }
}

/** The whole model as it is in main memory, by canonical name; what LoRA learned is merged into it. */
async function modelOf(lesson: Lesson, step: TrainingStep): Promise<Weights> {
  const weights = lesson.wholeModel(step.weights)
  const adapter = lesson.adapter(step.weights)
  return adapter === undefined ? weights : mergeAdapter(weights, adapter)
}

type Run = { readonly lesson: Lesson; readonly step: TrainingStep; readonly progress: Progress }

/** From `progress` to the last step of the recipe, or to the signal. */
async function learn({ lesson, step, progress: from }: Run, options: TrainingOptions): Promise<void> {
  const { folder, signal, onEvent = () => {}, threads } = options
  const { recipe } = lesson
  const { steps } = recipe
  let progress = from
  let saved = from.step
  const save = async () => {
    progress = { ...progress, logBytes: await syncLog(folder) }
    await fetchState(step.state)
    const path = await writeCheckpoint(folder, { tensors: stateOf(step), progress, keep: recipe.keepCheckpoints })
    saved = progress.step
    onEvent({ type: 'checkpoint', step: saved, path })
  }
  const tell = async (event: TrainingEvent) => {
    await appendLog(folder, withoutPace(event))
    onEvent(event)
  }

  onEvent({ type: 'start', step: from.step, steps, ...countWeights(step) })
  const questions = await prepareInterview(lesson)
  await writeThumbnails(folder, questions)
  if (from.step === 0 && questions.length > 0) {
    await tell({ type: 'questions', questions: questions.map(({ asked }) => asked) })
    await tell(await askNow({ lesson, step, questions }, { number: 0, threads })) // the one before any learning
  }
  const queue = batchQueue(lesson, { position: from, count: steps - from.step })
  let pace = newPace()
  try {
    while (progress.step < steps && signal?.aborted !== true) {
      const start = performance.now()
      const number = progress.step + 1
      const batch = await queue.next()
      for (const skip of batch.skips) await tell({ type: 'skipped', ...skip })
      for (const text of lesson.featureCache?.takeNotices() ?? []) onEvent({ type: 'notice', text })
      const schedule = scheduleFactor(recipe.schedule, { step: number - 1, steps })
      const rates = Object.fromEntries(Object.entries(recipe.rates).map(([part, rate]) => [part, rate * schedule]))
      const { loss, gradientNorm } = await trainOnce(step, { batches: batch.inputs, number, rates })
      disposeBatch(batch)
      pace = { ...pace, pictures: pace.pictures + batch.pictures, tokens: pace.tokens + batch.tokens }
      let { best } = progress
      let unlogged = { loss: progress.unlogged.loss + loss, steps: progress.unlogged.steps + 1 }

      if (isDue(number, { every: recipe.logEvery, steps })) {
        const mean = unlogged.loss / unlogged.steps
        const rate = perSecond(pace)
        await tell({ type: 'step', step: number, loss: mean, gradientNorm, schedule, ...rate })
        await appendPace(folder, { step: number, seconds: progress.seconds + secondsSince(start), ...rate })
        unlogged = { loss: 0, steps: 0 }
        pace = newPace()
      }
      if (recipe.validate !== undefined && isDue(number, { every: recipe.validate.every, steps })) {
        const validating = performance.now()
        const { backgrounds } = lesson.source.labels ?? {}
        const scores = await validate(step, await lesson.validationBatches(), { backgrounds })
        await tell({ type: 'validation', step: number, ...scores })
        const said = questions.length > 0 ? await askNow({ lesson, step, questions }, { number, threads }) : undefined
        if (said !== undefined) await tell(said)
        best = better(best, { step: number, scores, said: said?.accuracy, keepBest: recipe.keepBest })
        pace = { ...pace, since: pace.since + performance.now() - validating }
      }
      const seconds = progress.seconds + secondsSince(start)
      progress = { ...progress, ...batch.position, step: number, unlogged, seconds, ...(best && { best }) }
      if (number % recipe.checkpointEvery === 0 || best?.step === number) await save()
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

/** The model's own answers after update `number`. */
async function askNow(
  { lesson, step, questions }: { lesson: Lesson; step: TrainingStep; questions: readonly InterviewQuestion[] },
  { number, threads }: { number: number; threads: number | undefined },
): Promise<Extract<TrainingEvent, { type: 'answers' }>> {
  await fetchState(step.state)
  const weights = await modelOf(lesson, step)
  const said = await interview(questions, { lesson, weights, threads })
  return { type: 'answers', step: number, ...said }
}

type Accuracy = Readonly<Record<string, number>>

/** The better of two validations: by lower loss, or by higher mean accuracy over the skills, of the model's own answers where they are scored. */
function better(
  best: Progress['best'],
  now: {
    step: number
    scores: { loss: number; accuracy: Accuracy }
    said: Accuracy | undefined
    keepBest: Recipe['keepBest']
  },
): Progress['best'] {
  const { step, scores, said = {}, keepBest = 'loss' } = now
  if (keepBest === 'none') return undefined
  const skills = Object.values(Object.keys(said).length > 0 ? said : scores.accuracy)
  const mean = skills.reduce((sum, share) => sum + share, 0) / skills.length
  const value = keepBest === 'loss' ? scores.loss : mean
  if (!Number.isFinite(value)) return best
  const isBetter = best === undefined || (keepBest === 'loss' ? value < best.value : value > best.value)
  return isBetter ? { step, value } : best
}

type Pace = { readonly since: number; readonly pictures: number; readonly tokens: number }

function newPace(): Pace {
  return { since: performance.now(), pictures: 0, tokens: 0 }
}

function perSecond({ since, pictures, tokens }: Pace): { picturesPerSecond: number; tokensPerSecond: number } {
  const seconds = secondsSince(since)
  return { picturesPerSecond: pictures / seconds, tokensPerSecond: tokens / seconds }
}

function secondsSince(start: number): number {
  return (performance.now() - start) / 1000
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
