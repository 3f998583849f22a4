/** The folder of a training run: recipe, log, checkpoints. A checkpoint holds all that a run needs to go on as if it had never stopped. */

import { appendFile, mkdir, open, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { writeFileAtomically, writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { toFloat32 } from '../checkpoint/dtype.ts'
import { readStrictJson } from '../checkpoint/json.ts'
import { closeSafetensors, openSafetensors, readTensor } from '../checkpoint/safetensors.ts'
import { writeSafetensors } from '../checkpoint/safetensors-writer.ts'
import type { ResidentTensor } from '../runtime/resident-tensor.ts'
import type { Recipe } from './recipe.ts'

/** What a checkpoint knows besides tensors. */
export type Progress = {
  /** Updates made. */
  readonly step: number
  /** Index of the next sample to be drawn. */
  readonly cursor: number
  readonly skipped: number
  /** Bytes of the log when the checkpoint was written; later lines are cut off on resume. */
  readonly logBytes: number
  /** Sum of the losses, and number of the steps, that are not in the log yet. */
  readonly unlogged: { readonly loss: number; readonly steps: number }
  /** Time spent so far. */
  readonly seconds: number
}

const count = z.number().int().min(0)
const progressSchema = z.strictObject({
  step: count,
  cursor: count,
  skipped: count,
  logBytes: count,
  unlogged: z.strictObject({ loss: z.number(), steps: count }).prefault({ loss: 0, steps: 0 }),
  seconds: z.number().min(0).default(0),
})

const beginning: Progress = { step: 0, cursor: 0, skipped: 0, logBytes: 0, unlogged: { loss: 0, steps: 0 }, seconds: 0 }

type Tensors = ReadonlyMap<string, ResidentTensor<'float32'>>

const checkpointName = /^checkpoint-\d{8}$/
/** What a kill in the middle of writing or deleting leaves: see checkpoint/atomic-file.ts and `deleteCheckpoint`. */
const leftoverName = /^\.(checkpoint-\d{8}|recipe\.json)\.(partial|old)/

/**
 * Makes the folder, or checks that it belongs to the same recipe, and clears away what a killed run left half-written.
 * Returns the checkpoint to resume from, if there is one.
 * @throws Error when the folder holds a run with other settings or one to be resumed explicitly, or cannot be written to
 */
export async function openRunFolder(
  folder: string,
  { recipe, resume }: { recipe: Recipe; resume: boolean },
): Promise<string | undefined> {
  const failure = `Cannot train in ${folder}`
  const path = join(folder, 'recipe.json')
  const text = `${JSON.stringify(recipe, null, 2)}\n`
  const existing = await readFile(path, 'utf8').catch(() => undefined)
  if (existing !== undefined && existing !== text) {
    throw new Error(`${failure}: it holds a run with another recipe (${differingKeys(existing, recipe)} differ)`)
  }
  const latest = await latestCheckpoint(folder)
  if (latest !== undefined && !resume) {
    throw new Error(`${failure}: it holds a run already, expected --resume to go on or a new folder`)
  }
  try {
    await mkdir(folder, { recursive: true })
    const leftovers = (await readdir(folder)).filter((name) => leftoverName.test(name))
    for (const name of leftovers) await rm(join(folder, name), { recursive: true, force: true })
    await writeFileAtomically(path, async (handle) => void (await handle.write(text)))
  } catch (cause) {
    throw new Error(`${failure}: ${messageOf(cause)}`, { cause })
  }
  return latest
}

/** Appends one JSON line to the log; the log is the run's only history. */
export async function appendLog(folder: string, entry: Readonly<Record<string, unknown>>): Promise<void> {
  await appendFile(logPath(folder), `${JSON.stringify(entry)}\n`)
}

/** Makes the log durable and returns its length in bytes. */
export async function syncLog(folder: string): Promise<number> {
  const handle = await open(logPath(folder), 'a')
  try {
    await handle.sync()
    return (await handle.stat()).size
  } finally {
    await handle.close()
  }
}

/**
 * Writes weights, moments and progress atomically and returns the checkpoint's path; older checkpoints beyond `keep` are deleted only afterwards.
 * @throws Error when it cannot be written; the checkpoints before it are untouched
 */
export async function writeCheckpoint(
  folder: string,
  { tensors, progress, keep }: { tensors: Tensors; progress: Progress; keep: number },
): Promise<string> {
  const path = join(folder, `checkpoint-${String(progress.step).padStart(8, '0')}`)
  try {
    await writeFolderAtomically(path, async (inside) => {
      await writeSafetensors(join(inside, 'state.safetensors'), toWrite(tensors))
      await writeFile(join(inside, 'progress.json'), `${JSON.stringify(progress)}\n`, { flush: true })
    })
  } catch (cause) {
    throw new Error(`Cannot write checkpoint ${path}: ${messageOf(cause)}`, { cause })
  }
  for (const name of (await checkpoints(folder)).slice(0, -keep)) await deleteCheckpoint(folder, name)
  return path
}

/** Renamed before it is emptied: what is named like a checkpoint is whole. */
async function deleteCheckpoint(folder: string, name: string): Promise<void> {
  const doomed = join(folder, `.${name}.old`)
  await rm(doomed, { recursive: true, force: true })
  await rename(join(folder, name), doomed)
  await rm(doomed, { recursive: true, force: true })
}

/** The newest complete checkpoint of a run: its path, or undefined. */
export async function latestCheckpoint(folder: string): Promise<string | undefined> {
  const name = (await checkpoints(folder)).at(-1)
  return name === undefined ? undefined : join(folder, name)
}

/**
 * Copies a checkpoint into the tensors of a run and cuts the log back to where it was; without a checkpoint the run begins, with an empty log.
 * @throws RangeError when a tensor is missing or of another size
 */
export async function readCheckpoint(
  path: string | undefined,
  { tensors, folder }: { tensors: Tensors; folder: string },
): Promise<Progress> {
  if (path === undefined) {
    await writeFile(logPath(folder), '')
    return beginning
  }
  const progress = progressSchema.parse(await readStrictJson(join(path, 'progress.json')))
  const stored = await readState(path)
  for (const [name, tensor] of tensors) {
    const values = stored.get(name)
    if (values === undefined || values.data.length !== tensor.data.length) {
      const found = values === undefined ? 'nothing' : `${values.data.length} values`
      throw new RangeError(
        `Cannot resume from ${path}: found ${found} for ${name}, expected ${tensor.data.length} values`,
      )
    }
    tensor.data.set(values.data)
  }
  if ((await syncLog(folder)) > progress.logBytes) await truncate(logPath(folder), progress.logBytes)
  return progress
}

/** All tensors of a checkpoint by name. */
export async function readState(path: string): Promise<Map<string, { shape: readonly number[]; data: Float32Array }>> {
  const file = await openSafetensors(join(path, 'state.safetensors'))
  try {
    const result = new Map<string, { shape: readonly number[]; data: Float32Array }>()
    for (const name of file.tensors.keys()) {
      const { dtype, shape, data } = await readTensor(file, name)
      result.set(name, { shape, data: toFloat32(dtype, data) })
    }
    return result
  } finally {
    await closeSafetensors(file)
  }
}

function logPath(folder: string): string {
  return join(folder, 'log.jsonl')
}

async function checkpoints(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [])
  return names.filter((name) => checkpointName.test(name)).sort()
}

function toWrite(tensors: Tensors): [string, { shape: readonly number[]; data: Float32Array }][] {
  return Array.from(tensors, ([name, { shape, data }]) => [name, { shape, data }])
}

function differingKeys(text: string, recipe: Readonly<Record<string, unknown>>): string {
  try {
    const stored = JSON.parse(text)
    const keys = [...new Set([...Object.keys(stored), ...Object.keys(recipe)])]
    return keys.filter((key) => JSON.stringify(stored[key]) !== JSON.stringify(recipe[key])).join(', ')
  } catch {
    return 'all settings'
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
