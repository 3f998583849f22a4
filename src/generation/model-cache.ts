/**
 * Converted models on disk, so that a model is converted once. Each is a folder of two files: `weights.bin`, which ONNX Runtime maps into memory,
 * and `index.json`, which says where each part lies. Folders are named by what they depend on, and appear whole or not at all.
 */

import { createHash } from 'node:crypto'
import { access, constants, mkdir, readdir, readFile, rm, stat, statfs, utimes, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { hasCode, writeFileAtomically, writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { closeWeights, type OpenWeights, openWeights } from '../checkpoint/load.ts'
import { entryOf } from '../checkpoint/places.ts'
import { readFully } from '../checkpoint/ranged-read.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { Device } from '../runtime/device.ts'
import { sumsSaturate } from '../runtime/integer-sums.ts'
import { gigabytes, type Precision, precisions } from './precision.ts'
import {
  type ConversionOptions,
  convertIntoFile,
  placeParts,
  type SuppliedWeights,
  suppliedFrom,
  withFolderReader,
} from './stored-weights.ts'

/** Changes with the meaning of the files: what an older release wrote is then not found. */
const format = 2
const weightsFile = 'weights.bin'
const indexFile = 'index.json'

const indexSchema = z.object({
  format: z.literal(format),
  model: z.string(),
  precision: z.enum(precisions),
  /** Whether it was made for a processor whose integer sums saturate. */
  saturating: z.boolean(),
  bytes: z.number(),
  parts: z.array(
    z.object({
      name: z.string(),
      dtype: z.enum(['float32', 'float16', 'int8', 'uint8']),
      shape: z.array(z.int().min(0)),
      offset: z.int().min(0),
      bytes: z.int().min(0),
    }),
  ),
})

export type CachedModel = {
  readonly key: string
  /** The folder that it was made from. */
  readonly model: string
  readonly precision: Precision
  readonly bytes: number
  readonly lastUsed: Date
}

/** Where converted models are kept: `LLAVA_CACHE`, or the folder for such things on this system. */
export function cacheFolder(environment: NodeJS.ProcessEnv = process.env, platform: string = process.platform): string {
  if (environment.LLAVA_CACHE) return resolve(environment.LLAVA_CACHE, 'converted')
  const home = homedir()
  const base =
    platform === 'win32'
      ? (environment.LOCALAPPDATA ?? join(home, 'AppData', 'Local'))
      : platform === 'darwin'
        ? join(home, 'Library', 'Caches')
        : environment.XDG_CACHE_HOME || join(home, '.cache')
  return join(base, 'llava-ts', 'converted')
}

/** Makes the folder where it is missing; false when that fails or it cannot be written to. */
export async function prepareCache(folder: string): Promise<boolean> {
  try {
    await makeFolder(resolve(folder))
    await access(folder, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** Like `mkdir` with `recursive`, which tries for ever where the system refuses to make folders, as in /proc. */
async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder)
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return
    if (!hasCode(error, 'ENOENT') || dirname(folder) === folder) throw error
    await makeFolder(dirname(folder))
    await mkdir(folder)
  }
}

/**
 * The weights of a model folder in a precision, mapped from the cache; converted first when they are not there yet. Memory stays bounded by the
 * largest tensor in 8 bits and a few pieces of float32, whatever the size of the model.
 *
 * @throws Error when the disk has too little room, errors of `openWeights`, `signal.reason` when the signal fires
 */
export async function cachedWeights(
  { folder, config }: { folder: string; config: LlavaConfig },
  options: ConversionOptions & { cache: string },
): Promise<SuppliedWeights> {
  const { precision, device = 'cpu', cache } = options
  const key = await keyOf({ folder, config }, { precision, device })
  const target = join(cache, key)
  const found = await openEntry(target)
  if (found !== undefined) return found
  await withFolderReader({ folder, config }, async (reader) => {
    const parts = placeParts(config, reader, options)
    const bytes = parts.reduce((sum, part) => sum + part.bytes, 0)
    await expectRoom(cache, bytes)
    await writeFolderAtomically(
      target,
      async (temporary) => {
        await writeFileAtomically(join(temporary, weightsFile), (handle) =>
          convertIntoFile(config, reader, { ...options, handle, parts }),
        )
        const index = { format, model: resolve(folder), precision, saturating: sumsSaturate(), bytes, parts }
        await writeFile(join(temporary, indexFile), JSON.stringify(index))
      },
      { mayReplace: () => true }, // another process may have been quicker, or an entry was damaged
    )
  })
  const made = await openEntry(target)
  if (made === undefined)
    throw new Error(`Cannot use the converted model ${target}: it is gone, another program may have cleared it`)
  return made
}

/** What is in the cache, the latest used first. */
export async function listCache(cache: string): Promise<CachedModel[]> {
  const names = await readdir(cache).catch((error: unknown) => {
    if (hasCode(error, 'ENOENT')) return []
    throw error
  })
  const models: CachedModel[] = []
  for (const key of names) {
    const index = await readIndex(join(cache, key))
    if (index === undefined) continue
    const { mtime } = await stat(join(cache, key, indexFile))
    models.push({ key, model: index.model, precision: index.precision, bytes: index.bytes, lastUsed: mtime })
  }
  return models.sort((a, b) => b.lastUsed.getTime() - a.lastUsed.getTime())
}

/** Deletes what the cache holds, remains of conversions that were killed included; folders of other kinds stay. Models in use keep running. */
export async function clearCache(cache: string): Promise<{ models: number; bytes: number }> {
  const models = await listCache(cache)
  for (const { key } of models) await rm(join(cache, key), { recursive: true, force: true })
  const names = await readdir(cache).catch(() => [])
  const remains = names.filter((name) => /^\.[0-9a-f]{32}\.(partial|old)-/.test(name))
  for (const name of remains) await rm(join(cache, name), { recursive: true, force: true })
  return { models: models.length, bytes: models.reduce((sum, { bytes }) => sum + bytes, 0) }
}

async function openEntry(target: string): Promise<SuppliedWeights | undefined> {
  const index = await readIndex(target)
  if (index === undefined || index.saturating !== sumsSaturate()) return undefined
  const supplied = await suppliedFrom(join(target, weightsFile), index.parts).catch(() => undefined)
  const now = new Date()
  if (supplied !== undefined) await utimes(join(target, indexFile), now, now).catch(() => undefined)
  return supplied
}

async function readIndex(target: string): Promise<z.infer<typeof indexSchema> | undefined> {
  try {
    return indexSchema.parse(JSON.parse(await readFile(join(target, indexFile), 'utf8')))
  } catch {
    return undefined // not there, or not of this release
  }
}

async function expectRoom(cache: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(cache)
  if (bavail * bsize >= bytes * 1.01) return
  throw new Error(
    `Cannot convert the model into ${cache}: ${gigabytes(bavail * bsize)} are free on that disk, expected ${gigabytes(bytes)}; LLAVA_CACHE names another folder`,
  )
}

/** Numbers of each tensor that go into the key. */
const sampledBytes = 4096

/**
 * A name for a model's weights in a precision, in the forms that a device and this processor want. Reading all of a large model takes longer than opening a converted one, so the weights are represented
 * by the size and time of each file, and by every tensor's name, place and a stretch from its middle.
 */
export async function keyOf(
  { folder, config }: { folder: string; config: LlavaConfig },
  { precision, device }: { precision: Precision; device: Device },
): Promise<string> {
  const hash = createHash('sha256')
  const opened: OpenWeights = await openWeights(folder, config)
  try {
    hash.update(JSON.stringify([format, precision, sumsSaturate(), ...(device === 'cpu' ? [] : [device])]))
    for (const { handle } of opened.checkpoints.flatMap(({ files }) => files)) {
      const { size, mtimeMs } = await handle.stat()
      hash.update(JSON.stringify([size, mtimeMs]))
    }
    for (const [name, place] of opened.places) {
      const { file, begin, end, dtype, shape } = entryOf(place)
      const middle = file.dataStart + Math.floor((begin + end) / 2)
      const last = Math.min(middle + sampledBytes, file.dataStart + end)
      hash.update(JSON.stringify([name, dtype, shape, begin]))
      hash.update(await readFully(file.handle, { begin: middle, end: last, what: `tensor ${name} of ${file.path}` }))
    }
  } finally {
    await closeWeights(opened)
  }
  return hash.digest('hex').slice(0, 32)
}
