/**
 * Downloads one file into the place where its contents belong: goes on where an earlier try stopped, and gives it its name only when length
 * and hash are right. A server is believed in nothing: it may drop the connection, ignore ranges, send too little or too much.
 */

import { createHash, type Hash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { hasCode } from './atomic-file.ts'

/** What the contents must be: `sha256` of the bytes, or `git`, the SHA-1 of a header and the bytes. */
export type Expected = { readonly bytes: number; readonly algorithm: 'sha256' | 'git'; readonly hash: string }

export type DownloadOptions = {
  readonly expected: Expected
  readonly what: string // names the file in errors
  readonly fetch: (url: string, init: { headers: Record<string, string>; signal: AbortSignal }) => Promise<Response>
  readonly signal?: AbortSignal | undefined
  readonly onBytes?: ((bytes: number) => void) | undefined // negative when bytes are given up
  readonly patience?: Patience | undefined
}

/** Tries without any progress before giving up, milliseconds without a byte, milliseconds to wait before the first repetition. */
export type Patience = { readonly tries: number; readonly stallMs: number; readonly pauseMs: number }

const defaultPatience: Patience = { tries: 5, stallMs: 60_000, pauseMs: 1000 }
const longestPause = 60_000

/** An answer that trying again does not change. */
class RefusedError extends Error {}

/**
 * Leaves the file at `path`, complete and right, or a partial one beside it that the next call goes on with.
 * Errors: `Error` when the server says no or keeps failing or the contents are wrong, `signal.reason` when the signal fires.
 */
export async function downloadFile(url: string, path: string, options: DownloadOptions): Promise<void> {
  const { expected, what, signal, onBytes, patience = defaultPatience } = options
  await mkdir(dirname(path), { recursive: true })
  const partial = `${path}.llava-${process.pid}.incomplete`
  await claimPartial(path, partial)
  let [failures, wrong] = [0, 0]
  let had = await sizeOf(partial)
  onBytes?.(had)
  while (true) {
    signal?.throwIfAborted()
    let pause = patience.pauseMs * 2 ** failures
    let reason: string
    try {
      await append(url, partial, options)
      const found = await hashOf(partial, expected)
      if (found === expected.hash) break
      reason = `its ${expected.algorithm === 'git' ? 'git hash' : expected.algorithm} is ${found}, expected ${expected.hash}`
      onBytes?.(-(await sizeOf(partial)))
      await rm(partial, { force: true })
      if (++wrong === 2) throw new RefusedError(`Cannot download ${what}: ${reason}`)
    } catch (error) {
      signal?.throwIfAborted()
      if (error instanceof RefusedError || isDiskTrouble(error)) throw error
      reason = reasonOf(error)
      if (error instanceof BusyError) pause = error.retryAfterMs ?? pause
    }
    const has = await sizeOf(partial)
    failures = has > had ? 0 : failures + 1
    had = has
    if (failures >= patience.tries) {
      throw new Error(`Cannot download ${what}: ${reason}; what has arrived is kept, the same command goes on there`)
    }
    await sleep(Math.min(pause, longestPause), undefined, { signal }).catch(() => signal?.throwIfAborted())
  }
  await syncAndRename(partial, path)
}

/** A server that asks to come back later. */
class BusyError extends Error {
  readonly retryAfterMs: number | undefined
  constructor(message: string, retryAfterMs: number | undefined) {
    super(message)
    this.retryAfterMs = retryAfterMs
  }
}

/** Asks for what is missing and appends it. Returns normally when the length is right. */
async function append(
  url: string,
  partial: string,
  { expected, what, fetch, signal, onBytes, patience = defaultPatience }: DownloadOptions,
): Promise<void> {
  const handle = await open(partial, 'a+')
  try {
    let { size } = await handle.stat()
    const restart = async () => {
      onBytes?.(-size)
      await handle.truncate(0)
      size = 0
    }
    if (size > expected.bytes) await restart()
    if (size === expected.bytes) return
    const stall = stallWatch(patience.stallMs, signal)
    try {
      const headers: Record<string, string> = { 'accept-encoding': 'identity' } // hashes are of the bytes as stored
      if (size > 0) headers.range = `bytes=${size}-`
      const response = await fetch(url, { headers, signal: stall.signal })
      if (response.status === 416) await restart()
      expectGoodAnswer(response, what)
      // A server that ignores or misreads the range sends something else: begin anew.
      if (size > 0 && !startsAt(response, size)) await restart()
      if (response.status === 206 && !startsAt(response, size)) {
        await response.body?.cancel()
        throw new Error(`the server sent the range ${response.headers.get('content-range')}, expected one from ${size}`)
      }
      await receive(response, { handle, size, expected, onBytes, stall })
    } finally {
      stall.end()
    }
  } finally {
    await handle.close()
  }
}

async function receive(
  { body }: Response,
  {
    handle,
    size,
    expected,
    onBytes,
    stall,
  }: {
    handle: FileHandle
    size: number
    expected: Expected
    onBytes: DownloadOptions['onBytes']
    stall: ReturnType<typeof stallWatch>
  },
): Promise<void> {
  let received = size
  for await (const chunk of body ?? []) {
    stall.beat()
    received += chunk.length
    if (received > expected.bytes) {
      onBytes?.(-(received - chunk.length))
      await handle.truncate(0)
      throw new Error(`the server sent more than the ${expected.bytes} bytes that it should have`)
    }
    await handle.appendFile(chunk)
    onBytes?.(chunk.length)
  }
  if (received < expected.bytes) throw new Error(`the connection ended after ${received} of ${expected.bytes} bytes`)
}

function expectGoodAnswer(response: Response, what: string): void {
  const { status } = response
  if (status === 200 || status === 206) return
  if (status === 416) throw new Error('the server has no such range')
  if (status === 429 || status === 408 || status >= 500) {
    const seconds = Number(response.headers.get('retry-after'))
    throw new BusyError(`the server answered ${describeStatus(status)}`, seconds > 0 ? 1000 * seconds : undefined)
  }
  throw new RefusedError(`Cannot download ${what}: the server answered ${describeStatus(status)}`)
}

export function describeStatus(status: number): string {
  const words: Record<number, string> = {
    401: 'that a token is needed',
    403: 'that this token may not',
    404: 'that there is no such thing',
    429: 'that there were too many requests',
  }
  return words[status] === undefined ? `with status ${status}` : `${words[status]} (${status})`
}

function startsAt(response: Response, size: number): boolean {
  if (response.status !== 206) return size === 0
  const start = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1]
  return Number(start) === size
}

/** A signal that also fires when nothing arrives for so long. */
function stallWatch(milliseconds: number, outer: AbortSignal | undefined) {
  const controller = new AbortController()
  const fire = () => controller.abort(new Error(`nothing arrived for ${milliseconds / 1000} s`))
  let timer = setTimeout(fire, milliseconds)
  return {
    signal: outer === undefined ? controller.signal : AbortSignal.any([outer, controller.signal]),
    beat: () => {
      clearTimeout(timer)
      timer = setTimeout(fire, milliseconds)
    },
    end: () => clearTimeout(timer),
  }
}

/** Takes over what a process that is no more has left; one that still runs keeps its own. */
async function claimPartial(path: string, partial: string): Promise<void> {
  const start = `${basename(path)}.llava-`
  const names = await readdir(dirname(path))
  for (const name of names) {
    const pid = name.startsWith(start) ? /^(\d+)\.incomplete$/.exec(name.slice(start.length))?.[1] : undefined
    if (pid === undefined || Number(pid) === process.pid || isRunning(Number(pid))) continue
    await rename(join(dirname(path), name), partial).catch((error) => {
      if (!hasCode(error, 'ENOENT')) throw error // another process was quicker
    })
  }
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return hasCode(error, 'EPERM')
  }
}

async function hashOf(path: string, { algorithm, bytes }: Expected): Promise<string> {
  const hash: Hash = createHash(algorithm === 'git' ? 'sha1' : 'sha256')
  if (algorithm === 'git') hash.update(`blob ${bytes}\0`)
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk)
  return hash.digest('hex')
}

async function syncAndRename(partial: string, path: string): Promise<void> {
  const handle = await open(partial, 'r+')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
  await rename(partial, path)
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  )
}

function isDiskTrouble(error: unknown): boolean {
  return ['ENOSPC', 'EACCES', 'EROFS', 'EDQUOT', 'EIO'].some((code) => hasCode(error, code))
}

/** The innermost reason: "fetch failed" says nothing. */
function reasonOf(error: unknown): string {
  let innermost = error
  while (innermost instanceof Error && innermost.cause instanceof Error) innermost = innermost.cause
  return innermost instanceof Error ? innermost.message || innermost.name : String(innermost)
}
