/** Writes files and folders so that a crash or a full disk leaves either the old content or the new, never a half. */

import { randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, rename, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'

/** Replaces the file at `path` by what `write` puts into the handle: written beside, synced, renamed. */
export async function writeFileAtomically(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const temporary = besides(path, 'partial')
  try {
    const handle = await open(temporary, 'wx')
    try {
      await write(handle)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await syncFolder(dirname(resolve(path)))
}

/**
 * Makes the folder `path` from what `fill` puts into a folder beside it. An existing folder is refused unless it is
 * empty or `mayReplace` agrees, given its entries; then it is moved aside, and deleted once the new one is in place.
 */
export async function writeFolderAtomically(
  path: string,
  fill: (folder: string) => Promise<void>,
  { mayReplace = () => false }: { mayReplace?: (names: readonly string[]) => boolean } = {},
): Promise<void> {
  const target = resolve(path)
  const existing = await listFolder(target)
  if (existing !== undefined && existing.length > 0 && !mayReplace(existing)) {
    throw new Error(
      `Cannot write folder ${path}: found ${existing[0]}${existing.length > 1 ? ` and ${existing.length - 1} more` : ''} in it, expected a new or empty folder, or an earlier result of the same kind`,
    )
  }
  const temporary = besides(target, 'partial')
  await mkdir(temporary, { recursive: true })
  const aside = existing === undefined ? undefined : besides(target, 'old')
  try {
    await fill(temporary)
    await syncFolder(temporary)
    if (aside !== undefined) await rename(target, aside)
    try {
      await rename(temporary, target)
    } catch (error) {
      if (aside !== undefined) await rename(aside, target)
      throw error
    }
  } catch (error) {
    await rm(temporary, { recursive: true, force: true })
    throw error
  }
  await syncFolder(dirname(target))
  if (aside !== undefined) await rm(aside, { recursive: true, force: true })
}

function besides(path: string, kind: 'partial' | 'old'): string {
  const full = resolve(path)
  return join(dirname(full), `.${basename(full)}.${kind}-${randomUUID()}`)
}

async function listFolder(path: string): Promise<string[] | undefined> {
  try {
    return await readdir(path)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}

/** Makes renames in the folder durable; a platform that cannot sync folders (Windows) does so by itself. */
async function syncFolder(path: string): Promise<void> {
  try {
    const handle = await open(path)
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (error) {
    if (!['EISDIR', 'EPERM', 'EACCES', 'EINVAL'].some((code) => hasCode(error, code))) throw error
  }
}

export function hasCode(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}
