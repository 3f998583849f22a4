/** Option values: text from the command line as numbers, paths that can be written, pictures that are there. Errors come before any work is done. */

import { constants } from 'node:fs'
import { access, readdir, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { mostObjects } from '../picturebook/scene.ts'
import { mostThreads } from '../runtime/device.ts'

type Range = { readonly from?: number; readonly above?: number; readonly to?: number }

/** A parser of whole numbers for commander. The parser throws RangeError that names the option. */
export function wholeNumber(option: string, range: Range = {}): (text: string) => number {
  return (text) => {
    const value = /^[+-]?\d+$/.test(text.trim()) ? Number(text) : Number.NaN
    if (Number.isSafeInteger(value) && isInside(value, range)) return value
    throw new RangeError(`Cannot use ${option} ${text || "''"}: expected a whole number${describe(range)}`)
  }
}

/** The value of `--threads`, wherever there is this option. */
export const threadCount = wholeNumber('--threads', { from: 1, to: mostThreads })

/** The same for decimal numbers. */
export function decimalNumber(option: string, range: Range = {}): (text: string) => number {
  return (text) => {
    const value = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text.trim()) ? Number(text) : Number.NaN
    if (Number.isFinite(value) && isInside(value, range)) return value
    throw new RangeError(`Cannot use ${option} ${text || "''"}: expected a number${describe(range)}`)
  }
}

/** A parser of a few fixed words. */
export function oneOf<T extends string>(option: string, words: readonly T[]): (text: string) => T {
  return (text) => {
    const found = words.find((word) => word.toLowerCase() === text.toLowerCase())
    if (found !== undefined) return found
    throw new RangeError(`Cannot use ${option} ${text || "''"}: expected ${words.join(', ')}`)
  }
}

/** `1-4`, or `3` for exactly three. */
export function objectRange(text: string): readonly [number, number] {
  const [, low, high = low] = /^(\d)(?:-(\d))?$/.exec(text.trim()) ?? []
  const range = [Number(low), Number(high)] as const
  if (range[0] >= 1 && range[0] <= range[1] && range[1] <= mostObjects) return range
  throw new RangeError(`Cannot use --objects ${text || "''"}: expected MIN-MAX within 1 to ${mostObjects}, such as 1-4`)
}

/** @throws Error unless a file can be written at `path` */
export async function expectWritableFile(option: string, path: string): Promise<void> {
  const found = await kindOf(path)
  if (found === 'folder') throw new Error(`Cannot use ${option} ${path}: it is a folder, expected a file name`)
  const folder = dirname(resolve(path))
  if ((await kindOf(folder)) !== 'folder') {
    throw new Error(`Cannot use ${option} ${path}: there is no folder ${dirname(path)}`)
  }
  await expectAccess(folder, { option, path })
}

/** @throws Error unless `path` is a folder that can be written to, or can be made into one */
export async function expectWritableFolder(option: string, path: string): Promise<void> {
  let existing = resolve(path)
  let found = await kindOf(existing)
  while (found === undefined && dirname(existing) !== existing) {
    existing = dirname(existing)
    found = await kindOf(existing)
  }
  if (found !== 'folder') throw new Error(`Cannot use ${option} ${path}: ${existing} is a file, expected a folder`)
  await expectAccess(existing, { option, path })
}

/** Entries of a folder, none when it does not exist. */
export async function entriesOf(folder: string): Promise<string[]> {
  return (await kindOf(folder)) === 'folder' ? readdir(folder) : []
}

export async function kindOf(path: string): Promise<'file' | 'folder' | undefined> {
  const status = await stat(path).catch(() => undefined)
  if (status === undefined) return undefined
  return status.isDirectory() ? 'folder' : 'file'
}

/** A duration as programs read it: two decimals are enough. */
export function milliseconds(value: number): number {
  return Math.round(value * 100) / 100
}

async function expectAccess(folder: string, { option, path }: { option: string; path: string }): Promise<void> {
  await access(folder, constants.W_OK | constants.X_OK).catch((cause) => {
    throw new Error(`Cannot use ${option} ${path}: no permission to write in ${folder}`, { cause })
  })
}

function isInside(value: number, { from, above, to }: Range): boolean {
  return (
    (from === undefined || value >= from) && (above === undefined || value > above) && (to === undefined || value <= to)
  )
}

function describe({ from, above, to }: Range): string {
  const low = from !== undefined ? `from ${from}` : above !== undefined ? `above ${above}` : ''
  const high = to !== undefined ? (from !== undefined ? `to ${to}` : `up to ${to}`) : from !== undefined ? 'up' : ''
  return [low, high].some(Boolean) ? ` ${[low, high].filter(Boolean).join(' ')}` : ''
}
