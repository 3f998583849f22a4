/** Tiny models for the tests of sessions, written as protobuf wire bytes after onnx.proto. */

import { onTestFinished } from 'vitest'
import { type ResidentTensor, residentTensor } from './resident-tensor.ts'
import { createSession, disposeSession, type Session, type SessionOptions } from './session.ts'

export type Graph = {
  nodes: Uint8Array[]
  inputs: string[]
  outputs: string[]
  initializers?: Uint8Array[]
  type?: number
  ranks?: Record<string, number>
}

/** Rows and columns of the matrices of `slowSession`. */
export const size = 384

/** y = x · w + b */
export const linear = graph({
  nodes: [node('MatMul', ['x', 'w'], ['m']), node('Add', ['m', 'b'], ['y'])],
  inputs: ['x', 'w', 'b'],
  outputs: ['y'],
  ranks: { x: 2, w: 2, b: 1 },
})

/** A chain of matrix products long enough to be interrupted: 34 GFLOP on one thread. */
export async function slowSession(): Promise<{ session: Session; inputs: Record<string, ResidentTensor> }> {
  const length = 300
  const nodes = Array.from({ length }, (_, i) =>
    node('MatMul', [i === 0 ? 'x' : `h${i}`, 'w'], [i === length - 1 ? 'y' : `h${i + 1}`]),
  )
  const session = await opened(graph({ nodes, inputs: ['x', 'w'], outputs: ['y'] }), { threads: 1 })
  const x = residentTensor('float32', [size, size])
  const w = residentTensor('float32', [size, size])
  for (let i = 0; i < size; i++) x.data[i * (size + 1)] = w.data[i * (size + 1)] = 1
  return { session, inputs: { x, w } }
}

/** A session that is disposed when the test that opened it ends. */
export async function opened(model: Uint8Array, options?: SessionOptions): Promise<Session> {
  const session = await createSession(model, options)
  onTestFinished(() => disposeSession(session))
  return session
}

export function floats(shape: number[], values: number[]): ResidentTensor<'float32'> {
  return residentTensor('float32', shape, { data: Float32Array.from(values) })
}

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))]
}

function int(field: number, value: number): Uint8Array {
  return Uint8Array.from([...varint(field * 8), ...varint(value)])
}

function bytes(field: number, value: string | readonly Uint8Array[]): Uint8Array {
  const content = typeof value === 'string' ? Buffer.from(value) : Buffer.concat(value)
  return Buffer.concat([Uint8Array.from([...varint(field * 8 + 2), ...varint(content.length)]), content])
}

/** One operator of a graph. */
export function node(operator: string, inputs: string[], outputs: string[]): Uint8Array {
  return bytes(1, [
    ...inputs.map((name) => bytes(1, name)),
    ...outputs.map((name) => bytes(2, name)),
    bytes(4, operator),
  ])
}

/** A float32 initializer whose elements come from outside. */
export function externalTensor(name: string, shape: number[]): Uint8Array {
  const location = bytes(13, [bytes(1, 'location'), bytes(2, 'weights')])
  return bytes(5, [...shape.map((dim) => int(1, dim)), int(2, 1), bytes(8, name), location, int(14, 1)])
}

/** A float32 initializer of zeros. */
export function rawTensor(name: string, shape: number[]): Uint8Array {
  const raw = new Uint8Array(4 * shape.reduce((product, dim) => product * dim, 1))
  return bytes(5, [...shape.map((dim) => int(1, dim)), int(2, 1), bytes(8, name), bytes(9, [raw])])
}

/** Dimensions are left open: the rank is stated for the names in `ranks`, nothing for the others. */
export function graph({ nodes, inputs, outputs, initializers = [], type = 1, ranks = {} }: Graph): Uint8Array {
  const value = (field: number, name: string) => {
    const dims = Array.from({ length: ranks[name] ?? 0 }, (_, axis) => bytes(1, [bytes(2, `${name}${axis}`)]))
    const tensor = name in ranks ? [int(1, type), bytes(2, dims)] : [int(1, type)]
    return bytes(field, [bytes(1, name), bytes(2, [bytes(1, tensor)])])
  }
  const body = [
    ...nodes,
    bytes(2, 'test'),
    ...initializers,
    ...inputs.map((name) => value(11, name)),
    ...outputs.map((name) => value(12, name)),
  ]
  return Buffer.concat([int(1, 10), bytes(7, body), bytes(8, [bytes(1, ''), int(2, 21)])])
}
