import { afterAll, describe, expect, test } from 'vitest'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import { type AdamWOptions, adamWDefaults, adamWGraph, stateNames, stepSizes, type Trained } from './adamw.ts'

const trained: Trained[] = [
  { name: 'a.weight', shape: [3, 2], group: 'fast' },
  { name: 'a.bias', shape: [3], group: 'fast' },
  { name: 'b.weight', shape: [2, 2, 1], group: 'slow' },
]
const rates = { fast: 0.1, slow: 0.01 }
const sizeOf = ({ shape }: Trained) => shape.reduce((a, b) => a * b, 1)
const wave = (seed: number) => (_: unknown, i: number) => Math.sin(seed * 12.9898 + i * 78.233)

/** The optimizer in float64 and plain loops, as the paper writes it. */
function naive(options: AdamWOptions) {
  const state = trained.map((weight, w) => ({
    weight: Array.from({ length: sizeOf(weight) }, wave(w)),
    first: new Array<number>(sizeOf(weight)).fill(0),
    second: new Array<number>(sizeOf(weight)).fill(0),
  }))
  const update = (gradients: number[][], t: number) => {
    const norm = Math.sqrt(gradients.flat().reduce((sum, g) => sum + g * g, 0))
    const clip = Math.min(1, options.clip / (norm + 1e-6))
    state.forEach((own, w) => {
      const { shape, group } = trained[w]!
      const rate = rates[group as keyof typeof rates]
      gradients[w]!.forEach((raw, i) => {
        const g = raw * clip
        own.first[i] = options.beta1 * own.first[i]! + (1 - options.beta1) * g
        own.second[i] = options.beta2 * own.second[i]! + (1 - options.beta2) * g * g
        const first = own.first[i]! / (1 - options.beta1 ** t)
        const second = own.second[i]! / (1 - options.beta2 ** t)
        const decay = shape.length > 1 ? options.weightDecay * own.weight[i]! : 0
        own.weight[i] = own.weight[i]! - rate * (first / (Math.sqrt(second) + options.epsilon) + decay)
      })
    })
    return norm
  }
  return { state, update }
}

/** The graph over resident tensors, updated in place. */
async function compiled(options: AdamWOptions) {
  const session = await createSession(adamWGraph(trained, options), { threads: 1 })
  const tensors: Record<string, ResidentTensor<'float32'>> = {}
  trained.forEach((weight, w) => {
    for (const name of [weight.name, stateNames.first(weight.name), stateNames.second(weight.name)]) {
      tensors[name] = residentTensor('float32', weight.shape)
    }
    tensors[weight.name]!.data.set(Array.from({ length: sizeOf(weight) }, wave(w)))
  })
  const update = async (gradients: number[][], t: number) => {
    const inputs: Record<string, ResidentTensor> = { ...tensors }
    trained.forEach(({ name, shape }, w) => {
      inputs[stateNames.gradient(name)] = residentTensor('float32', shape, { data: Float32Array.from(gradients[w]!) })
    })
    for (const [name, value] of Object.entries(stepSizes(options, { step: t, rates }))) {
      if (session.inputNames.includes(name)) {
        inputs[name] = residentTensor('float32', [], { data: Float32Array.of(value) })
      }
    }
    const outputs = Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [`next:${name}`, tensor]))
    return Number((await run(session, inputs, { outputs, fetch: ['norm'] })).norm!.data[0])
  }
  afterAll(() => disposeSession(session))
  return { tensors, update }
}

describe('the AdamW graph does what the plain loops do', () => {
  test.each([
    { what: 'with clipping and decay', options: { ...adamWDefaults, clip: 0.7, weightDecay: 0.3 } },
    { what: 'without either', options: { ...adamWDefaults, clip: 1e6, weightDecay: 0 } },
    {
      what: 'with other betas and a large epsilon',
      options: { ...adamWDefaults, beta1: 0.5, beta2: 0.8, epsilon: 0.1, weightDecay: 0.1 },
    },
  ])('$what, over seven steps', async ({ options }) => {
    const [twin, graph] = [naive(options), await compiled(options)]
    for (let t = 1; t <= 7; t++) {
      const gradients = trained.map((weight, w) => Array.from({ length: sizeOf(weight) }, wave(10 * t + w)))
      expect(await graph.update(gradients, t)).toBeCloseTo(twin.update(gradients, t), 4)
      trained.forEach(({ name }, w) => {
        graph.tensors[name]!.data.forEach((value, i) => {
          expect(value).toBeCloseTo(twin.state[w]!.weight[i]!, 4)
        })
      })
    }
  })

  test('a first step moves every weight by its rate, whatever the size of its gradient', async () => {
    const graph = await compiled({ ...adamWDefaults, clip: 1e9 })
    const before = [...graph.tensors['a.bias']!.data]
    await graph.update([new Array(6).fill(1e-3), [1e-3, -50, 7], new Array(4).fill(1)], 1)
    const moved = [...graph.tensors['a.bias']!.data].map((value, i) => value - before[i]!)
    expect(moved[0]).toBeCloseTo(-0.1, 4)
    expect(moved[1]).toBeCloseTo(0.1, 4)
    expect(moved[2]).toBeCloseTo(-0.1, 4)
  })

  test('without gradients, decay shrinks matrices and leaves vectors alone', async () => {
    const graph = await compiled({ ...adamWDefaults, weightDecay: 0.5 })
    const before = trained.map(({ name }) => [...graph.tensors[name]!.data])
    await graph.update([new Array(6).fill(0), new Array(3).fill(0), new Array(4).fill(0)], 1)
    const ratio = (w: number, i: number) => graph.tensors[trained[w]!.name]!.data[i]! / before[w]![i]!
    expect(ratio(0, 1)).toBeCloseTo(1 - 0.1 * 0.5, 5)
    expect(ratio(1, 1)).toBe(1)
    expect(ratio(2, 1)).toBeCloseTo(1 - 0.01 * 0.5, 5)
  })
})
