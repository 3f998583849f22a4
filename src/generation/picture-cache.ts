/**
 * Visual tokens of pictures on disk, so that a picture that is asked about again, by another process too, is not encoded again.
 *
 * A folder per model and precision, a file per picture, named by its prepared pixels: M·D·4 bytes, 9.4 MB for LLaVA-1.5 7B. What was used longest ago
 * is deleted where all of them together grow too large.
 */

import { readdir, rm, stat, utimes } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { hashOf, readArray, writeArray } from '../checkpoint/array-file.ts'
import { expectedTensors } from '../checkpoint/layouts.ts'
import type { LlavaConfig } from '../model/config.ts'
import { cacheFolder } from './model-cache.ts'

export type PictureCache = {
  /** Visual tokens of `shape` [M, D] of the picture that `key` stands for; undefined when they are not kept, or damaged. */
  readonly read: (key: string, shape: readonly [number, number]) => Promise<Float32Array | undefined>
  /** Keeps them, in the background; where that fails, they are computed again another time. */
  readonly write: (key: string, tokens: { shape: readonly [number, number]; data: Float32Array }) => void
  /** After what is still being written. */
  readonly settled: () => Promise<void>
}

/** Changes with the meaning of the files: what an older release wrote is then not found. */
const format = 1
const name = 'visualTokens'
const mostBytes = 2 * 2 ** 30
const entryPattern = /^[0-9a-f]{64}\.safetensors$/
const folderPattern = /^[0-9a-f]{32}$/

/** Where visual tokens are kept: beside the converted models. */
export function pictureFolder(environment: NodeJS.ProcessEnv = process.env): string {
  return join(dirname(cacheFolder(environment)), 'pictures')
}

/** Below this many operations per view, about a tenth of a second on two cores, encoding again costs less than it is worth to keep files. */
const leastWork = 1e10

/** Whether reading visual tokens from a disk is clearly quicker than encoding: two operations per weight and patch. */
export function isWorthKeeping(config: LlavaConfig): boolean {
  let weights = 0
  for (const [name, shape] of expectedTensors(config)) {
    if (/^(visionEncoder|projector)\./.test(name)) weights += shape.reduce((product, dim) => product * dim, 1)
  }
  return 2 * weights * config.visualTokens >= leastWork
}

/** The cache below `folder` of one model: `identity` tells its weights and their precision, and is asked for when the first picture comes. */
export function openPictureCache(
  folder: string,
  { config, identity, limit = mostBytes }: { config: LlavaConfig; identity: () => Promise<string>; limit?: number },
): PictureCache {
  let own: Promise<string> | undefined
  const pending = new Set<Promise<void>>()
  const path = async (key: string) => {
    own ??= identity().then((weights) => folderOf(weights, config))
    return join(folder, await own, `${hashOf(key)}.safetensors`)
  }
  const keep = async (key: string, { shape, data }: { shape: readonly [number, number]; data: Float32Array }) => {
    await writeArray(await path(key), { name, shape, data })
    await deleteOldest(folder, limit)
  }
  return {
    async read(key, shape) {
      const file = await path(key).catch(() => undefined)
      if (file === undefined) return undefined
      const tokens = await readArray(file, { name, shape })
      const now = new Date()
      if (tokens !== undefined) await utimes(file, now, now).catch(() => undefined)
      return tokens
    },
    write(key, tokens) {
      const writing = keep(key, tokens)
        .catch(() => undefined) // a full or read-only disk is no reason not to answer
        .finally(() => pending.delete(writing))
      pending.add(writing)
    },
    async settled() {
      await Promise.all(pending)
    },
  }
}

/** A name for all that visual tokens depend on besides the picture. */
function folderOf(weights: string, { vision, projector, featureLayer, featureSelect, tiles }: LlavaConfig): string {
  const settings = JSON.stringify({ format, weights, vision, projector, featureLayer, featureSelect, tiles })
  return hashOf(settings).slice(0, 32)
}

type Entry = { readonly path: string; readonly bytes: number; readonly lastUsed: number }

/** How many pictures are kept, of all models. */
export async function countPictureCache(folder: string): Promise<{ count: number; bytes: number }> {
  const entries = await entriesOf(folder)
  return { count: entries.length, bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0) }
}

/** Deletes them, remains of processes that were killed included; folders of other kinds stay. */
export async function clearPictureCache(folder: string): Promise<{ count: number; bytes: number }> {
  const counted = await countPictureCache(folder)
  const own = (await namesIn(folder)).filter((name) => folderPattern.test(name))
  for (const name of own) await rm(join(folder, name), { recursive: true, force: true })
  return counted
}

async function deleteOldest(folder: string, limit: number): Promise<void> {
  const entries = (await entriesOf(folder)).sort((a, b) => b.lastUsed - a.lastUsed)
  let bytes = 0
  for (const [index, entry] of entries.entries()) {
    bytes += entry.bytes
    if (bytes > limit && index > 0) await rm(entry.path, { force: true }) // the latest stays, whatever its size
  }
}

async function entriesOf(folder: string): Promise<Entry[]> {
  const entries: Entry[] = []
  for (const own of (await namesIn(folder)).filter((name) => folderPattern.test(name))) {
    for (const file of (await namesIn(join(folder, own))).filter((name) => entryPattern.test(name))) {
      const path = join(folder, own, file)
      const found = await stat(path).catch(() => undefined) // another process may delete it
      if (found !== undefined) entries.push({ path, bytes: found.size, lastUsed: found.mtimeMs })
    }
  }
  return entries
}

function namesIn(folder: string): Promise<string[]> {
  return readdir(folder).catch(() => [])
}
