import { describe, expect, test } from 'vitest'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import {
  add,
  addLowRank,
  gatherRows,
  gradient,
  linear,
  matmul,
  mul,
  parameter,
  sum,
  type Tensor,
  writeOnnx,
} from './index.ts'
import { sortNodes } from './onnx.ts'

const sizes = { x: [2, 5, 7], weight: [11, 7], bias: [11], down: [3, 7], up: [11, 3], direction: [2, 5, 11] } as const
const named = (name: keyof typeof sizes) => parameter(name, sizes[name])
const [x, weight, bias, down, up] = [named('x'), named('weight'), named('bias'), named('down'), named('up')]

async function valuesOf(outputs: Record<string, Tensor>): Promise<Record<string, number[]>> {
  const graph = writeOnnx(outputs, { parameters: 'inputs' })
  const session = await createSession(graph.model, { threads: 1 })
  const inputs = graph.parameters.map(({ name, shape }) => {
    const size = shape.map(Number).reduce((a, b) => a * b, 1)
    const data = Float32Array.from({ length: size }, (_, i) => Math.sin(name.charCodeAt(0) + 2.3 * i))
    return [name, residentTensor('float32', shape.map(Number), { data })] as const
  })
  const results = await run(session, Object.fromEntries(inputs))
  await disposeSession(session)
  return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, Array.from(data, Number)]))
}

const distance = (a: readonly number[], b: readonly number[]) =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0)

describe('linear with a weight of low-rank change', () => {
  /** The result and the gradients of everything, for a loss that weighs each number of the result differently. */
  const outputsWith = (y: Tensor) => {
    const variables = { x, weight, bias, down, up }
    const gradients = gradient(sum(mul(y, named('direction'))), Object.values(variables))
    return { y, ...Object.fromEntries(Object.keys(variables).map((name, i) => [`to ${name}`, gradients[i]!])) }
  }

  test('gives what the summed weight gives, forwards and backwards', async () => {
    const fast = await valuesOf(outputsWith(linear(x, { weight: addLowRank(weight, { down, up }), bias })))
    const slow = await valuesOf(outputsWith(linear(x, { weight: add(weight, matmul(up, down)), bias })))
    expect(Object.keys(fast)).toHaveLength(6)
    for (const [name, values] of Object.entries(slow)) expect(distance(fast[name]!, values)).toBeLessThan(2e-5)
  })

  test('makes nothing of the size of the weight for the gradients of its change', () => {
    const made = (y: Tensor) =>
      sortNodes(gradient(sum(y), [down, up])).flatMap(({ outputs }) => outputs.map(({ shape }) => shape.join()))
    expect(made(linear(x, { weight: add(weight, matmul(up, down)), bias }))).toContain('11,7')
    expect(made(linear(x, { weight: addLowRank(weight, { down, up }), bias }))).not.toContain('11,7')
  })

  test('is a weight like others where it is not multiplied', async () => {
    const rows = (table: Tensor) => gatherRows(table, parameter('index', [2], 'int64'))
    const graph = writeOnnx(
      { fast: rows(addLowRank(weight, { down, up })), slow: rows(add(weight, matmul(up, down))) },
      { parameters: 'inputs' },
    )
    const session = await createSession(graph.model, { threads: 1 })
    const filled = (shape: readonly number[]) =>
      residentTensor('float32', shape, {
        data: Float32Array.from({ length: shape[0]! * shape[1]! }, (_, i) => Math.cos(i)),
      })
    const index = residentTensor('int64', [2], { data: BigInt64Array.of(4n, 0n) })
    const inputs = { weight: filled([11, 7]), down: filled([3, 7]), up: filled([11, 3]), index }
    const { fast, slow } = await run(session, inputs)
    await disposeSession(session)
    expect(distance(Array.from(fast!.data, Number), Array.from(slow!.data, Number))).toBeLessThan(1e-6)
  })

  test('needs shapes that fit', () => {
    expect(() => addLowRank(weight, { down: up, up: down })).toThrow(
      'Cannot change a weight [11, 7] by [3, 7] times [11, 3]: expected [Out, r] times [r, In]',
    )
    expect(() => addLowRank(bias, { down, up })).toThrow(RangeError)
  })
})
