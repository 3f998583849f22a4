/** A compiled training step: forward, backward and update over weights that stay where they are. */

import type { WeightSource } from '../model/weights.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run, type Session } from '../runtime/session.ts'
import { add, gradient, input, parameter, type Tensor, writeOnnx } from '../tensor/index.ts'
import { type AdamWOptions, adamWGraph, stateNames, stepSizes, type Trained } from './adamw.ts'
import type { Objective } from './objectives.ts'

export type TrainingStep = {
  readonly trained: readonly Trained[]
  /** Current values by weight name, frozen ones included. */
  readonly weights: ReadonlyMap<string, ResidentTensor<'float32'>>
  /** Moments of the optimizer by the names in `stateNames`. */
  readonly moments: ReadonlyMap<string, ResidentTensor<'float32'>>
  readonly sessions: { gradient: Session; update: Session; accumulate: Session; score: Session }
  readonly gradients: ReadonlyMap<string, ResidentTensor<'float32'>>
  readonly options: AdamWOptions
}

export type TrainingStepOptions = {
  objective: (weights: WeightSource) => Objective
  /** The learning-rate group of a weight, or undefined when it is frozen. */
  groupOf: (name: string) => string | undefined
  /** Called once per weight for its starting value. */
  startingValue: (weight: { name: string; shape: readonly number[] }) => Float32Array
  optimizer: AdamWOptions
  threads?: number
}

export async function createTrainingStep(options: TrainingStepOptions): Promise<TrainingStep> {
  const found = new Map<string, Tensor>()
  const source: WeightSource = (name, shape) => {
    const known = found.get(name) ?? parameter(name, shape)
    found.set(name, known)
    return known
  }
  const { loss, scores } = options.objective(source)
  const all = [...found].map(([name, { shape }]) => ({ name, shape: shape as readonly number[] }))
  const trained = all.flatMap(({ name, shape }) => {
    const group = options.groupOf(name)
    return group === undefined ? [] : [{ name, shape, group }]
  })
  if (trained.length === 0) throw new RangeError('Cannot train: every weight of this stage is frozen')

  const weights = new Map(
    all.map((weight) => [
      weight.name,
      residentTensor('float32', weight.shape, { data: options.startingValue(weight) }),
    ]),
  )
  const zeros = (nameOf: (name: string) => string) =>
    trained.map(({ name, shape }) => [nameOf(name), residentTensor('float32', shape)] as const)
  const isTrained = new Set(trained.map(({ name }) => name))
  const variables = trained.map(({ name, shape }) => found.get(name) ?? parameter(name, shape))
  const gradients = gradient(loss, variables)
  const outputs = Object.fromEntries(
    trained.flatMap(({ name }, i) => {
      const g = gradients[i]
      return g === undefined ? [] : [[stateNames.gradient(name), g] as const]
    }),
  )
  // Frozen weights are constants to the runtime, which may then pack them once.
  const place = (name: string) => (isTrained.has(name) ? 'inputs' : 'initializers')
  const frozen = Object.fromEntries([...weights].filter(([name]) => !isTrained.has(name)))
  const sessionOptions = { ...(options.threads !== undefined && { threads: options.threads }) }
  const step = writeOnnx({ loss, ...outputs }, { parameters: place, name: 'training step' })
  const score = writeOnnx({ loss, scores }, { parameters: place, name: 'score' })
  return {
    trained,
    weights,
    moments: new Map([...zeros(stateNames.first), ...zeros(stateNames.second)]),
    gradients: new Map(zeros(stateNames.gradient)),
    sessions: {
      gradient: await createSession(step.model, { ...sessionOptions, initializers: usedBy(step.parameters, frozen) }),
      score: await createSession(score.model, { ...sessionOptions, initializers: usedBy(score.parameters, frozen) }),
      update: await createSession(adamWGraph(trained, options.optimizer), sessionOptions),
      accumulate: await createSession(accumulationGraph(trained), sessionOptions),
    },
    options: options.optimizer,
  }
}

/**
 * One update from one or more batches of graph inputs, whose target weights must together sum to 1.
 * Returns the loss and the gradient's norm before clipping.
 */
export async function trainOnce(
  step: TrainingStep,
  { batches, number, rates }: { batches: readonly Inputs[]; number: number; rates: Readonly<Record<string, number>> },
): Promise<{ loss: number; gradientNorm: number }> {
  const { gradients, sessions } = step
  let loss = 0
  for (const [index, batch] of batches.entries()) {
    const inputs = { ...trainedWeights(step), ...batch }
    if (index === 0) {
      loss += numberOf(
        await run(sessions.gradient, inputs, { outputs: Object.fromEntries(gradients), fetch: ['loss'] }),
      )
      continue
    }
    const more = await run(sessions.gradient, inputs)
    loss += numberOf(more)
    const added = Object.fromEntries(
      step.trained.map(({ name }) => [`more:${name}`, tensorOf(more, stateNames.gradient(name))]),
    )
    const totals = Object.fromEntries(
      step.trained.map(({ name }) => [`total:${name}`, tensorOf(gradients, stateNames.gradient(name))]),
    )
    await run(sessions.accumulate, { ...Object.fromEntries(gradients), ...added }, { outputs: totals, fetch: [] })
    Object.values(more).forEach(disposeTensor)
  }
  if (!Number.isFinite(loss))
    throw new RangeError(`Cannot train on: the loss is ${loss} at step ${number}, expected a number`)

  const sizes = stepSizes(step.options, { step: number, rates })
  const scalars = Object.fromEntries(
    Object.entries(sizes).map(([name, value]) => [
      name,
      residentTensor('float32', [], { data: Float32Array.of(value) }),
    ]),
  )
  const state = { ...trainedWeights(step), ...Object.fromEntries(step.moments), ...Object.fromEntries(gradients) }
  const usable = new Set(sessions.update.inputNames)
  const given = Object.fromEntries(Object.entries({ ...state, ...scalars }).filter(([name]) => usable.has(name)))
  const moved = { ...trainedWeights(step), ...Object.fromEntries(step.moments) }
  const outputs = Object.fromEntries(Object.entries(moved).map(([name, tensor]) => [`next:${name}`, tensor]))
  const { norm } = await run(sessions.update, given, { outputs, fetch: ['norm'] })
  const gradientNorm = Number(norm?.data[0])
  Object.values(scalars).forEach(disposeTensor)
  if (norm !== undefined) disposeTensor(norm)
  return { loss, gradientNorm }
}

export type Inputs = Readonly<Record<string, ResidentTensor>>

/** Loss and scores of a batch without learning from it. */
export async function scoreOnce(step: TrainingStep, batch: Inputs): Promise<{ loss: number; scores: ResidentTensor }> {
  const usable = new Set(step.sessions.score.inputNames)
  const inputs = Object.fromEntries(
    Object.entries({ ...trainedWeights(step), ...batch }).filter(([name]) => usable.has(name)),
  )
  const result = await run(step.sessions.score, inputs)
  return { loss: numberOf(result), scores: tensorOf(result, 'scores') }
}

export async function disposeTrainingStep(step: TrainingStep): Promise<void> {
  await Promise.all(Object.values(step.sessions).map(disposeSession))
  for (const tensors of [step.weights, step.moments, step.gradients]) [...tensors.values()].forEach(disposeTensor)
}

function trainedWeights(step: TrainingStep): Record<string, ResidentTensor> {
  return Object.fromEntries(step.trained.map(({ name }) => [name, tensorOf(step.weights, name)]))
}

function accumulationGraph(trained: readonly Trained[]): Uint8Array {
  const totals = trained.map(({ name, shape }) => {
    const total = add(input(stateNames.gradient(name), 'float32', shape), input(`more:${name}`, 'float32', shape))
    return [`total:${name}`, total] as const
  })
  return writeOnnx(Object.fromEntries(totals), { parameters: 'inputs', name: 'accumulate' }).model
}

function usedBy(parameters: readonly { name: string }[], tensors: Inputs): Inputs {
  const names = new Set(parameters.map(({ name }) => name))
  return Object.fromEntries(Object.entries(tensors).filter(([name]) => names.has(name)))
}

function numberOf(outputs: Readonly<Record<string, ResidentTensor>>): number {
  const value = Number(tensorOf(outputs, 'loss').data[0])
  return value
}

function tensorOf(tensors: Inputs | ReadonlyMap<string, ResidentTensor>, name: string): ResidentTensor {
  const tensor = tensors instanceof Map ? tensors.get(name) : (tensors as Inputs)[name]
  if (tensor === undefined) throw new Error(`Training step has no tensor ${name}`)
  return tensor
}
