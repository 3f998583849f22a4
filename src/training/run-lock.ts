/** One run folder, one process: two that train in the same folder would cut off each other's log and delete each other's checkpoints. */

import { randomUUID } from 'node:crypto'
import { readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { hasCode } from '../checkpoint/atomic-file.ts'

const lockName = 'lock.json'
/** A process that cannot be asked, because it is on another machine, is taken to be gone when its lock was not touched for this long. */
const forgottenAfter = 300_000 // ms
const touchedEvery = 60_000 // ms

const ownerSchema = z.object({ pid: z.number().int().positive(), host: z.string(), birth: z.string() })

/** Who holds a folder. Process ids are used again, after a restart soon; when the process was born is not. */
type Owner = z.infer<typeof ownerSchema>

/** Locks of this very process, whose id says nothing about itself. */
const held = new Set<string>()

/**
 * Takes the folder for this process; returns the function that gives it back. What a killed process left is taken over.
 * @param work what the process does there, for the error
 * @throws Error when another process works in the folder
 */
export async function lockRunFolder(
  folder: string,
  { work = 'train', works = 'trains' }: { work?: string; works?: string } = {},
): Promise<() => Promise<void>> {
  const path = join(folder, lockName)
  const text = `${JSON.stringify({ pid: process.pid, host: hostname(), birth: await birthOf(process.pid) } satisfies Owner)}\n`
  while (!(await create(path, text))) {
    const found = await readFile(path, 'utf8').catch(ifAbsent)
    if (found === undefined) continue // given back in between
    const holder = await liveHolder(path, found)
    if (holder !== undefined) {
      throw new Error(
        `Cannot ${work} in ${folder}: ${holder} ${works} in it, expected to be the only one (${lockName})`,
      )
    }
    await takeAway(path, found)
  }
  held.add(path)
  const touching = setInterval(() => void utimes(path, new Date(), new Date()).catch(() => {}), touchedEvery)
  touching.unref()
  return async () => {
    clearInterval(touching)
    held.delete(path)
    if ((await readFile(path, 'utf8').catch(ifAbsent)) === text) await rm(path, { force: true })
  }
}

async function create(path: string, text: string): Promise<boolean> {
  try {
    await writeFile(path, text, { flag: 'wx' })
    return true
  } catch (error) {
    if (hasCode(error, 'EEXIST')) return false
    throw error
  }
}

/** Removes a lock that nobody holds; by renaming, so that of two who try only one has it, and not one that was made in between. */
async function takeAway(path: string, stale: string): Promise<void> {
  const aside = `${path}.${randomUUID()}`
  const moved = await rename(path, aside).then(() => true, ifAbsent)
  if (moved === undefined) return
  if ((await readFile(aside, 'utf8')) !== stale) await rename(aside, path)
  else await rm(aside, { force: true })
}

/** Who holds the lock, in words; undefined when nobody does any more. */
async function liveHolder(path: string, text: string): Promise<string | undefined> {
  const age = Date.now() - ((await stat(path).then(({ mtimeMs }) => mtimeMs, ifAbsent)) ?? 0)
  const owner = parseOwner(text)
  if (owner === undefined) return age < 10_000 ? 'another process' : undefined // just being written, or cut off by a crash
  const { pid, host, birth } = owner
  if (host !== hostname()) return age < forgottenAfter ? `process ${pid} on ${host}` : undefined
  if (pid === process.pid) return held.has(path) ? 'this process' : undefined
  return isAlive(pid) && (await birthOf(pid)) === birth ? `process ${pid}` : undefined
}

function parseOwner(text: string): Owner | undefined {
  try {
    return ownerSchema.safeParse(JSON.parse(text)).data
  } catch {
    return undefined
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return hasCode(error, 'EPERM') // it is there, and somebody else's
  }
}

/** The boot and the moment in it at which a process began, where the system tells (Linux); an empty text elsewhere. */
async function birthOf(pid: number): Promise<string> {
  try {
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8')
    const status = await readFile(`/proc/${pid}/stat`, 'utf8')
    const afterName = status.slice(status.lastIndexOf(')') + 2).split(' ') // the name may hold spaces
    return `${boot.trim()} ${afterName[19]}`
  } catch {
    return ''
  }
}

function ifAbsent(error: unknown): undefined {
  if (hasCode(error, 'ENOENT')) return undefined
  throw error
}
