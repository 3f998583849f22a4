/**
 * Records dealt into parts by what they belong to, on disk when they are many: what stands far apart in a file is put together part by part, and memory does
 * not grow with the file.
 */

import { hash } from 'node:crypto'
import { type FileHandle, mkdir, mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gatheredWrites, readJsonLines } from './lines.ts'

/** A record that JSON can hold, with the id of what it belongs to. */
export type Belonging = { readonly of: string }

export type Parts<T extends Belonging> = {
  readonly put: (record: T) => Promise<void>
  /** What was put there, part by part, in the order in which it came; all records of one id are in one part. */
  readonly all: () => AsyncGenerator<readonly T[]>
  readonly close: () => Promise<void>
}

/** Told how many records were read. What it throws ends the reading. */
export type OnRecord = ((count: number) => void) | undefined

export const partBytes = 12_000_000 // of the files, for one part that is put together in memory
const mostParts = 500 // files that are open at once

/**
 * So many parts of about equal size, within what a system lets a program open; a single one stays in memory.
 * @param place where the parts lie meanwhile, emptied before and removed after; a temporary folder unless told
 */
export async function openParts<T extends Belonging>(wanted: number, place: string | undefined): Promise<Parts<T>> {
  const count = Math.min(wanted, mostParts)
  if (count <= 1) {
    const records: T[] = []
    return {
      put: async (record) => void records.push(record),
      all: async function* () {
        yield records
      },
      close: async () => {},
    }
  }
  const folder = place ?? (await mkdtemp(join(tmpdir(), 'llava-parts-')))
  if (place !== undefined) {
    await rm(place, { recursive: true, force: true }) // of a run that was killed
    await mkdir(place, { recursive: true })
  }
  const files: { path: string; handle: FileHandle; written: ReturnType<typeof gatheredWrites> }[] = []
  const close = async () => {
    for (const { handle } of files) await handle.close()
    await rm(folder, { recursive: true, force: true })
  }
  try {
    for (let index = 0; index < count; index++) {
      const path = join(folder, `${index}.jsonl`)
      const handle = await open(path, 'w')
      files.push({ path, handle, written: gatheredWrites(handle, { length: 1 << 16 }) })
    }
  } catch (error) {
    await close()
    throw error
  }
  return {
    put: async (record) => files[partOf(record.of, count)]?.written.add(`${JSON.stringify(record)}\n`),
    all: async function* () {
      for (const { written } of files) await written.end()
      for (const { path } of files) {
        const records: T[] = []
        for await (const { value } of readJsonLines(path)) records.push(value as T)
        yield records
      }
    },
    close,
  }
}

function partOf(id: string, count: number): number {
  return Number.parseInt(hash('md5', id, 'hex').slice(0, 8), 16) % count
}
