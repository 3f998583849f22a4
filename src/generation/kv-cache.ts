/** The memory of a KV cache: keys and values of every token that the language model has read, block by block, changed in place. */

import type { LanguageModelConfig } from '../model/config.ts'
import { elementFormat } from '../runtime/element-type.ts'
import {
  disposeTensor,
  type ResidentTensor,
  residentTensor,
  type SessionTensor,
  view,
} from '../runtime/resident-tensor.ts'

export type CacheBlocks<T> = {
  readonly batch: number // B
  readonly capacity: number // positions per row
  readonly blocks: readonly {
    readonly key: T // [B, Nkv, capacity, H]
    readonly value: T // [B, Nkv, capacity, H]
  }[]
}

/** Wherever it lies: in main memory, or on a device (device-cache.ts). */
export type CacheMemory = CacheBlocks<SessionTensor<CacheType>>

/** In main memory. */
export type HostCache = CacheBlocks<CacheTensor>

type CacheTensor = ResidentTensor<CacheType>

/** float16 takes half of the memory and int8 a quarter (cache-scales.ts), and reading a prompt then takes longer. */
export const cacheTypes = ['float32', 'float16', 'int8'] as const
export type CacheType = (typeof cacheTypes)[number]

/** Below this, growing would cost more than the memory is worth. */
const smallestCapacity = 256

/** How many positions to allocate for `tokens`: the next power of two, never more than the context, which `tokens` must not exceed. */
export function capacityFor(tokens: number, { context }: Pick<LanguageModelConfig, 'context'>): number {
  if (tokens > context) {
    throw new RangeError(`Cannot cache ${tokens} tokens: expected at most the context of ${context}`)
  }
  return Math.min(context, Math.max(smallestCapacity, 2 ** Math.ceil(Math.log2(Math.max(1, tokens)))))
}

/** Bytes that one token takes in the cache. */
export function cacheBytesPerToken({ depth, keyValueHeads, headSize }: LanguageModelConfig, type: CacheType): number {
  return 2 * depth * keyValueHeads * headSize * elementFormat(type).bytes
}

/** The longest context that the model allows and `memory`, in bytes, can hold. */
export function longestContext(
  config: LanguageModelConfig,
  { memory, type }: { memory: number; type: CacheType },
): number {
  return Math.min(config.context, Math.floor(memory / cacheBytesPerToken(config, type)))
}

/** New memory, filled with zeros. */
export function allocateCache(
  { depth, keyValueHeads, headSize }: LanguageModelConfig,
  { capacity, batch = 1, type = 'float32' }: { capacity: number; batch?: number; type?: CacheType },
): HostCache {
  const part = () => residentTensor(type, [batch, keyValueHeads, capacity, headSize])
  return { batch, capacity, blocks: Array.from({ length: depth }, () => ({ key: part(), value: part() })) }
}

/** Larger memory that holds the first `length` positions of each row of `cache`, which is freed. */
export function growCache(
  config: LanguageModelConfig,
  { cache, capacity, length }: { cache: HostCache; capacity: number; length: number },
): HostCache {
  if (capacity < cache.capacity) {
    throw new RangeError(`Cannot grow a cache of ${cache.capacity} positions to ${capacity}: expected more`)
  }
  const type = cache.blocks[0]?.key.dtype ?? 'float32'
  const grown = allocateCache(config, { capacity, batch: cache.batch, type })
  const size = config.headSize
  const rows = cache.batch * config.keyValueHeads
  for (const [index, block] of grown.blocks.entries()) {
    for (const part of ['key', 'value'] as const) {
      const from = cache.blocks[index]?.[part].data ?? new Float32Array()
      for (let row = 0; row < rows; row++) {
        const start = row * cache.capacity * size
        block[part].data.set(from.subarray(start, start + length * size), row * capacity * size)
      }
    }
  }
  disposeCache(cache)
  return grown
}

/** One row of a batched cache, or several that follow it, as a cache over the same memory: a new prompt is read into it while others wait. */
export function cacheRow({ capacity, blocks }: HostCache, row: number, count = 1): HostCache {
  const part = (tensor: CacheTensor): CacheTensor => {
    const [, heads = 1, , size = 1] = tensor.shape
    const shape = [count, heads, capacity, size]
    return view(tensor, { offset: row * heads * capacity * size, shape })
  }
  return { batch: count, capacity, blocks: blocks.map(({ key, value }) => ({ key: part(key), value: part(value) })) }
}

/** @throws TypeError when the cache is not in main memory */
export function expectHostCache({ batch, capacity, blocks }: CacheMemory): HostCache {
  const host = (tensor: SessionTensor<CacheType>): CacheTensor => {
    if ('data' in tensor) return tensor
    throw new TypeError('Cannot reach into the cache: it is on a device, expected one in main memory')
  }
  return { batch, capacity, blocks: blocks.map(({ key, value }) => ({ key: host(key), value: host(value) })) }
}

/** Frees the memory. Safe to repeat. */
export function disposeCache({ blocks }: CacheMemory): void {
  for (const { key, value } of blocks) {
    disposeTensor(key)
    disposeTensor(value)
  }
}
