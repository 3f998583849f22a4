/** Fetches a model from the Hugging Face hub into the shared cache: only the files that are needed, each checked, linked when all are there. */

import { readFile, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { z } from 'zod'
import { describeStatus, downloadFile, type Expected, type Patience } from './download.ts'
import { companionFiles } from './export.ts'
import { weightsFile } from './folder.ts'
import { findInCache, isCommit, isHubName, isRevision, linkRevision, type ModelCache, modelCache } from './hub-cache.ts'
import { parseStrictJson, quote } from './json.ts'

export type PullProgress = { readonly file: string; readonly done: number; readonly total: number } // bytes

export type PullOptions = {
  readonly revision?: string | undefined // branch, tag or commit, default main
  readonly token?: string | undefined
  readonly endpoint?: string | undefined
  /** Nothing is asked of the network: what is in the cache is all there is. */
  readonly offline?: boolean | undefined
  readonly root?: string | undefined // of the cache
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: PullProgress) => void) | undefined
  readonly patience?: Patience | undefined
}

export type Pulled = {
  readonly folder: string
  readonly commit: string
  readonly files: readonly string[]
  readonly bytes: number // of all files
  readonly fetched: number // bytes that were not there before
}

type HubFile = { readonly name: string; readonly expected: Expected }

const indexFile = `${weightsFile}.index.json`
const configFile = 'config.json'

/** Token, endpoint and offline mode as the other Hugging Face tools find them. */
export async function hubSettings(
  env: NodeJS.ProcessEnv = process.env,
): Promise<Pick<PullOptions, 'token' | 'endpoint' | 'offline'>> {
  const home = env.HF_HOME ?? join(env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface')
  const stored = await readFile(env.HF_TOKEN_PATH ?? join(home, 'token'), 'utf8').catch(() => '')
  const token = (env.HF_TOKEN ?? stored).trim()
  return {
    token: token === '' ? undefined : token,
    endpoint: env.HF_ENDPOINT?.replace(/\/+$/, '') || undefined,
    offline: /^(1|on|yes|true)$/i.test(env.HF_HUB_OFFLINE ?? ''),
  }
}

/**
 * Brings a model into the cache and returns its folder. What is there already is not fetched again; a model is linked only when it is whole.
 * Errors: `RangeError` for a bad name or revision, `Error` (one sentence) for everything that server, disk or repository do.
 */
export async function pullModel(name: string, options: PullOptions = {}): Promise<Pulled> {
  const { revision = 'main', root, signal, onProgress, offline, patience } = options
  if (!isHubName(name))
    throw new RangeError(`Cannot pull ${quote(name)}: expected ORG/NAME, such as llava-hf/llava-1.5-7b-hf`)
  if (!isRevision(revision))
    throw new RangeError(`Cannot pull revision ${quote(revision)}: expected a branch, a tag or a commit`)
  if (offline) return cachedOnly(name, { revision, root })
  const hub = connect(name, options)
  const cache = await modelCache(name, { root })
  const commit = await hub.commit(revision)
  const listed = await hub.files(commit)
  const missing = async (files: readonly HubFile[]) => {
    const here = await Promise.all(files.map((file) => isHere(cache, file)))
    return files.filter((_, i) => !here[i])
  }
  let fetched = 0
  const fetchAll = async (files: readonly HubFile[]) => {
    const wanted = await missing(files)
    const total = wanted.reduce((sum, { expected }) => sum + expected.bytes, 0)
    let done = 0
    for (const file of wanted) {
      await downloadFile(hub.url(commit, file.name), blobOf(cache, file), {
        expected: file.expected,
        what: `${file.name} of ${name}`,
        fetch: hub.fetch,
        signal,
        patience,
        onBytes: (bytes) => {
          done += bytes
          onProgress?.({ file: file.name, done, total })
        },
      })
    }
    fetched += total
  }

  // The index says which shards there must be: small files come first.
  const { small, index, whole } = chooseFiles(name, listed)
  await fetchAll(index === undefined ? small : [...small, index])
  const weights = index === undefined ? whole : await shardsOf(cache, { name, index, listed })
  await fetchAll(weights)

  const files = [...weights, ...(index === undefined ? [] : [index]), ...small]
  const links = new Map(files.map((file) => [file.name, file.expected.hash]))
  const folder = await linkRevision(cache, { commit, revision, files: links })
  const bytes = files.reduce((sum, { expected }) => sum + expected.bytes, 0)
  return { folder, commit, files: [...links.keys()], bytes, fetched }
}

async function cachedOnly(
  name: string,
  { revision, root }: { revision: string; root: string | undefined },
): Promise<Pulled> {
  const found = await findInCache(name, { revision, root })
  if (found === undefined) {
    throw new Error(
      `Cannot pull ${name}: offline mode is on and the cache has no revision ${revision} of it, expected a network or an earlier pull`,
    )
  }
  return { ...found, files: [], bytes: 0, fetched: 0 }
}

/** What is worth having: config and companions (config last: it makes a model of the folder), and weights in safetensors. */
function chooseFiles(
  name: string,
  listed: ReadonlyMap<string, HubFile>,
): { small: HubFile[]; index: HubFile | undefined; whole: HubFile[] } {
  const config = listed.get(configFile)
  const single = listed.get(weightsFile)
  const index = single === undefined ? listed.get(indexFile) : undefined
  if (config === undefined || (single === undefined && index === undefined)) {
    throw new Error(`Cannot pull ${name}: ${describeLack(listed, { config: config !== undefined })}`)
  }
  const companions = companionFiles.flatMap((file) => listed.get(file) ?? [])
  return { small: [...companions, config], index, whole: single === undefined ? [] : [single] }
}

function describeLack(listed: ReadonlyMap<string, HubFile>, { config }: { config: boolean }): string {
  const find = (pattern: RegExp) => [...listed.keys()].find((name) => pattern.test(name))
  const gguf = find(/\.gguf$/)
  const pickle = find(/\.(bin|pt|pth)$/)
  if (gguf !== undefined) {
    return `it holds ${gguf}, a file for llama.cpp, expected safetensors; pull the repository that it was converted from`
  }
  if (pickle !== undefined) {
    return (
      `it holds ${pickle}, a pickle that can run code when opened, expected safetensors; look for a conversion such as one of llava-hf, ` +
      'or convert it with transformers: AutoModelForImageTextToText.from_pretrained(name).save_pretrained(out, safe_serialization=True)'
    )
  }
  if (!config) return `found no ${configFile}, expected a model of transformers`
  return `found neither ${weightsFile} nor ${indexFile}, expected one of them`
}

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) })

async function shardsOf(
  cache: ModelCache,
  { name, index, listed }: { name: string; index: HubFile; listed: ReadonlyMap<string, HubFile> },
): Promise<HubFile[]> {
  const what = `${indexFile} of ${name}`
  const { data } = indexSchema.safeParse(parseStrictJson(await readFile(blobOf(cache, index)), what))
  if (data === undefined) throw new SyntaxError(`Cannot read ${what}: weight_map is not an object of file names`)
  return [...new Set(Object.values(data.weight_map))].map((shard) => {
    const file = listed.get(shard)
    if (file === undefined)
      throw new Error(`Cannot pull ${name}: ${indexFile} names ${quote(shard)}, which the repository lacks`)
    return file
  })
}

/** The questions to the hub, with the token and in our words when it refuses. */
function connect(name: string, { token, endpoint = 'https://huggingface.co', signal }: PullOptions) {
  const authorized = (input: string | URL | Request, init: RequestInit = {}) => {
    const headers = new Headers(init.headers)
    if (token !== undefined) headers.set('authorization', `Bearer ${token}`)
    return fetch(input, { ...init, headers, signal: init.signal ?? signal ?? null })
  }
  const ask = async <T>(question: () => Promise<T>, revision: string): Promise<T> => {
    try {
      return await question()
    } catch (error) {
      signal?.throwIfAborted()
      throw refusal(error, { name, endpoint, revision, token })
    }
  }
  return {
    fetch: authorized,
    url: (commit: string, file: string) => `${endpoint}/${name}/resolve/${commit}/${encodeURIComponent(file)}`,
    async commit(revision: string): Promise<string> {
      const { modelInfo } = await import('@huggingface/hub')
      const info = await ask(
        () => modelInfo({ name, revision, additionalFields: ['sha'], hubUrl: endpoint, fetch: authorized }),
        revision,
      )
      if (typeof info.sha === 'string' && isCommit(info.sha)) return info.sha
      throw new Error(`Cannot pull ${name}: ${endpoint} gave no commit of revision ${revision}`)
    },
    async files(commit: string): Promise<Map<string, HubFile>> {
      const { listFiles } = await import('@huggingface/hub')
      const listing = async () => {
        const files = new Map<string, HubFile>()
        for await (const entry of listFiles({ repo: name, revision: commit, hubUrl: endpoint, fetch: authorized })) {
          const file = readEntry(entry)
          if (file !== undefined) files.set(file.name, file)
        }
        return files
      }
      return ask(listing, commit)
    },
  }
}

const entrySchema = z.object({
  type: z.literal('file'),
  // A plain name: a list from a stranger must not reach files outside the folder.
  path: z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9._-]*$/),
  size: z.int().min(0),
  oid: z.string().regex(/^[0-9a-f]{40}$/),
  lfs: z.object({ oid: z.string().regex(/^[0-9a-f]{64}$/), size: z.int().min(0) }).optional(),
})

function readEntry(json: unknown): HubFile | undefined {
  const { data } = entrySchema.safeParse(json)
  if (data === undefined) return undefined
  const { path, size, oid, lfs } = data
  const expected: Expected =
    lfs === undefined
      ? { bytes: size, algorithm: 'git', hash: oid }
      : { bytes: lfs.size, algorithm: 'sha256', hash: lfs.oid }
  return { name: path, expected }
}

function refusal(
  error: unknown,
  { name, endpoint, revision, token }: { name: string; endpoint: string; revision: string; token: string | undefined },
): Error {
  const status = statusOf(error)
  const start = `Cannot pull ${name}: ${endpoint}`
  if (status === 401 || status === 403) {
    const advice =
      token === undefined
        ? 'expected a model that is public, or a token in HF_TOKEN'
        : 'expected a token of an account that may read it; gated models must be asked for on their page first'
    return new Error(`${start} answered ${describeStatus(status)}, ${advice}`)
  }
  if (status === 404) {
    return new Error(`${start} has no such model, or none with revision ${revision}, that is public`)
  }
  if (status !== undefined) return new Error(`${start} answered ${describeStatus(status)}`)
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
  const reason = cause instanceof Error ? cause.message.split('\n', 1)[0] : String(cause)
  return new Error(`${start} cannot be reached (${reason}); HF_HUB_OFFLINE=1 uses what is in the cache`, {
    cause: error,
  })
}

function statusOf(error: unknown): number | undefined {
  return error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number'
    ? error.statusCode
    : undefined
}

function blobOf({ blobs }: ModelCache, { expected }: HubFile): string {
  return join(blobs, expected.hash)
}

/** A blob bears its name only when its contents were right; its length is checked because others write there too. */
async function isHere(cache: ModelCache, file: HubFile): Promise<boolean> {
  const found = await stat(blobOf(cache, file)).catch(() => undefined)
  return found?.size === file.expected.bytes
}
