/** Room in KV caches, wherever a model keeps them: in main memory, or in the memory of the device that it runs on. */

import type { CompiledModel } from './compiled-model.ts'
import { allocateDeviceCache, growDeviceCache, withDeviceRow } from './device-cache.ts'
import { allocateCache, type CacheMemory, cacheRow, capacityFor, expectHostCache, growCache } from './kv-cache.ts'

type CachingModel = Pick<CompiledModel, 'config' | 'context' | 'cacheType' | 'deviceCaches'>

/** `cache`, or a new one, with room for `tokens` in each row; of a smaller one the first `kept` positions are kept, and its memory is freed. */
export async function cacheWithRoom(
  { config, context, cacheType: type, deviceCaches }: CachingModel,
  { cache, tokens, kept, batch = 1 }: { cache: CacheMemory | undefined; tokens: number; kept: number; batch?: number },
): Promise<CacheMemory> {
  if (cache !== undefined && cache.capacity >= tokens) return cache
  const { language } = config
  const capacity = capacityFor(tokens, { context })
  if (deviceCaches !== undefined) {
    if (cache === undefined) return allocateDeviceCache(deviceCaches, { capacity, batch })
    return growDeviceCache(deviceCaches, { cache, capacity })
  }
  if (cache === undefined) return allocateCache(language, { capacity, batch, type })
  return growCache(language, { cache: expectHostCache(cache), capacity, length: kept })
}

/** Runs `work` with one row of a batched cache as a cache of its own. */
export async function withRow<T>(
  { deviceCaches }: CachingModel,
  { cache, row }: { cache: CacheMemory; row: number },
  work: (cache: CacheMemory) => Promise<T>,
): Promise<T> {
  if (deviceCaches !== undefined) return withDeviceRow(deviceCaches, { cache, row }, work)
  return work(cacheRow(expectHostCache(cache), row))
}

/** How many rows a step goes through to reach the row `last`: no more than that, or all of them on a device, where a part of a tensor is no tensor. */
export function rowsOfStep({ deviceCaches }: CachingModel, { last, all }: { last: number; all: number }): number {
  return deviceCaches === undefined ? last + 1 : all
}

/** The first `count` rows of a cache, as `rowsOfStep` counts them. */
export function leadingRows(cache: CacheMemory, count: number): CacheMemory {
  return count === cache.batch ? cache : cacheRow(expectHostCache(cache), 0, count)
}
