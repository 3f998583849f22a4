/** The folder of a training run: recipe, log, checkpoints. A checkpoint holds all that a run needs to go on as if it had never stopped. */

import { appendFile, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { writeFolderAtomically } from '../checkpoint/atomic-file.ts'
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
  /** Bytes of the log when the checkpoint was written; later lines are cut off on resume. */
  readonly logBytes: number
  readonly skipped: number
}

const progressSchema = z.strictObject({
  step: z.number().int().min(0),
  cursor: z.number().int().min(0),
  logBytes: z.number().int().min(0),
  skipped: z.number().int().min(0),
})

type Tensors = ReadonlyMap<string, ResidentTensor<'float32'>>

const checkpointName = /^checkpoint-(\d{8})$/

/**
 * Makes the folder, or checks that it belongs to the same recipe.
 * @throws Error when the folder holds a run with other settings, or one to be resumed explicitly
 */
export async function openRunFolder(
  folder: string,
  { recipe, resume }: { recipe: Recipe; resume: boolean },
): Promise<void> {
  await mkdir(folder, { recursive: true })
  const path = join(folder, 'recipe.json')
  const text = `${JSON.stringify(recipe, null, 2)}\n`
  const existing = await readFile(path, 'utf8').catch(() => undefined)
  if (existing !== undefined && existing !== text) {
    const differing = differingKeys(JSON.parse(existing), recipe)
    throw new Error(`Cannot train in ${folder}: it holds a run with another recipe (${differing.join(', ')} differ)`)
  }
  if (existing !== undefined && !resume && (await latestCheckpoint(folder)) !== undefined) {
    throw new Error(`Cannot train in ${folder}: it holds a run already, expected --resume to go on or a new folder`)
  }
  if (existing === undefined) await writeFile(path, text)
}

/** Appends one JSON line to the log and returns nothing; the log is the run's only history. */
export async function appendLog(folder: string, entry: Readonly<Record<string, unknown>>): Promise<void> {
  await appendFile(logPath(folder), `${JSON.stringify(entry)}\n`)
}

export async function logLength(folder: string): Promise<number> {
  return (await readFile(logPath(folder)).catch(() => Buffer.alloc(0))).byteLength
}

/** Writes weights, moments and progress atomically; older checkpoints beyond `keep` are deleted only afterwards. */
export async function writeCheckpoint(
  folder: string,
  { tensors, progress, keep }: { tensors: Tensors; progress: Progress; keep: number },
): Promise<void> {
  const name = `checkpoint-${String(progress.step).padStart(8, '0')}`
  await writeFolderAtomically(
    join(folder, name),
    async (inside) => {
      await writeSafetensors(join(inside, 'state.safetensors'), toWrite(tensors))
      await writeFile(join(inside, 'progress.json'), `${JSON.stringify(progress)}\n`, { flush: true })
    },
    { mayReplace: () => true },
  )
  const old = (await checkpoints(folder)).slice(0, -keep)
  await Promise.all(old.map((name) => rm(join(folder, name), { recursive: true, force: true })))
}

/** The newest complete checkpoint of a run: its path, or undefined. */
export async function latestCheckpoint(folder: string): Promise<string | undefined> {
  const name = (await checkpoints(folder)).at(-1)
  return name === undefined ? undefined : join(folder, name)
}

/** Copies a checkpoint into the tensors of a run and cuts the log back to where it was. */
export async function readCheckpoint(
  path: string,
  { tensors, folder }: { tensors: Tensors; folder: string },
): Promise<Progress> {
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
  if ((await logLength(folder)) > progress.logBytes) await truncate(logPath(folder), progress.logBytes)
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

function toWrite(tensors: Tensors): Record<string, { shape: readonly number[]; data: Float32Array }> {
  return Object.fromEntries([...tensors].map(([name, { shape, data }]) => [name, { shape, data }]))
}

function differingKeys(stored: Readonly<Record<string, unknown>>, recipe: Readonly<Record<string, unknown>>): string[] {
  const keys = new Set([...Object.keys(stored), ...Object.keys(recipe)])
  return [...keys].filter((key) => JSON.stringify(stored[key]) !== JSON.stringify(recipe[key]))
}
