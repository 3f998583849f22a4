import { spawn } from 'node:child_process'
import {
  chmod,
  lstat,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  truncate,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { findInCache, isHubName, isRevision } from './hub-cache.ts'
import {
  type Answer,
  answerAndStall,
  answerStatus,
  answerThenDrop,
  answerWith,
  answerWithoutRange,
  answerWrongRange,
  commit,
  type HubServer,
  startHub,
} from './hub-server.fixture.ts'
import { hubSettings, type PullOptions, pullModel } from './pull.ts'

const name = 'tiny-org/tiny-llava'
const weights = Buffer.from(Uint8Array.from({ length: 200_000 }, (_, i) => (i * 31 + (i >> 8)) % 256))
const patience = { tries: 3, stallMs: 300, pauseMs: 1 }

let hub: HubServer
let root: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'hub-cache-'))
  hub = await startHub(name)
  hub.files.set('config.json', Buffer.from('{"model_type":"llava"}'))
  hub.files.set('tokenizer.json', Buffer.from('{}'))
  hub.files.set('model.safetensors', weights)
  hub.files.set('README.md', Buffer.from('not needed'))
})
afterEach(async () => {
  await hub.close()
  await rm(root, { recursive: true })
})

const repo = () => join(root, 'models--tiny-org--tiny-llava')
const pull = (options: PullOptions = {}) => pullModel(name, { endpoint: hub.endpoint, root, patience, ...options })

/** Whether anything is there that a model could be loaded from. */
async function expectNothingLinked(): Promise<void> {
  expect(await readdir(join(repo(), 'snapshots')).catch(() => [])).toEqual([])
  expect(await findInCache(name, { root })).toBeUndefined()
}

describe('a model that is fetched', () => {
  test('lies in the cache as other tools lay it, without what is not needed', async () => {
    const progress: number[] = []
    const { folder, files, bytes, fetched } = await pull({
      onProgress: ({ done, total }) => progress.push(done / total),
    })
    expect(folder).toBe(join(repo(), 'snapshots', commit))
    expect(files).toEqual(['model.safetensors', 'tokenizer.json', 'config.json'])
    expect([bytes, fetched]).toEqual([200_024, 200_024])
    expect(progress.at(-1)).toBe(1)
    expect(weights.equals(await readFile(join(folder, 'model.safetensors')))).toBe(true)
    expect((await lstat(join(folder, 'config.json'))).isSymbolicLink()).toBe(true)
    expect(await readlink(join(folder, 'config.json'))).toMatch(/^\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/)
    expect(await readFile(join(repo(), 'refs/main'), 'utf8')).toBe(commit)
    expect(await readdir(join(repo(), 'blobs'))).toHaveLength(3)
    expect(await findInCache(name, { root })).toEqual({ folder, commit })
    expect(await findInCache(name, { root, revision: commit })).toEqual({ folder, commit })
  })

  test('is not fetched again, and a damaged file is', async () => {
    const { folder } = await pull()
    hub.requests.length = 0
    expect((await pull()).fetched).toBe(0)
    expect(hub.requests).toEqual([])
    await truncate(join(folder, 'model.safetensors'), 1000)
    expect((await pull()).fetched).toBe(weights.length)
    expect(weights.equals(await readFile(join(folder, 'model.safetensors')))).toBe(true)
  })

  test('in shards: the index says which', async () => {
    hub.files.delete('model.safetensors')
    for (const shard of ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors', 'other.safetensors']) {
      hub.files.set(shard, Buffer.from(shard))
    }
    const index = { weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' } }
    hub.files.set('model.safetensors.index.json', Buffer.from(JSON.stringify(index)))
    const { files } = await pull({ revision: 'v1' })
    expect(files).toEqual([
      'model-00001-of-00002.safetensors',
      'model-00002-of-00002.safetensors',
      'model.safetensors.index.json',
      'tokenizer.json',
      'config.json',
    ])
    expect(await findInCache(name, { root })).toBeUndefined() // main was not asked for
    expect(await findInCache(name, { root, revision: 'v1' })).toBeDefined()
    hub.files.delete('model-00002-of-00002.safetensors')
    await rm(repo(), { recursive: true })
    await expect(pull()).rejects.toThrow(
      /index.json names "model-00002-of-00002.safetensors", which the repository lacks/,
    )
    await expectNothingLinked()
  })

  test('with a token, which goes to the hub', async () => {
    await pull({ token: 'secret' })
    expect(hub.requests.every(({ token }) => token === 'Bearer secret')).toBe(true)
  })

  test('offline is what the cache has', async () => {
    await expect(pull({ offline: true })).rejects.toThrow(/offline mode is on and the cache has no revision main/)
    const { folder } = await pull()
    await hub.close()
    expect((await pull({ offline: true })).folder).toBe(folder)
    await expect(pull()).rejects.toThrow(/cannot be reached \(.*\); HF_HUB_OFFLINE=1 uses what is in the cache$/)
  })
})

describe('a bad connection', () => {
  const ranges = () => hub.requests.filter(({ file }) => file === 'model.safetensors').map(({ range }) => range)

  test.each<[string, Answer[]]>([
    ['drops three times', [answerThenDrop(50_000), answerThenDrop(50_000), answerThenDrop(50_000)]],
    ['drops, then ignores the range', [answerThenDrop(50_000), answerWithoutRange]],
    ['drops, then sends another range', [answerThenDrop(50_000), answerWrongRange]],
    ['drops, then will have no ranges', [answerThenDrop(50_000), answerStatus(416), answerWithoutRange]],
    ['is asked to wait', [answerStatus(429, { 'retry-after': '0.01' }), answerStatus(503)]],
    ['stalls', [answerAndStall(50_000)]],
    ['ends early as if that were all', [answerWith((content) => content.subarray(0, 1000))]],
    ['sends too much', [answerWith((content) => Buffer.concat([content, content]))]],
    ['changes a byte once', [answerWith((content) => Buffer.concat([Buffer.of(1), content.subarray(1)]))]],
  ])('that %s does no harm', async (_, answers) => {
    hub.next.set('model.safetensors', answers)
    const progress: number[] = []
    const { folder } = await pull({ onProgress: ({ done, total }) => progress.push(done / total) })
    expect(weights.equals(await readFile(join(folder, 'model.safetensors')))).toBe(true)
    expect(progress.at(-1)).toBe(1)
    expect(Math.min(...progress)).toBeGreaterThanOrEqual(0)
    expect(await readdir(join(repo(), 'blobs'))).toHaveLength(3)
  })

  test('goes on where it stopped, also in the next process', async () => {
    hub.next.set('model.safetensors', [answerThenDrop(50_000), ...Array.from({ length: 9 }, () => answerThenDrop(0))])
    await expect(pull()).rejects.toThrow(/the same command goes on there$/)
    await expectNothingLinked()
    const [partial = ''] = (await readdir(join(repo(), 'blobs'))).filter((file) => file.endsWith('.incomplete'))
    const kept = (await stat(join(repo(), 'blobs', partial))).size
    expect(kept).toBeGreaterThan(0)
    hub.next.clear()
    hub.requests.length = 0
    const { folder } = await pull()
    expect(ranges()).toEqual([`bytes=${kept}-`])
    expect(weights.equals(await readFile(join(folder, 'model.safetensors')))).toBe(true)
  })

  test('takes over from a process that was killed, never from one that runs', async () => {
    const dead = spawn(process.execPath, ['--version']).pid ?? 0
    await new Promise((resolve) => setTimeout(resolve, 500))
    hub.next.set('model.safetensors', [answerThenDrop(60_000), ...Array.from({ length: 9 }, () => answerThenDrop(0))])
    await expect(pull()).rejects.toThrow()
    const blobs = join(repo(), 'blobs')
    const [partial = ''] = (await readdir(blobs)).filter((file) => file.endsWith('.incomplete'))
    const bytes = await readFile(join(blobs, partial))
    const blob = partial.slice(0, partial.indexOf('.llava-'))
    await rm(join(blobs, partial))
    await writeFile(join(blobs, `${blob}.llava-${dead}.incomplete`), bytes)
    await writeFile(join(blobs, `${blob}.llava-1.incomplete`), 'of a process that runs')
    hub.next.clear()
    hub.requests.length = 0
    await pull()
    expect(ranges()).toEqual([`bytes=${bytes.length}-`])
    expect((await readdir(blobs)).filter((file) => file.endsWith('.incomplete'))).toEqual([
      `${blob}.llava-1.incomplete`,
    ])
  })

  test('is not waited for when the command is interrupted', async () => {
    hub.next.set('model.safetensors', [answerAndStall(1000)])
    const controller = new AbortController()
    const pulling = pull({ signal: controller.signal, patience: { ...patience, stallMs: 60_000 } })
    setTimeout(() => controller.abort(new Error('enough')), 200)
    await expect(pulling).rejects.toThrow('enough')
    await expectNothingLinked()
  })
})

describe('a refusal is one sentence, and leaves no model', () => {
  const always = (answer: Answer) => Array.from({ length: 20 }, () => answer)

  test.each<[string, () => void, PullOptions, RegExp]>([
    [
      '401',
      () => (hub.status = 401),
      {},
      /that a token is needed \(401\), expected a model that is public, or a token in HF_TOKEN$/,
    ],
    ['403', () => (hub.status = 403), { token: 'x' }, /gated models must be asked for on their page first$/],
    ['404', () => (hub.status = 404), {}, /has no such model, or none with revision main, that is public$/],
    ['an unknown revision', () => {}, { revision: 'v9' }, /none with revision v9, that is public$/],
    ['429', () => (hub.status = 429), {}, /that there were too many requests \(429\)$/],
    [
      '403 for a file',
      () => hub.next.set('config.json', [answerStatus(403)]),
      {},
      /config.json of tiny-org\/tiny-llava: the server answered that this token may not/,
    ],
    [
      'a wrong hash',
      () => hub.next.set('model.safetensors', always(answerWith((content) => Buffer.alloc(content.length)))),
      {},
      /its sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}$/,
    ],
    [
      'a wrong git hash',
      () => hub.next.set('config.json', always(answerWith((content) => Buffer.alloc(content.length)))),
      {},
      /its git hash is [0-9a-f]{40}, expected/,
    ],
    [
      'a length that lies',
      () => hub.next.set('model.safetensors', always(answerWith((content) => Buffer.concat([content, content])))),
      {},
      /more than the 200000 bytes/,
    ],
    [
      'only too many requests',
      () => hub.next.set('model.safetensors', always(answerStatus(429, { 'retry-after': '0.01' }))),
      {},
      /too many requests \(429\); what has arrived is kept/,
    ],
  ])('%s', async (_, prepare, options, message) => {
    prepare()
    await expect(pull(options)).rejects.toThrow(message)
    await expectNothingLinked()
  })

  test.each([
    [
      'GGUF files',
      ['model-q4.gguf'],
      /holds model-q4.gguf, a file for llama.cpp, expected safetensors; pull the repository/,
    ],
    [
      'pickles',
      ['config.json', 'pytorch_model.bin'],
      /holds pytorch_model.bin, a pickle that can run code when opened/,
    ],
    ['something else', ['data.csv'], /found no config.json, expected a model of transformers/],
    ['no weights', ['config.json'], /found neither model.safetensors nor model.safetensors.index.json/],
  ])('a repository of %s', async (_, names, message) => {
    hub.files.clear()
    for (const file of names) hub.files.set(file, Buffer.from('x'))
    await expect(pull()).rejects.toThrow(message)
    expect(hub.requests).toEqual([])
  })

  test('names that lead elsewhere are not even listed', async () => {
    hub.list = (entries) => [
      ...entries,
      { ...entries[0], path: '../../evil.json' },
      { ...entries[0], oid: '../../evil' },
    ]
    hub.files.delete('config.json')
    await expect(pull()).rejects.toThrow(/found no config.json/)
    expect(['../x/y', 'a/b/c', 'a', 'a/..', '-a/b', 'a--b/c'].filter(isHubName)).toEqual([])
    expect(['../x', '-x', 'a/../b', 'x/', ''].filter(isRevision)).toEqual([])
    await expect(pullModel('nonsense')).rejects.toThrow(RangeError)
    await expect(pull({ revision: '../main' })).rejects.toThrow(RangeError)
  })

  test.runIf(process.getuid?.() !== 0)('a cache that cannot be written', async () => {
    await mkdir(repo())
    await chmod(repo(), 0o500)
    await expect(pull()).rejects.toThrow('EACCES')
    await chmod(repo(), 0o700)
  })
})

test('settings come from the environment as other tools take them', async () => {
  await writeFile(join(root, 'token'), 'stored\n')
  expect(await hubSettings({ HF_HOME: root })).toEqual({ token: 'stored', endpoint: undefined, offline: false })
  expect(
    await hubSettings({ HF_HOME: root, HF_TOKEN: 'given', HF_ENDPOINT: 'http://hub/', HF_HUB_OFFLINE: '1' }),
  ).toEqual({ token: 'given', endpoint: 'http://hub', offline: true })
})
