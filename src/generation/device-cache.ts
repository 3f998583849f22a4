/**
 * KV caches in the memory of a GPU, which JavaScript cannot reach into: growing one and moving a row of a batch are small graphs.
 *
 * Extending a cache needs none of them: cached attention writes new keys and values behind the old ones where they are, as on the CPU.
 */

import type { LanguageModelConfig } from '../model/config.ts'
import type { Compute } from '../runtime/device.ts'
import { type DeviceTensor, disposeTensor, residentTensor, type SessionTensor } from '../runtime/resident-tensor.ts'
import { createSession, deviceTensor, disposeSession, run, type Session } from '../runtime/session.ts'
import {
  cachedAttention,
  gatherRows,
  input,
  padEnd,
  replaceRows,
  rotaryTables,
  type Tensor,
  writeOnnx,
} from '../tensor/index.ts'
import { cacheName } from './graphs.ts'
import { type CacheBlocks, type CacheMemory, type CacheType, disposeCache } from './kv-cache.ts'

export type DeviceCaches = {
  readonly config: LanguageModelConfig
  readonly type: CacheType
  readonly sessions: { readonly grow: Session; readonly takeRow: Session; readonly putRow: Session }
  /** The most tokens that attention over a cache reads rightly at once. */
  readonly longestRead: number
}

/** A cache on a device. Its memory belongs to the `DeviceCaches` that it was made with. */
export type DeviceCache = CacheBlocks<DeviceTensor<CacheType>>

export async function openDeviceCaches(
  config: LanguageModelConfig,
  { type, ...compute }: Compute & { type: CacheType },
): Promise<DeviceCaches> {
  const longestRead = (await readsLongPrompts(compute)) ? Number.POSITIVE_INFINITY : shortRead
  const index = input('index', 'int64', [1])
  const shape = (batch: string | 1) => [batch, config.keyValueHeads, 'capacity', config.headSize]
  const part = (name: string) => input(name, type, shape('B'))
  const compile = async (name: string, change: (name: string) => Tensor) => {
    const outputs = Object.fromEntries(partNames(config).map((name) => [changed(name), change(name)]))
    return createSession(writeOnnx(outputs, { parameters: 'inputs', name, operators: 'gpu' }).model, compute)
  }
  const grow = await compile('grow the cache', (name) =>
    padEnd(part(name), { axis: 2, count: input('count', 'int64', [1]), dim: 'larger' }),
  )
  const takeRow = await compile('take a row', (name) => gatherRows(part(name), index))
  const putRow = await compile('put a row', (name) =>
    replaceRows(part(name), index, input(`row:${name}`, type, shape(1))),
  )
  return { config, type, sessions: { grow, takeRow, putRow }, longestRead }
}

/** From 32 tokens on, attention takes another kernel, which counts keys twice where subgroups have fewer than 8 threads: software drivers have 4. */
const shortRead = 16

/** Tries that kernel on keys that are all alike: each token's result is then the mean of the values up to its own, here of 0, 1, 2, … */
async function readsLongPrompts(compute: Compute): Promise<boolean> {
  const [L, H] = [48, 16]
  const [row, cache] = [input('row', 'float32', [1, L, H]), input('cache', 'float32', [1, 1, L, H])]
  const { output } = cachedAttention(
    {
      query: row,
      key: row,
      value: input('value', 'float32', [1, L, H]),
      cache: { key: cache, value: cache },
      lastIndex: input('lastIndex', 'int32', [1]),
      total: input('total', 'int32', []),
    },
    { heads: 1, keyValueHeads: 1, tables: rotaryTables({ positions: L, headSize: H, theta: 10_000 }) },
  )
  const { model } = writeOnnx({ output }, { parameters: 'inputs', name: 'try attention', operators: 'gpu' })
  const session = await createSession(model, compute)
  const inputs = {
    row: residentTensor('float32', [1, L, H]),
    value: residentTensor('float32', [1, L, H], {
      data: Float32Array.from({ length: L * H }, (_, i) => Math.floor(i / H)),
    }),
    cache: residentTensor('float32', [1, 1, L, H]),
    lastIndex: residentTensor('int32', [1], { data: Int32Array.of(L - 1) }),
    total: residentTensor('int32', [], { data: Int32Array.of(L) }),
  }
  try {
    const { output: found } = await run(session, inputs)
    if (found === undefined) return false
    disposeTensor(found)
    return Array.from(found.data, Number).every((value, i) => Math.abs(value - Math.floor(i / H) / 2) < 1e-3)
  } finally {
    Object.values(inputs).forEach(disposeTensor)
    await disposeSession(session)
  }
}

/** Frees the sessions and every cache that is left. Safe to repeat. */
export async function closeDeviceCaches({ sessions }: DeviceCaches): Promise<void> {
  await Promise.all(Object.values(sessions).map(disposeSession))
}

/** New memory. What is in it is never looked at before it is written. */
export async function allocateDeviceCache(
  { config, type, sessions }: DeviceCaches,
  { capacity, batch = 1 }: { capacity: number; batch?: number },
): Promise<DeviceCache> {
  const { depth, keyValueHeads, headSize } = config
  const made: DeviceTensor<CacheType>[] = []
  const part = async () => {
    const shape = [batch, keyValueHeads, capacity, headSize]
    const tensor = await deviceTensor(sessions.grow, { dtype: type, shape })
    made.push(tensor)
    return tensor
  }
  try {
    const blocks: { key: DeviceTensor<CacheType>; value: DeviceTensor<CacheType> }[] = []
    for (let block = 0; block < depth; block++) blocks.push({ key: await part(), value: await part() })
    return { batch, capacity, blocks }
  } catch (error) {
    made.forEach(disposeTensor)
    throw error
  }
}

/** Larger memory that holds what `cache` holds, which is freed. */
export async function growDeviceCache(
  caches: DeviceCaches,
  { cache, capacity }: { cache: CacheMemory; capacity: number },
): Promise<DeviceCache> {
  if (capacity < cache.capacity) {
    throw new RangeError(`Cannot grow a cache of ${cache.capacity} positions to ${capacity}: expected more`)
  }
  const grown = await allocateDeviceCache(caches, { capacity, batch: cache.batch })
  await change(caches.sessions.grow, { from: cache, to: grown, number: { count: capacity - cache.capacity } })
  disposeCache(cache)
  return grown
}

/** Runs `work` with a row of a batched cache as a cache of its own: a copy, which is put back afterwards whatever became of the work. */
export async function withDeviceRow<T>(
  caches: DeviceCaches,
  { cache, row }: { cache: CacheMemory; row: number },
  work: (cache: DeviceCache) => Promise<T>,
): Promise<T> {
  const { takeRow, putRow } = caches.sessions
  const alone = await allocateDeviceCache(caches, { capacity: cache.capacity })
  try {
    await change(takeRow, { from: cache, to: alone, number: { index: row } })
    try {
      return await work(alone)
    } finally {
      const rows = named(alone, (name) => `row:${name}`)
      await change(putRow, { from: cache, to: cache, number: { index: row }, more: rows })
    }
  } finally {
    disposeCache(alone)
  }
}

/** Runs a graph that makes a part of one cache from each part of another, or changes it where it is. */
async function change(
  session: Session,
  given: { from: CacheMemory; to: CacheMemory; number: Record<string, number>; more?: Record<string, SessionTensor> },
): Promise<void> {
  const { from, to, number, more = {} } = given
  const numbers = Object.entries(number).map(
    ([name, value]) => [name, residentTensor('int64', [1], { data: BigInt64Array.of(BigInt(value)) })] as const,
  )
  const inputs = { ...named(from, (name) => name), ...more, ...Object.fromEntries(numbers) }
  try {
    await run(session, inputs, { outputs: named(to, changed), fetch: [] })
  } finally {
    for (const [, tensor] of numbers) disposeTensor(tensor)
  }
}

function named({ blocks }: CacheMemory, nameOf: (name: string) => string): Record<string, SessionTensor> {
  return Object.fromEntries(
    blocks.flatMap(({ key, value }, block) => [
      [nameOf(cacheName('key', block)), key] as const,
      [nameOf(cacheName('value', block)), value] as const,
    ]),
  )
}

function partNames({ depth }: LanguageModelConfig): string[] {
  return Array.from({ length: depth }, (_, block) => [cacheName('key', block), cacheName('value', block)]).flat()
}

function changed(name: string): string {
  return `changed:${name}`
}
