/**
 * AdamW (Loshchilov & Hutter 2019, algorithm 2) with clipping by the global norm, as one graph over all trained weights.
 *
 * A graph of its own rather than the tail of the training step: weights are updated in place, and inside the step some layer's input gradient
 * might still have to read the old weight.
 */

import {
  add,
  div,
  input,
  minimum,
  mul,
  type OperatorSet,
  parameter,
  scalar,
  sqrt,
  sub,
  sumOfSquares,
  type Tensor,
  writeOnnx,
} from '../tensor/index.ts'

export type AdamWOptions = {
  readonly beta1: number
  readonly beta2: number
  readonly epsilon: number
  /** Decoupled decay, applied to matrices; norms, biases and other vectors never decay. */
  readonly weightDecay: number
  /** Gradients are scaled down so that their joint norm is at most this. */
  readonly clip: number
}

export const adamWDefaults: AdamWOptions = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, clip: 1 }

export type Trained = { readonly name: string; readonly shape: readonly number[]; readonly group: string }

/** The names under which the optimizer's graph knows the state of a weight. */
export const stateNames = {
  gradient: (name: string) => `gradient:${name}`,
  first: (name: string) => `first:${name}`,
  second: (name: string) => `second:${name}`,
}

/**
 * Inputs: each weight, its gradient and two moments; per group a rate and a kept share (see `stepSizes`); `epsilon`.
 * Outputs, to be bound to the same memory: weights and moments; and `norm`, the global norm before clipping.
 */
export function adamWGraph(
  trained: readonly Trained[],
  options: AdamWOptions & { operators?: OperatorSet },
): Uint8Array {
  const gradients = trained.map(({ name, shape }) => input(stateNames.gradient(name), 'float32', shape))
  const norm = sqrt(addAll(gradients.map(sumOfSquares)))
  const clip = minimum(scalar(1), div(scalar(options.clip), add(norm, scalar(1e-6))))
  const toFirst = mul(scalar(1 - options.beta1), clip)
  const toSecond = mul(scalar(1 - options.beta2), mul(clip, clip))
  const epsilon = input('epsilon', 'float32', [])

  const outputs: Record<string, Tensor> = { norm }
  trained.forEach(({ name, shape, group }, index) => {
    const gradient = gradients[index] ?? norm
    const weight = parameter(name, shape)
    const first = add(
      mul(input(stateNames.first(name), 'float32', shape), scalar(options.beta1)),
      mul(gradient, toFirst),
    )
    const second = add(
      mul(input(stateNames.second(name), 'float32', shape), scalar(options.beta2)),
      mul(mul(gradient, gradient), toSecond),
    )
    const direction = div(first, add(sqrt(second), epsilon))
    const kept = decays(shape) ? mul(weight, input(`kept:${group}`, 'float32', [])) : weight
    outputs[`next:${name}`] = sub(kept, mul(direction, input(`rate:${group}`, 'float32', [])))
    outputs[`next:${stateNames.first(name)}`] = first
    outputs[`next:${stateNames.second(name)}`] = second
  })
  const { operators = 'cpu' } = options
  return writeOnnx(outputs, { parameters: 'inputs', name: 'adamw', operators }).model
}

/** The numbers that change from step to step (`step` from 1): bias corrections are folded into rate and epsilon. */
export function stepSizes(
  options: AdamWOptions,
  { step, rates }: { step: number; rates: Readonly<Record<string, number>> },
): Record<string, number> {
  const second = Math.sqrt(1 - options.beta2 ** step)
  const correction = second / (1 - options.beta1 ** step)
  return Object.fromEntries([
    ['epsilon', options.epsilon * second],
    ...Object.entries(rates).flatMap(([group, rate]) => [
      [`rate:${group}`, rate * correction],
      [`kept:${group}`, 1 - rate * options.weightDecay],
    ]),
  ])
}

function decays(shape: readonly number[]): boolean {
  return shape.length > 1
}

function addAll(tensors: readonly Tensor[]): Tensor {
  return tensors.reduce((total, next) => add(total, next))
}
