import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import * as t from './index.ts'
import { sortNodes } from './onnx.ts'
import { recompute } from './recompute.ts'
import type { Tensor } from './tensor.ts'

const shape = [2, 6, 8] as const
const mask = t.constant('float32', [6, 6], t.causalMask(6))
const plain = (x: Tensor, block: (x: Tensor) => Tensor) => block(x)

/** A residual block with attention and a gated layer. */
function block(x: Tensor, number: number): Tensor {
  const weight = (name: string) => t.parameter(`${number}.${name}`, [8, 8])
  const normal = t.rmsNorm(x, { weight: t.parameter(`${number}.norm`, [8]), epsilon: 1e-5 })
  const project = (name: string) => t.linear(normal, { weight: weight(name) })
  const inputs = { query: project('query'), key: project('key'), value: project('value') }
  const attended = t.add(x, t.attention(inputs, { heads: 2, mask }).output)
  const gate = t.activate(t.linear(attended, { weight: weight('gate') }), 'silu')
  return t.add(attended, t.linear(gate, { weight: weight('down') }))
}

/** Loss and gradients of `depth` blocks, each applied by `through`. */
function network(through: typeof plain, depth: number): Record<string, Tensor> {
  let x = t.parameter('x', shape)
  for (let number = 0; number < depth; number++) x = through(x, (x) => block(x, number))
  const loss = t.sum(t.mul(t.tanh(x), t.parameter('target', shape)))
  const found = new Map<string, Tensor>()
  for (const tensor of sortNodes([loss]).flatMap((node) => node.inputs)) {
    if (tensor.origin.kind === 'parameter') found.set(tensor.origin.name, tensor)
  }
  const gradients = t.gradient(loss, [...found.values()])
  return { loss, ...Object.fromEntries([...found.keys()].map((name, index) => [`to ${name}`, gradients[index]!])) }
}

async function evaluate(
  outputs: Readonly<Record<string, Tensor>>,
  options: { given?: Readonly<Record<string, ResidentTensor>>; profile?: string } = {},
): Promise<Record<string, number[]>> {
  const graph = t.writeOnnx(outputs, { parameters: 'inputs' })
  const { profile } = options
  const session = await createSession(graph.model, { threads: 1, ...(profile !== undefined && { profile }) })
  const values = graph.parameters.map(({ name, shape }) => {
    const data = Float32Array.from({ length: shape.reduce<number>((size, dim) => size * Number(dim), 1) }, (_, i) =>
      Math.sin(i * 12.9898 + name.length),
    )
    return [name, options.given?.[name] ?? residentTensor('float32', shape.map(Number), { data })] as const
  })
  const results = await run(session, Object.fromEntries(values))
  await disposeSession(session)
  return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, [...data].map(Number)]))
}

describe('recompute', () => {
  test('changes no bit of loss and gradients', async () => {
    const kept = await evaluate(network(plain, 3))
    expect(Object.keys(kept)).toHaveLength(2 + 1 + 3 * 6)
    expect(Object.values(kept).every((values) => values.some((value) => value !== 0))).toBe(true)
    expect(await evaluate(network(recompute, 3))).toEqual(kept)
  })

  test('computes a block again, once', () => {
    const count = (outputs: Record<string, Tensor>, operator: string) =>
      sortNodes(Object.values(outputs)).filter((node) => node.operator === operator).length
    const [kept, again] = [network(plain, 3), network(recompute, 3)]
    expect([count(kept, 'attention'), count(again, 'attention')]).toEqual([3, 6])
    expect([count(kept, 'rmsNorm'), count(again, 'rmsNorm')]).toEqual([3, 6])
    expect([count(kept, 'after'), count(again, 'after')]).toEqual([0, 3])
    // The second pass ends where the last value that a gradient needs is there: the sum that is the block's result is none.
    const forward = (through: typeof plain) => {
      const { loss } = network(through, 3)
      return sortNodes([loss!]).filter((node) => node.operator !== 'recompute').length
    }
    expect(forward(recompute)).toBe(forward(plain))
  })

  test('is not undone by the runtime', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'recompute-'))
    const executed = async (through: typeof plain, name: string) => {
      await evaluate(network(through, 3), { profile: join(folder, name) })
      const file = (await readdir(folder)).find((file) => file.startsWith(name))!
      const events = JSON.parse(await readFile(join(folder, file), 'utf8')) as { args?: { op_name?: string } }[]
      return events.filter(({ args }) => args?.op_name === 'Softmax').length
    }
    expect([await executed(plain, 'kept'), await executed(recompute, 'again')]).toEqual([3, 6])
    await rm(folder, { recursive: true })
  })

  test('hands its input on to the second pass to the bit', async () => {
    const [x, w] = [t.parameter('x', [5]), t.parameter('w', [5])]
    const [toWeight] = t.gradient(
      t.sum(
        t.mul(
          recompute(x, (x) => t.mul(x, w)),
          t.parameter('v', [5]),
        ),
      ),
      [w],
    )
    const of = (...values: number[]) => residentTensor('float32', [5], { data: Float32Array.from(values) })
    const special = [-0, 0, Number.NaN, Number.NEGATIVE_INFINITY, 1e-40]
    for (const first of [1, Number.NaN, Number.POSITIVE_INFINITY]) {
      const given = { x: of(...special), w: of(1, 1, 1, 1, 1), v: of(first, 1, 1, 1, 1) }
      const { result } = await evaluate({ result: toWeight! }, { given })
      expect(result!.slice(1)).toEqual([...Float32Array.from(special)].slice(1))
      if (first === 1) expect(result![0]).toBe(-0)
    }
  })

  test('follows weights that are shared, and values that were computed outside', async () => {
    const build = (through: typeof plain) => {
      const [x, w] = [t.parameter('x', [3]), () => t.parameter('w', [3])]
      const outside = t.exp(t.mul(w(), t.parameter('u', [3])))
      const inner = (x: Tensor) => t.tanh(t.add(t.mul(t.mul(x, w()), outside), t.mul(w(), x)))
      const loss = t.sum(t.square(through(through(x, inner), inner)))
      const [toX, toW, toU, toOutside] = t.gradient(loss, [x, w(), t.parameter('u', [3]), outside])
      return { loss, toX: toX!, toW: toW!, toU: toU!, toOutside: toOutside! }
    }
    const [kept, again] = [await evaluate(build(plain)), await evaluate(build(recompute))]
    for (const [name, values] of Object.entries(kept)) {
      values.forEach((value, index) => {
        expect(again[name]![index]).toBeCloseTo(value, 5)
      })
    }
  })

  test('within another recomputation gives the same gradients', async () => {
    const nested = (x: Tensor, block: (x: Tensor) => Tensor) => recompute(x, (x) => recompute(x, block))
    expect(await evaluate(network(nested, 2))).toEqual(await evaluate(network(plain, 2)))
  })
})
