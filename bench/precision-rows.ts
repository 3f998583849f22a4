/** Rows of a long bench, kept in a file as they are finished: a bench that was stopped goes on where it was. */

import { readFile } from 'node:fs/promises'
import { hasCode, writeFileAtomically } from '../src/checkpoint/atomic-file.ts'

export type KeptRows<T> = {
  /** The row of that name, measured now unless it is kept. */
  row(name: string, measure: () => Promise<T>): Promise<T>
}

/** Rows in the file at `path`, or only in memory without one. Rows of another `subject` (commit, sizes) are not taken. */
export async function keepRows<T>(path: string | undefined, { subject }: { subject: string }): Promise<KeptRows<T>> {
  const kept = path === undefined ? undefined : await readKept<T>(path)
  const rows: Record<string, T> = kept?.subject === subject ? kept.rows : {}
  return {
    async row(name, measure) {
      const known = rows[name]
      if (known !== undefined) return known
      const measured = await measure()
      rows[name] = measured
      if (path !== undefined) {
        const text = JSON.stringify({ subject, rows }, null, 2)
        await writeFileAtomically(path, async (handle) => handle.writeFile(text))
      }
      return measured
    },
  }
}

async function readKept<T>(path: string): Promise<{ subject: string; rows: Record<string, T> } | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as { subject: string; rows: Record<string, T> }
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}
