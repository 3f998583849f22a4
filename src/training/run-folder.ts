/** The folder of a training run: recipe, log, pace, checkpoints (see run-checkpoint.ts), pictures of the samples that it is asked about. */

import { appendFile, mkdir, open, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode, writeFileAtomically } from '../checkpoint/atomic-file.ts'
import type { Recipe } from './recipe.ts'
import { lockRunFolder } from './run-lock.ts'

export const checkpointName = /^checkpoint-\d{8}$/
/** What a kill in the middle of writing or deleting leaves: see checkpoint/atomic-file.ts and run-checkpoint.ts. */
const leftoverName = /^(\.(checkpoint-\d{8}|adapter|(recipe|best)\.json)\.(partial|old)|lock\.json\.)/

/**
 * Makes the folder and takes it for this process, or checks that it belongs to the same recipe, and clears away what a killed run left half-written.
 * Returns the function that gives it back.
 * @throws Error when another process trains in the folder, when it holds a run with other settings or one to be resumed explicitly, or cannot be
 *   written to
 */
export async function openRunFolder(
  folder: string,
  { recipe, resume }: { recipe: Recipe; resume: boolean },
): Promise<() => Promise<void>> {
  const failure = `Cannot train in ${folder}`
  const sentence = (cause: unknown) => {
    const message = cause instanceof Error ? cause.message : String(cause)
    return message.startsWith(failure) ? cause : new Error(`${failure}: ${message}`, { cause })
  }
  await refuseAnotherRun(folder, { recipe, resume, failure })
  let release = async () => {}
  try {
    await mkdir(folder, { recursive: true })
    release = await lockRunFolder(folder)
    await refuseAnotherRun(folder, { recipe, resume, failure }) // again: nobody changes it from here on
    const leftovers = (await readdir(folder)).filter((name) => leftoverName.test(name))
    for (const name of leftovers) await rm(join(folder, name), { recursive: true, force: true })
    await writeFileAtomically(join(folder, 'recipe.json'), async (handle) => void (await handle.write(textOf(recipe))))
    return release
  } catch (cause) {
    await release()
    throw sentence(cause)
  }
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

/** How fast a run went: the only thing it tells that is not the same each time, and therefore in a file of its own. */
export type Pace = {
  readonly step: number
  /** Seconds of the whole run so far. */
  readonly seconds: number
  readonly picturesPerSecond: number
  readonly tokensPerSecond: number
}

export async function appendPace(folder: string, pace: Pace): Promise<void> {
  await appendFile(pacePath(folder), `${JSON.stringify(pace)}\n`)
}

/** Goes back to where a checkpoint was written: log lines after `logBytes`, and paces of steps after `step`, are no more. */
export async function cutBack(folder: string, { logBytes, step }: { logBytes: number; step: number }): Promise<void> {
  if ((await syncLog(folder)) > logBytes) await truncate(logPath(folder), logBytes)
  const lines = (await readPaces(folder)).filter((pace) => pace.step <= step)
  const text = lines.map((pace) => `${JSON.stringify(pace)}\n`).join('')
  await writeFile(pacePath(folder), text)
}

/** The paces of a run, in order; none for one that did not write any. A line that a killed run left half-written is passed over. */
export async function readPaces(folder: string): Promise<Pace[]> {
  const text = await readFile(pacePath(folder), 'utf8').catch((error) => {
    if (hasCode(error, 'ENOENT')) return ''
    throw error
  })
  return text.split('\n').flatMap((line) => parsePace(line) ?? [])
}

/** Names of all checkpoints of a run, oldest first. */
export async function checkpointNames(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => [])
  return names.filter((name) => checkpointName.test(name)).sort()
}

/** The newest complete checkpoint of a run: its path, or undefined. */
export async function latestCheckpoint(folder: string): Promise<string | undefined> {
  const name = (await checkpointNames(folder)).at(-1)
  return name === undefined ? undefined : join(folder, name)
}

async function refuseAnotherRun(
  folder: string,
  { recipe, resume, failure }: { recipe: Recipe; resume: boolean; failure: string },
): Promise<void> {
  const existing = await readFile(join(folder, 'recipe.json'), 'utf8').catch(() => undefined)
  if (existing !== undefined && existing !== textOf(recipe)) {
    throw new Error(`${failure}: it holds a run with another recipe (${differingKeys(existing, recipe)} differ)`)
  }
  if (!resume && (await latestCheckpoint(folder)) !== undefined) {
    throw new Error(`${failure}: it holds a run already, expected --resume to go on or a new folder`)
  }
}

function textOf(recipe: Recipe): string {
  return `${JSON.stringify(recipe, null, 2)}\n`
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

function parsePace(line: string): Pace | undefined {
  try {
    const { step, seconds, picturesPerSecond, tokensPerSecond } = JSON.parse(line)
    const pace = { step, seconds, picturesPerSecond, tokensPerSecond }
    return Object.values(pace).every((value) => typeof value === 'number') ? pace : undefined
  } catch {
    return undefined
  }
}

function logPath(folder: string): string {
  return join(folder, 'log.jsonl')
}

function pacePath(folder: string): string {
  return join(folder, 'pace.jsonl')
}
