/** What every bench needs: timing, medians, and a description of the machine that it ran on. */

import { execFile, execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

export type BenchResult = {
  /** The table, a row per measurement; every row has the same keys. */
  readonly table: readonly Readonly<Record<string, string | number>>[]
  /** What the figures mean and how they were taken, a sentence each. */
  readonly notes: readonly string[]
  /** The keys of the JSON document. */
  readonly figures: Readonly<Record<string, unknown>>
}

/** Milliseconds that `work` takes. */
export async function time(work: () => unknown): Promise<number> {
  const start = performance.now()
  await work()
  return performance.now() - start
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const [low = Number.NaN, high = Number.NaN] = [sorted[Math.ceil(sorted.length / 2) - 1], sorted[middle]]
  return (low + high) / 2
}

/** Runs a script of this folder in a process of its own, whose memory and time are then its alone; its last line is a JSON document. */
export async function runScript<T>(name: string, words: readonly string[]): Promise<T> {
  const path = fileURLToPath(new URL(name, import.meta.url))
  const { stdout } = await promisify(execFile)(process.execPath, [...process.execArgv, path, ...words])
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as T
}

/** Rounded to `digits` significant digits, for tables and JSON alike. */
export function rounded(value: number, digits = 3): number {
  return Number(value.toPrecision(digits))
}

/** The most bytes of memory that this process ever held. */
export function peakMemory(): number {
  const kibibytes = /^VmHWM:\s+(\d+) kB$/m.exec(statusOfProcess())?.[1] ?? process.resourceUsage().maxRSS
  return Number(kibibytes) * 1024
}

/**
 * The most bytes of memory that belong to this process alone, looked at twenty times a second: without mapped files, which the system may take back at any
 * time. NaN where the system does not tell.
 */
export function watchOwnMemory(): { stop(): number } {
  let most = Number.NaN
  const look = () => {
    const kibibytes = Number(/^RssAnon:\s+(\d+) kB$/m.exec(statusOfProcess())?.[1] ?? Number.NaN)
    most = Number.isNaN(most) ? kibibytes : Math.max(most, kibibytes)
  }
  const timer = setInterval(look, 50)
  return {
    stop() {
      clearInterval(timer)
      look()
      return most * 1024
    },
  }
}

function statusOfProcess(): string {
  try {
    return readFileSync('/proc/self/status', 'utf8')
  } catch {
    return '' // not Linux
  }
}

/** The machine, the software, and what else the machine was doing. */
export function surroundings(): Record<string, unknown> {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memory_gib: rounded(totalmem() / 2 ** 30),
    platform: `${process.platform} ${process.arch}`,
    node: process.version,
    commit: commit(),
    date: new Date().toISOString(),
    load_average: rounded(loadavg()[0] ?? 0),
  }
}

/** The commit, marked `-dirty` when files differ from it, or null outside of a checkout. */
function commit(): string | null {
  try {
    return execFileSync('git', ['describe', '--always', '--dirty', '--exclude', '*'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim()
  } catch {
    return null
  }
}
