/** Checkpoints of a training run: each holds all that the run needs to go on as if it had never stopped, and what tells whether it is still whole. */

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { rename, rm, stat, writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { z } from 'zod'
import { hasCode, writeFileAtomically, writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { toFloat32 } from '../checkpoint/dtype.ts'
import { readStrictJson } from '../checkpoint/json.ts'
import { closeSafetensors, openSafetensors, readTensor } from '../checkpoint/safetensors.ts'
import { writeSafetensors } from '../checkpoint/safetensors-writer.ts'
import type { ResidentTensor } from '../runtime/resident-tensor.ts'
import { checkpointName, checkpointNames, cutBack, latestCheckpoint } from './run-folder.ts'

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
  /** The step of the best validation so far, and what it measured. */
  readonly best?: { readonly step: number; readonly value: number } | undefined
}

const count = z.number().int().min(0)
const progressSchema = z.strictObject({
  step: count,
  cursor: count,
  skipped: count,
  logBytes: count,
  unlogged: z.strictObject({ loss: z.number(), steps: count }).prefault({ loss: 0, steps: 0 }),
  seconds: z.number().min(0).default(0),
  best: z.strictObject({ step: count, value: z.number() }).optional(),
})

const beginning: Progress = { step: 0, cursor: 0, skipped: 0, logBytes: 0, unlogged: { loss: 0, steps: 0 }, seconds: 0 }

type Tensors = ReadonlyMap<string, ResidentTensor<'float32'>>

/** File names and their SHA-256, in hexadecimal digits. */
const manifestSchema = z.record(z.string().regex(/^[\w-]+\.\w+$/), z.string().regex(/^[0-9a-f]{64}$/))
const manifestName = 'manifest.json'
const stateName = 'state.safetensors'
const progressName = 'progress.json'

/**
 * Writes weights, moments and progress atomically and returns the checkpoint's path. Only afterwards older checkpoints are deleted, except for the
 * newest `keep` and the best.
 * @throws Error when it cannot be written; the checkpoints before it are untouched
 */
export async function writeCheckpoint(
  folder: string,
  { tensors, progress, keep }: { tensors: Tensors; progress: Progress; keep: number },
): Promise<string> {
  const path = join(folder, nameOf(progress.step))
  try {
    await writeFolderAtomically(path, async (inside) => {
      await writeSafetensors(join(inside, stateName), toWrite(tensors))
      await writeFile(join(inside, progressName), `${JSON.stringify(progress)}\n`, { flush: true })
      await writeFile(join(inside, manifestName), await manifestOf(inside), { flush: true })
    })
    if (progress.best?.step === progress.step) await pointToBest(folder, progress)
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new Error(`Cannot write checkpoint ${path}: ${message}`, { cause })
  }
  const best = progress.best && nameOf(progress.best.step)
  for (const name of (await checkpointNames(folder)).slice(0, -keep)) {
    if (name !== best) await deleteCheckpoint(folder, name)
  }
  return path
}

/**
 * Copies the newest checkpoint that is whole into the tensors of a run and cuts the log back to where it was; without a checkpoint the run begins,
 * with an empty log. Damaged ones are renamed, and told.
 * @throws Error when every checkpoint is damaged, RangeError when a tensor is missing or of another size
 */
export async function readCheckpoint(
  folder: string,
  { tensors, onNotice = () => {} }: { tensors: Tensors; onNotice?: (text: string) => void },
): Promise<Progress> {
  const { whole: path, damaged } = await newestWhole(folder)
  if (path === undefined) {
    const [first] = damaged
    if (first !== undefined) throw new Error(`Cannot resume from ${first.damage}, and there is no other checkpoint`)
    await cutBack(folder, beginning)
    await pointToBest(folder, beginning)
    return beginning
  }
  const progress = progressSchema.parse(await readStrictJson(join(path, progressName)))
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
  for (const { name, damage } of damaged) {
    await rename(join(folder, name), join(folder, `damaged-${name}-${Date.now()}`)) // its name is wanted again
    onNotice(`Passed over ${damage}; going on from ${path}`)
  }
  await cutBack(folder, progress)
  await pointToBest(folder, progress)
  return progress
}

/** All tensors of a checkpoint by name. */
export async function readState(path: string): Promise<Map<string, { shape: readonly number[]; data: Float32Array }>> {
  const file = await openSafetensors(join(path, stateName))
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

/**
 * The checkpoint that a path stands for: `runs/x` for the newest of a run, `runs/x/best` for the one that validated best, or a checkpoint itself.
 * Undefined when it is no part of a run.
 * @throws Error when the run has no best one, or when the checkpoint is damaged, naming the file
 */
export async function findCheckpoint(folder: string): Promise<string | undefined> {
  const path = await namedCheckpoint(folder)
  const damage = path === undefined ? undefined : await damageOf(path)
  if (damage !== undefined) throw new Error(`Cannot start from ${damage}`)
  return path
}

async function namedCheckpoint(folder: string): Promise<string | undefined> {
  if (checkpointName.test(basename(folder))) return folder
  if (basename(folder) !== 'best' || (await stat(folder).catch(() => undefined)) !== undefined) {
    return latestCheckpoint(folder)
  }
  const path = join(dirname(folder), bestName)
  const pointer = await readStrictJson(path).catch((cause) => {
    if (!hasCode(cause, 'ENOENT')) throw cause
    throw new Error(`Cannot start from ${folder}: found no ${path}, expected a run that validates`, { cause })
  })
  const found = bestSchema.safeParse(pointer)
  if (!found.success) throw new TypeError(`Cannot start from ${folder}: ${path} names no checkpoint`)
  return join(dirname(folder), found.data.checkpoint)
}

const bestName = 'best.json'
const bestSchema = z.object({ checkpoint: z.string().regex(checkpointName) })

/** Names the best checkpoint in best.json; when it is not there yet, a resumed run comes to it again. */
async function pointToBest(folder: string, { best }: Progress): Promise<void> {
  const path = join(folder, bestName)
  const name = best && nameOf(best.step)
  if (name === undefined || !(await checkpointNames(folder)).includes(name)) return rm(path, { force: true })
  const text = `${JSON.stringify({ checkpoint: name, ...best })}\n`
  await writeFileAtomically(path, async (handle) => void (await handle.write(text)))
}

async function newestWhole(
  folder: string,
): Promise<{ whole: string | undefined; damaged: { name: string; damage: string }[] }> {
  const damaged: { name: string; damage: string }[] = []
  for (const name of (await checkpointNames(folder)).reverse()) {
    const damage = await damageOf(join(folder, name))
    if (damage === undefined) return { whole: join(folder, name), damaged }
    damaged.push({ name, damage })
  }
  return { whole: undefined, damaged }
}

/** What is wrong with a checkpoint, naming the file; undefined when it is as it was written. */
async function damageOf(path: string): Promise<string | undefined> {
  const manifest = await readStrictJson(join(path, manifestName)).catch((error) => {
    return hasCode(error, 'ENOENT') ? undefined : error
  })
  // Checkpoints of earlier versions have no manifest: they are whole as far as anyone can tell.
  if (manifest === undefined) return undefined
  const sums = manifestSchema.safeParse(manifest)
  if (!sums.success) return `${join(path, manifestName)}: it is damaged, expected the SHA-256 of every file`
  for (const [name, expected] of Object.entries(sums.data)) {
    const file = join(path, name)
    const found = await hashOfFile(file).catch((error) => {
      if (hasCode(error, 'ENOENT')) return undefined
      throw error
    })
    if (found === undefined) return `${file}: it is missing`
    if (found !== expected) {
      return `${file}: it is damaged, found SHA-256 ${found.slice(0, 12)}…, expected ${expected.slice(0, 12)}…`
    }
  }
  return undefined
}

async function manifestOf(folder: string): Promise<string> {
  const names = [stateName, progressName]
  const sums = await Promise.all(names.map(async (name) => [name, await hashOfFile(join(folder, name))] as const))
  return `${JSON.stringify(Object.fromEntries(sums), null, 2)}\n`
}

async function hashOfFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(path), hash)
  return hash.digest('hex')
}

/** Renamed before it is emptied: what is named like a checkpoint is whole. */
async function deleteCheckpoint(folder: string, name: string): Promise<void> {
  const doomed = join(folder, `.${name}.old`)
  await rm(doomed, { recursive: true, force: true })
  await rename(join(folder, name), doomed)
  await rm(doomed, { recursive: true, force: true })
}

function nameOf(step: number): string {
  return `checkpoint-${String(step).padStart(8, '0')}`
}

function toWrite(tensors: Tensors): [string, { shape: readonly number[]; data: Float32Array }][] {
  return Array.from(tensors, ([name, { shape, data }]) => [name, { shape, data }])
}
