/** A compiled training step: forward, backward and update over weights that stay where they are. */

import type { WeightSource } from '../model/weights.ts'
import { type Compute, operatorsOf } from '../runtime/device.ts'
import { disposeTensor, type ResidentTensor, residentTensor, type SessionTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run, type Session } from '../runtime/session.ts'
import { add, gradient, input, type OperatorSet, parameter, type Tensor, writeOnnx } from '../tensor/index.ts'
import { type AdamWOptions, adamWGraph, stateNames, stepSizes, type Trained } from './adamw.ts'
import type { Objective } from './objectives.ts'
import { createTrainingState, disposeTrainingState, type TrainingState, turn } from './training-state.ts'

export type TrainingStep = {
  readonly trained: readonly Trained[]
  /** Values in main memory by weight name, frozen ones included; on a GPU as of the last `fetchState`. */
  readonly weights: ReadonlyMap<string, ResidentTensor<'float32'>>
  /** Moments of the optimizer by the names in `stateNames`, likewise. */
  readonly moments: ReadonlyMap<string, ResidentTensor<'float32'>>
  readonly state: TrainingState
  readonly sessions: Graphs & { update: Session; accumulate: Session }
  /** Graphs for batches of a shorter length, over the same weights: compiled when the first such batch comes. */
  readonly shorter: {
    readonly lengths: readonly number[]
    readonly compile: (length: number) => Promise<Graphs>
    readonly compiled: Map<number, Promise<Graphs>>
  }
  readonly gradients: ReadonlyMap<string, ResidentTensor<'float32'>>
  readonly options: AdamWOptions
}

type Graphs = { readonly gradient: Session; readonly score: Session }

export type TrainingStepOptions = Compute & {
  objective: (weights: WeightSource, options?: { length?: number }) => Objective
  /** Lengths besides the objective's own that batches may have. */
  lengths?: readonly number[] | undefined
  /** The learning-rate group of a weight, or undefined when it is frozen. */
  groupOf: (name: string) => string | undefined
  /** Called once per weight for its starting value. */
  startingValue: (weight: { name: string; shape: readonly number[] }) => Float32Array
  optimizer: AdamWOptions
}

/** @throws RangeError when every weight is frozen */
export async function createTrainingStep(options: TrainingStepOptions): Promise<TrainingStep> {
  const found = new Map<string, Tensor>()
  const source: WeightSource = (name, shape) => {
    const known = found.get(name) ?? parameter(name, shape)
    found.set(name, known)
    return known
  }
  const objective = options.objective(source)
  const all = [...found].map(([name, { shape }]) => ({ name, shape: shape as readonly number[] }))
  const trained = all.flatMap(({ name, shape }) => {
    const group = options.groupOf(name)
    return group === undefined ? [] : [{ name, shape, group }]
  })
  if (trained.length === 0) throw new RangeError('Cannot train: every weight of this stage is frozen')

  const variables = trained.map(({ name, shape }) => source(name, shape))
  const weights = new Map(
    all.map((weight) => [
      weight.name,
      residentTensor('float32', weight.shape, { data: options.startingValue(weight) }),
    ]),
  )
  const zeros = (nameOf: (name: string) => string) =>
    trained.map(({ name, shape }) => [nameOf(name), residentTensor('float32', shape)] as const)

  // Frozen weights are constants to the runtime, which may then pack them once.
  const isTrained = new Set(trained.map(({ name }) => name))
  const { device, threads } = options
  const operators = operatorsOf(device)
  const compile = (results: Readonly<Record<string, Tensor>>, name: string) => {
    const place = (weight: string) => (isTrained.has(weight) ? 'inputs' : 'initializers')
    const graph = writeOnnx(results, { parameters: place, name, operators })
    const frozen = graph.parameters.filter((weight) => !isTrained.has(weight.name))
    const initializers = Object.fromEntries(frozen.map((weight) => [weight.name, tensorOf(weights, weight.name)]))
    return createSession(graph.model, { device, threads, initializers })
  }
  const compileGraphs = async ({ loss, learned = loss, scores }: Objective): Promise<Graphs> => {
    const gradients = gradient(learned, variables)
    const outputs = trained.flatMap(({ name }, index) => {
      const g = gradients[index]
      return g === undefined ? [] : [[stateNames.gradient(name), g] as const]
    })
    return {
      gradient: await compile({ loss: learned, ...Object.fromEntries(outputs) }, 'training step'),
      score: await compile({ loss, scores }, 'score'),
    }
  }
  const moments = new Map([...zeros(stateNames.first), ...zeros(stateNames.second)])
  const gradients = new Map(zeros(stateNames.gradient))
  const values = new Map([...trained.map(({ name }) => [name, tensorOf(weights, name)] as const), ...moments])
  return {
    trained,
    weights,
    moments,
    gradients,
    state: await createTrainingState({ values, gradients }, { device, threads }),
    sessions: {
      ...(await compileGraphs(objective)),
      update: await createSession(adamWGraph(trained, { ...options.optimizer, operators }), { device, threads }),
      accumulate: await createSession(accumulationGraph(trained, operators), { device, threads }),
    },
    shorter: {
      lengths: options.lengths ?? [],
      compile: (length) => compileGraphs(options.objective(source, { length })),
      compiled: new Map(),
    },
    options: options.optimizer,
  }
}

/** The graphs that are compiled for the length of a batch, [B, L] of its `ids`. */
function graphsFor({ sessions, shorter }: TrainingStep, batch: Inputs): Graphs | Promise<Graphs> {
  const length = batch.ids?.shape[1]
  if (length === undefined || !shorter.lengths.includes(length)) return sessions
  const graphs = shorter.compiled.get(length) ?? shorter.compile(length)
  shorter.compiled.set(length, graphs)
  return graphs
}

/**
 * One update from one or more batches of graph inputs, whose target weights must together sum to 1.
 * Returns the loss and the gradient's norm before clipping.
 *
 * @throws RangeError when the loss or the gradient is not a number; the weights are not to be used any more
 */
export async function trainOnce(
  step: TrainingStep,
  { batches, number, rates }: { batches: readonly Inputs[]; number: number; rates: Readonly<Record<string, number>> },
): Promise<{ loss: number; gradientNorm: number }> {
  const loss = await computeGradients(step, batches)
  if (!Number.isFinite(loss)) throw new RangeError(`Cannot train on: the loss is ${loss} at step ${number}`)
  const gradientNorm = await updateWeights(step, { number, rates })
  if (Number.isFinite(gradientNorm)) return { loss, gradientNorm }
  throw new RangeError(`Cannot train on: the norm of the gradient is ${gradientNorm} at step ${number}`)
}

/** Forward and backward: leaves the gradients of all batches together in `step.gradients` and returns their loss. */
export async function computeGradients(step: TrainingStep, batches: readonly Inputs[]): Promise<number> {
  const { gradients } = step.state
  let loss = 0
  for (const [index, batch] of batches.entries()) {
    const inputs = { ...trainedWeights(step), ...batch }
    const first = index === 0
    const graphs = await graphsFor(step, batch)
    const places = first ? gradients.current : step.state.moreGradients
    const results = await run(graphs.gradient, inputs, {
      ...(places !== undefined && { outputs: Object.fromEntries(places), fetch: ['loss'] }),
    })
    const { loss: part, ...fetched } = results
    loss += Number(part?.data[0])
    if (!first) await addToGradients(step, places ?? new Map(Object.entries(fetched)))
    for (const tensor of places === undefined ? Object.values(results) : [part]) if (tensor) disposeTensor(tensor)
  }
  return loss
}

async function addToGradients(
  { trained, state, sessions }: TrainingStep,
  more: ReadonlyMap<string, SessionTensor>,
): Promise<void> {
  const { gradients } = state
  const renamed = (prefix: string, tensors: ReadonlyMap<string, SessionTensor>) =>
    Object.fromEntries(
      trained.map(({ name }) => [`${prefix}:${name}`, tensorOf(tensors, stateNames.gradient(name))] as const),
    )
  const inputs = { ...Object.fromEntries(gradients.current), ...renamed('more', more) }
  await run(sessions.accumulate, inputs, { outputs: renamed('total', gradients.next), fetch: [] })
  turn(gradients)
}

/** Moves weights and moments by the gradients; `number` counts from 1. Returns the gradients' norm before clipping. */
export async function updateWeights(
  step: TrainingStep,
  { number, rates }: { number: number; rates: Readonly<Record<string, number>> },
): Promise<number> {
  const { sessions, state } = step
  const { values, gradients } = state
  const sizes = Object.entries(stepSizes(step.options, { step: number, rates })).map(
    ([name, value]) => [name, residentTensor('float32', [], { data: Float32Array.of(value) })] as const,
  )
  const given = Object.fromEntries([...values.current, ...gradients.current, ...sizes])
  const outputs = Object.fromEntries([...values.next].map(([name, tensor]) => [`next:${name}`, tensor]))
  const { norm } = await run(sessions.update, usedBy(sessions.update, given), { outputs, fetch: ['norm'] })
  turn(values)
  for (const [, tensor] of sizes) disposeTensor(tensor)
  if (norm !== undefined) disposeTensor(norm)
  return Number(norm?.data[0])
}

/** Inputs of a graph besides its weights, by name. */
export type Inputs = Readonly<Record<string, ResidentTensor>>

type Given = Readonly<Record<string, SessionTensor>>

/** Loss and scores of a batch without learning from it; the caller disposes the scores. */
export async function scoreOnce(step: TrainingStep, batch: Inputs): Promise<{ loss: number; scores: ResidentTensor }> {
  const { score } = await graphsFor(step, batch)
  const results = await run(score, usedBy(score, { ...trainedWeights(step), ...batch }))
  const { loss, scores } = results
  if (loss === undefined || scores === undefined) throw new Error('A scored batch has no loss or no scores')
  disposeTensor(loss)
  return { loss: Number(loss.data[0]), scores }
}

export async function disposeTrainingStep(step: TrainingStep): Promise<void> {
  const shorter = await Promise.allSettled(step.shorter.compiled.values())
  const compiled = shorter.flatMap((result) => (result.status === 'fulfilled' ? Object.values(result.value) : []))
  await disposeTrainingState(step.state)
  await Promise.all([...Object.values(step.sessions), ...compiled].map(disposeSession))
  for (const tensors of [step.weights, step.moments, step.gradients]) [...tensors.values()].forEach(disposeTensor)
}

function trainedWeights({ trained, state }: TrainingStep): Record<string, SessionTensor> {
  return Object.fromEntries(trained.map(({ name }) => [name, tensorOf(state.values.current, name)]))
}

function accumulationGraph(trained: readonly Trained[], operators: OperatorSet): Uint8Array {
  const totals = trained.map(({ name, shape }) => {
    const total = add(input(stateNames.gradient(name), 'float32', shape), input(`more:${name}`, 'float32', shape))
    return [`total:${name}`, total] as const
  })
  return writeOnnx(Object.fromEntries(totals), { parameters: 'inputs', name: 'accumulate', operators }).model
}

/** Those tensors that a session has inputs for. */
function usedBy(session: Session, tensors: Given): Given {
  return Object.fromEntries(
    session.inputNames.flatMap((name) => (tensors[name] === undefined ? [] : [[name, tensors[name]]])),
  )
}

function tensorOf<T extends SessionTensor>(tensors: ReadonlyMap<string, T>, name: string): T {
  const tensor = tensors.get(name)
  if (tensor === undefined) throw new Error(`Training step has no tensor ${name}`)
  return tensor
}
