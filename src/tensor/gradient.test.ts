/** Every operator's gradient against central differences along random directions, run by ONNX Runtime. */

import { describe, expect, test } from 'vitest'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import type { Tensor } from './index.ts'
import * as t from './index.ts'

type Case = {
  name: string
  shapes: readonly (readonly number[])[]
  build: (...inputs: Tensor[]) => Tensor
  /** Where the variables are drawn from; default −1 … 1. */
  range?: readonly [number, number]
}

const int64 = (shape: readonly number[], values: readonly number[]) =>
  t.constant('int64', shape, BigInt64Array.from(values, BigInt))
const floats = (shape: readonly number[], values: readonly number[]) =>
  t.constant('float32', shape, Float32Array.from(values))

const causal = (length: number) =>
  floats(
    [length, length],
    Array.from({ length: length * length }, (_, i) => (i % length > Math.floor(i / length) ? -1e9 : 0)),
  )
const tables = t.rotaryTables({ positions: 16, headSize: 8, theta: 10_000 })
const positions = int64([2, 5], [0, 1, 2, 3, 4, 3, 4, 5, 6, 7])

const cases: Case[] = [
  {
    name: 'add, broadcast both ways',
    shapes: [
      [3, 1, 4],
      [2, 1],
    ],
    build: (a, b) => t.add(a, b),
  },
  { name: 'sub, broadcast', shapes: [[2, 3], [3]], build: (a, b) => t.sub(a, b) },
  {
    name: 'mul, broadcast',
    shapes: [
      [2, 1, 3],
      [4, 1],
    ],
    build: (a, b) => t.mul(a, b),
  },
  { name: 'mul of a tensor by itself', shapes: [[5]], build: (a) => t.mul(a, a) },
  {
    name: 'div, broadcast',
    shapes: [
      [2, 3],
      [2, 1],
    ],
    range: [0.5, 2],
    build: (a, b) => t.div(a, b),
  },
  { name: 'neg', shapes: [[4]], build: t.neg },
  { name: 'exp', shapes: [[2, 3]], build: t.exp },
  { name: 'log', shapes: [[2, 3]], range: [0.5, 2], build: t.log },
  { name: 'sqrt', shapes: [[2, 3]], range: [0.5, 2], build: t.sqrt },
  { name: 'square', shapes: [[2, 3]], build: t.square },
  { name: 'sumOfSquares', shapes: [[2, 3]], build: t.sumOfSquares },
  { name: 'scaleBy', shapes: [[2, 3]], build: (x) => t.scaleBy(x, -2.5) },
  { name: 'sigmoid', shapes: [[2, 3]], build: t.sigmoid },
  { name: 'tanh', shapes: [[2, 3]], build: t.tanh },
  {
    name: 'dropout',
    shapes: [[2, 3, 4]],
    build: (x) =>
      t.dropout(x, {
        rowKeys: floats([6, 1], [0.1, 0.9, 0.3, 0.5, 0.7, 0.2]),
        columnKeys: floats([1, 4], [0.15, 0.4, 0.65, 0.8]),
        rate: t.scalar(0.4),
      }),
  },
  { name: 'erf', shapes: [[2, 3]], build: t.erf },
  { name: 'silu', shapes: [[2, 3]], range: [-3, 3], build: (x) => t.activate(x, 'silu') },
  { name: 'quick_gelu', shapes: [[2, 3]], range: [-3, 3], build: (x) => t.activate(x, 'quick_gelu') },
  { name: 'gelu', shapes: [[2, 3]], range: [-3, 3], build: (x) => t.activate(x, 'gelu') },
  { name: 'gelu_tanh', shapes: [[2, 3]], range: [-3, 3], build: (x) => t.activate(x, 'gelu_tanh') },
  { name: 'sum over one axis', shapes: [[2, 3, 4]], build: (x) => t.sum(x, { axes: [1] }) },
  { name: 'sum over all, kept', shapes: [[2, 3]], build: (x) => t.sum(x, { keepDims: true }) },
  { name: 'mean', shapes: [[2, 3, 4]], build: (x) => t.mean(x, { axes: [0, -1] }) },
  { name: 'sumTo', shapes: [[2, 3, 4]], build: (x) => t.sumTo(x, [3, 1]) },
  { name: 'expand', shapes: [[3, 1]], build: (x) => t.expand(x, [2, 3, 4]) },
  { name: 'reshape', shapes: [[2, 6]], build: (x) => t.reshape(x, [3, 4]) },
  { name: 'reshapeLike', shapes: [[6], [2, 3]], build: (x, y) => t.mul(t.reshapeLike(x, y), y) },
  { name: 'rows', shapes: [[2, 3, 4]], build: (x) => t.rows(x) },
  { name: 'splitLast', shapes: [[2, 6]], build: (x) => t.splitLast(x, 3) },
  { name: 'transpose', shapes: [[2, 3, 4]], build: (x) => t.transpose(x, [2, 0, 1]) },
  { name: 'slice in the middle', shapes: [[2, 5]], build: (x) => t.slice(x, { axis: 1, start: 1, end: 4 }) },
  { name: 'slice of everything', shapes: [[2, 5]], build: (x) => t.slice(x, { axis: 1, start: 0, end: 5 }) },
  {
    name: 'concat',
    shapes: [
      [2, 1],
      [2, 3],
      [2, 2],
    ],
    build: (...parts) => t.concat(parts, 1),
  },
  {
    name: 'matmul',
    shapes: [
      [3, 4],
      [4, 2],
    ],
    build: (a, b) => t.matmul(a, b),
  },
  {
    name: 'matmul, batched and broadcast',
    shapes: [
      [2, 1, 3, 4],
      [5, 4, 2],
    ],
    build: (a, b) => t.matmul(a, b),
  },
  {
    name: 'matmul aᵀ b',
    shapes: [
      [2, 4, 3],
      [2, 4, 5],
    ],
    build: (a, b) => t.matmul(a, b, { transposeA: true, scale: 0.5 }),
  },
  {
    name: 'matmul a bᵀ',
    shapes: [
      [2, 3, 4],
      [2, 5, 4],
    ],
    build: (a, b) => t.matmul(a, b, { transposeB: true, scale: 2 }),
  },
  {
    name: 'matmul aᵀ bᵀ',
    shapes: [
      [4, 3],
      [5, 4],
    ],
    build: (a, b) => t.matmul(a, b, { transposeA: true, transposeB: true, scale: -1 }),
  },
  {
    name: 'linear',
    shapes: [
      [2, 3, 4],
      [5, 4],
    ],
    build: (x, weight) => t.linear(x, { weight }),
  },
  {
    name: 'linear with bias',
    shapes: [[2, 3, 4], [5, 4], [5]],
    build: (x, weight, bias) => t.linear(x, { weight, bias }),
  },
  { name: 'softmax', shapes: [[2, 3, 5]], range: [-3, 3], build: t.softmax },
  { name: 'logSoftmax', shapes: [[3, 5]], range: [-3, 3], build: t.logSoftmax },
  {
    name: 'layerNorm',
    shapes: [[2, 3, 8], [8], [8]],
    build: (x, weight, bias) => t.layerNorm(x, { weight, bias, epsilon: 1e-5 }),
  },
  { name: 'rmsNorm', shapes: [[2, 3, 8], [8]], build: (x, weight) => t.rmsNorm(x, { weight, epsilon: 1e-5 }) },
  { name: 'gatherRows, repeated index', shapes: [[4, 3]], build: (x) => t.gatherRows(x, int64([2, 2], [1, 3, 1, 0])) },
  {
    name: 'addRows, repeated index',
    shapes: [
      [4, 3],
      [3, 3],
    ],
    build: (base, rows) => t.addRows(base, int64([3], [2, 0, 2]), rows),
  },
  {
    name: 'replaceRows',
    shapes: [
      [4, 3],
      [2, 3],
    ],
    build: (base, rows) => t.replaceRows(base, int64([2], [3, 1]), rows),
  },
  { name: 'pick', shapes: [[3, 5]], build: (x) => t.pick(x, int64([3], [4, 0, 0])) },
  {
    name: 'addPicked',
    shapes: [[3, 5], [3]],
    build: (base, values) => t.addPicked(base, int64([3], [4, 0, 0]), values),
  },
  { name: 'repeatHeads', shapes: [[2, 2, 3, 4]], build: (x) => t.repeatHeads(x, 3) },
  { name: 'rotary', shapes: [[2, 5, 16]], build: (x) => t.rotary(x, { positions, tables, heads: 2 }) },
  {
    name: 'attention',
    shapes: [
      [2, 5, 16],
      [2, 5, 16],
      [2, 5, 16],
    ],
    build: (query, key, value) => t.attention({ query, key, value }, { heads: 2 }).output,
  },
  {
    name: 'attention, fewer queries than keys',
    shapes: [
      [2, 1, 8],
      [2, 5, 8],
      [2, 5, 8],
    ],
    build: (query, key, value) => t.attention({ query, key, value }, { heads: 2 }).output,
  },
  {
    name: 'attention, causal and grouped',
    shapes: [
      [2, 5, 32],
      [2, 5, 16],
      [2, 5, 16],
    ],
    build: (query, key, value) =>
      t.attention({ query, key, value }, { heads: 4, keyValueHeads: 2, mask: causal(5) }).output,
  },
  {
    name: 'crossEntropy',
    shapes: [[4, 6]],
    range: [-3, 3],
    build: (logits) =>
      t.crossEntropy(logits, { targets: int64([4], [0, 5, 2, 2]), weights: floats([4], [1, 0, 0.5, 2]) }),
  },
  {
    name: 'sigmoidLoss',
    shapes: [[3, 3]],
    range: [-3, 3],
    build: (logits) =>
      t.sigmoidLoss(logits, {
        labels: floats([3, 3], [1, -1, -1, -1, 1, -1, -1, -1, 1]),
        weights: floats([3, 3], [1, 1, 0, 1, 2, 1, 1, 1, 1]),
      }),
  },
]

describe('gradient agrees with central differences for', () => {
  test.each(cases)('$name', async ({ shapes, build, range = [-1, 1] }) => {
    const variables = shapes.map((shape, i) => t.parameter(`x${i}`, shape))
    const y = build(...variables)
    const random = generator(7)
    const size = (y.shape as number[]).reduce((a, b) => a * b, 1)
    const direction = t.constant(
      'float32',
      y.shape as number[],
      Float32Array.from({ length: size }, () => random() * 2 - 1),
    )
    const loss = t.sum(t.mul(y, direction))
    const gradients = t.gradient(loss, variables)
    const outputs = { loss, ...Object.fromEntries(gradients.map((g, i) => [`g${i}`, g])) }
    const session = await createSession(t.writeOnnx(outputs, { parameters: 'inputs' }).model, { threads: 1 })

    const values = shapes.map((shape) => fill(shape, () => range[0] + random() * (range[1] - range[0])))
    const evaluate = (list: ResidentTensor[]) => run(session, Object.fromEntries(list.map((x, i) => [`x${i}`, x])))
    const center = await evaluate(values)
    const forGpu = t.writeOnnx(outputs, { parameters: 'inputs', operators: 'gpu' }).model
    await expectSame(forGpu, { inputs: Object.fromEntries(values.map((x, i) => [`x${i}`, x])), expected: center })
    for (let trial = 0; trial < 3; trial++) {
      const steps = values.map((value) => Float32Array.from(value.data as Float32Array, () => random() * 2 - 1))
      const moved = async (epsilon: number) => {
        const list = values.map((value, i) =>
          residentTensor('float32', value.shape, {
            data: Float32Array.from(value.data as Float32Array, (x, j) => x + epsilon * steps[i]![j]!),
          }),
        )
        return Number((await evaluate(list)).loss!.data[0])
      }
      const epsilon = 1e-2
      // Richardson extrapolation of two central differences: the error falls with the fourth power of the step.
      const coarse = ((await moved(epsilon)) - (await moved(-epsilon))) / (2 * epsilon)
      const fine = ((await moved(epsilon / 2)) - (await moved(-epsilon / 2))) / epsilon
      const numeric = (4 * fine - coarse) / 3
      const parts = steps.flatMap((step, i) => [...step].map((s, j) => s * Number(center[`g${i}`]!.data[j])))
      const analytic = parts.reduce((a, b) => a + b, 0)
      const scale = Math.sqrt(parts.reduce((a, b) => a + b * b, 0)) + 0.05
      expect(Math.abs(analytic - numeric) / scale).toBeLessThan(5e-3)
    }
    await disposeSession(session)
  })
})

test('gradient() refuses a variable that the loss does not depend on', () => {
  const x = t.parameter('x', [2])
  expect(() => t.gradient(t.sum(x), [t.parameter('unused', [2])])).toThrow('does not depend on parameter:unused')
})

test('gradient() adds up over every use of a parameter, also when it was asked for twice by name', async () => {
  const [a, b] = [t.parameter('w', [2]), t.parameter('w', [2])]
  const [g] = t.gradient(t.sum(t.mul(a, b)), [t.parameter('w', [2])])
  const session = await createSession(t.writeOnnx({ g: g! }, { parameters: 'inputs' }).model, { threads: 1 })
  const w = residentTensor('float32', [2], { data: Float32Array.of(3, -4) })
  expect([...(await run(session, { w })).g!.data]).toEqual([6, -8])
})

/** Graphs written for a GPU say the same in other operators; here they run on the CPU, which has them all. */
async function expectSame(
  model: Uint8Array,
  { inputs, expected }: { inputs: Record<string, ResidentTensor>; expected: Record<string, ResidentTensor> },
): Promise<void> {
  const session = await createSession(model, { threads: 1 })
  const results = await run(session, inputs)
  for (const [name, { data }] of Object.entries(expected)) {
    const other = results[name]!.data
    for (let i = 0; i < data.length; i++) expect(Number(other[i])).toBeCloseTo(Number(data[i]), 4)
  }
  await disposeSession(session)
}

function fill(shape: readonly number[], next: () => number): ResidentTensor {
  const size = shape.reduce((a, b) => a * b, 1)
  return residentTensor('float32', shape, { data: Float32Array.from({ length: size }, next) })
}

/** A small linear congruential generator: tests must not depend on chance. */
function generator(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
}
