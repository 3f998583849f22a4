/** One layer of cached attention for one token, and readers of the same cache: what generation costs at least. */

import { disposeTensor, type ResidentTensor, residentTensor } from '../src/runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../src/runtime/session.ts'
import { cachedAttention, input, rotaryTables, type Tensor, writeOnnx } from '../src/tensor/index.ts'
import { apply } from '../src/tensor/tensor.ts'

const heads = 32
const headSize = 128

type Cache = { readonly key: ResidentTensor<'float32'>; readonly value: ResidentTensor<'float32'> }

export type AttentionStep = {
  readonly bytes: number
  readonly shape: readonly number[]
  readonly caches: readonly Cache[]
  readonly next: () => Cache
  readonly run: (cache: Cache) => Promise<unknown>
  readonly dispose: () => Promise<void>
}

/** Attends to `tokens` cached tokens, the last of which is appended by the call. The cache is exactly as large. */
export async function cachedAttentionStep(tokens: number): Promise<AttentionStep> {
  const shape = [1, heads, tokens, headSize]
  const width = heads * headSize
  const token = (name: string) => input(name, 'float32', [1, 1, width])
  const { output, cache } = cachedAttention(
    {
      query: token('query'),
      key: token('key'),
      value: token('value'),
      cache: { key: input('pastKey', 'float32', shape), value: input('pastValue', 'float32', shape) },
      lastIndex: input('lastIndex', 'int32', [1]),
      total: input('total', 'int32', []),
    },
    { heads, keyValueHeads: heads, tables: rotaryTables({ positions: tokens, headSize, theta: 10_000 }) },
  )
  const graph = writeOnnx(
    { output, nextKey: cache.key, nextValue: cache.value },
    { parameters: 'inputs', name: 'attention' },
  )
  const session = await createSession(graph.model)
  const bytes = 2 * heads * tokens * headSize * 4
  const caches = Array.from({ length: Math.ceil(512e6 / bytes) }, () => ({ key: filled(shape), value: filled(shape) }))
  const inputs = {
    query: filled([1, 1, width]),
    key: filled([1, 1, width]),
    value: filled([1, 1, width]),
    lastIndex: residentTensor('int32', [1], { data: Int32Array.of(tokens - 1) }),
    total: residentTensor('int32', [], { data: Int32Array.of(tokens) }),
  }
  const result = residentTensor('float32', [1, 1, width])
  return {
    bytes,
    shape,
    caches,
    next: inTurns(caches, 0),
    run: ({ key, value }) =>
      run(
        session,
        { ...inputs, pastKey: key, pastValue: value },
        { outputs: { output: result, nextKey: key, nextValue: value }, fetch: [] },
      ),
    dispose: async () => {
      await disposeSession(session)
      for (const { key, value } of caches) [key, value].forEach(disposeTensor)
      for (const tensor of [...Object.values(inputs), result]) disposeTensor(tensor)
    },
  }
}

/** Reads all keys and values once and keeps next to nothing, on all threads. */
export async function cacheReader({ shape, caches }: AttentionStep, type: 'ReduceSum' | 'ReduceMax') {
  const part = (name: string) => reduceRows(input(name, 'float32', shape), type)
  const session = await createSession(
    writeOnnx({ a: part('key'), b: part('value') }, { parameters: 'inputs', name: 'reader' }).model,
  )
  const outputs = { a: residentTensor('float32', shape.slice(0, -1)), b: residentTensor('float32', shape.slice(0, -1)) }
  // Half a round ahead of the attention, so that neither warms the processor's cache for the other.
  const offset = Math.floor(caches.length * (type === 'ReduceSum' ? 1 / 3 : 2 / 3))
  return {
    next: inTurns(caches, offset),
    run: ({ key, value }: Cache) => run(session, { key, value }, { outputs, fetch: [] }),
    dispose: async () => {
      await disposeSession(session)
      Object.values(outputs).forEach(disposeTensor)
    },
  }
}

function reduceRows(x: Tensor, type: 'ReduceSum' | 'ReduceMax'): Tensor {
  return apply({
    operator: type,
    inputs: [x],
    dtype: x.dtype,
    shape: x.shape.slice(0, -1),
    onnx: (emit, [name = ''], outputs) =>
      emit.node(type, [name, emit.integers([-1])], outputs, { attributes: { keepdims: 0 } }),
  })
}

function inTurns<T>(items: readonly T[], offset: number): () => T {
  let turn = offset
  return () => {
    const item = items[turn++ % items.length]
    if (item === undefined) throw new RangeError('There is nothing to take turns with')
    return item
  }
}

function filled(shape: readonly number[]): ResidentTensor<'float32'> {
  const tensor = residentTensor('float32', shape)
  for (let i = 0; i < tensor.data.length; i++) tensor.data[i] = ((i * 7919) % 251) / 251 - 0.5
  return tensor
}
