/**
 * The folder in which Hugging Face tools share what they have downloaded (HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub):
 *
 *     models--ORG--NAME/blobs/HASH             contents, named by what they are
 *     models--ORG--NAME/snapshots/COMMIT/…     a revision's files, as links to contents
 *     models--ORG--NAME/refs/main              the commit that a branch or tag stood at
 */

import { copyFile, mkdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { hasCode, writeFileAtomically } from './atomic-file.ts'

export type ModelCache = {
  readonly blobs: string
  readonly snapshot: (commit: string) => string
  readonly ref: (revision: string) => string
}

const commitPattern = /^[0-9a-f]{40}$/

/** Whether a text looks like the name of a model on the hub: ORG/NAME. */
export function isHubName(text: string): boolean {
  const name = '[A-Za-z0-9](?:[\\w.-]*[A-Za-z0-9_])?'
  return new RegExp(`^${name}/${name}$`).test(text) && !text.includes('..') && !text.includes('--')
}

/** Whether a text can be the name of a revision, and cannot lead out of a folder. */
export function isRevision(text: string): boolean {
  return /^[A-Za-z0-9][\w./-]*$/.test(text) && !text.includes('..') && !text.endsWith('/')
}

export function isCommit(revision: string): boolean {
  return commitPattern.test(revision)
}

/** The cache of one model; `root` is the shared folder, found by the environment when left out. */
export async function modelCache(name: string, { root }: { root?: string | undefined } = {}): Promise<ModelCache> {
  const { getHFHubCachePath, getRepoFolderName } = await import('@huggingface/hub')
  const folder = join(root ?? getHFHubCachePath(), getRepoFolderName({ type: 'model', name }))
  return {
    blobs: join(folder, 'blobs'),
    snapshot: (commit) => join(folder, 'snapshots', commit),
    ref: (revision) => join(folder, 'refs', revision),
  }
}

/** The folder of a downloaded model, undefined when the cache has none. The files in it may be fewer than the hub's. */
export async function findInCache(
  name: string,
  { revision = 'main', root }: { revision?: string | undefined; root?: string | undefined } = {},
): Promise<{ folder: string; commit: string } | undefined> {
  if (!isHubName(name) || !isRevision(revision)) return undefined
  const cache = await modelCache(name, { root })
  const commit = isCommit(revision) ? revision : (await readFileOrNothing(cache.ref(revision)))?.trim()
  if (commit === undefined || !isCommit(commit)) return undefined
  const folder = cache.snapshot(commit)
  const found = await stat(join(folder, 'config.json')).catch(() => undefined)
  return found === undefined ? undefined : { folder, commit }
}

/**
 * Makes a revision out of contents that are all there: files by name → names of blobs. Links come in the given order and the ref last, so
 * put the file that makes a model of a folder at the end.
 */
export async function linkRevision(
  cache: ModelCache,
  { commit, revision, files }: { commit: string; revision: string; files: ReadonlyMap<string, string> },
): Promise<string> {
  const folder = cache.snapshot(commit)
  await mkdir(folder, { recursive: true })
  for (const [name, blob] of files) await link(join(cache.blobs, blob), join(folder, name))
  if (revision !== commit) {
    await mkdir(dirname(cache.ref(revision)), { recursive: true })
    await writeFileAtomically(cache.ref(revision), (handle) => writeFile(handle, commit))
  }
  return folder
}

/** A relative link, so that the cache can be moved; a copy where the platform allows no links. */
async function link(blob: string, path: string): Promise<void> {
  await rm(path, { force: true })
  try {
    await symlink(relative(dirname(path), blob), path)
  } catch (error) {
    if (!hasCode(error, 'EPERM') && !hasCode(error, 'ENOSYS') && !hasCode(error, 'ENOTSUP')) throw error
    await copyFile(blob, path)
  }
}

async function readFileOrNothing(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    if (hasCode(error, 'ENOENT') || hasCode(error, 'EISDIR') || hasCode(error, 'ENOTDIR')) return undefined
    throw error
  }
}
