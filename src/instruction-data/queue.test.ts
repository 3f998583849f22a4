import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { openJournal } from './answer-journal.ts'
import { type AskOptions, askAll } from './ask-all.ts'
import { asking, manyTasks, paced, prompts, settings } from './asking.fixture.ts'
import { type ChatServer, startChatServer } from './chat-server.fixture.ts'
import { openAiTeacher } from './openai-teacher.ts'
import { createBucket } from './pace.ts'
import { type QueuedRun, queueFormat, readRun, requestIn, writeRun } from './queue-format.ts'
import { createQueuePace } from './queue-pace.ts'
import { connectQueueServer, type QueueServer, queueAddress } from './queue-server.ts'
import { openQueueTeacher } from './queue-teacher.ts'
import { type RunWorker, startRunWorker } from './queue-worker.ts'
import { createLearnedLimits } from './rate-limits.ts'
import { type RedisServer, redisProgram, startRedisServer } from './redis-server.fixture.ts'
import { requestFor } from './requests.ts'

const newRun = (changes: Partial<QueuedRun> = {}): QueuedRun => ({
  id: `run${Math.random().toString(16).slice(2, 10)}`,
  format: queueFormat,
  version: '1.2.3',
  model: 'm',
  baseUrl: null,
  requestsPerMinute: null,
  tokensPerMinute: null,
  timeoutMs: 2000,
  ...changes,
})

describe('queueAddress', () => {
  test('is shown without user and password', () => {
    expect(queueAddress('redis://user:secret@example.org/3')).toEqual({
      url: 'redis://user:secret@example.org/3',
      shown: 'redis://example.org:6379/3',
    })
    expect(queueAddress('rediss://:secret@[::1]:7000').shown).toBe('rediss://[::1]:7000')
  })

  test.each([
    'localhost:6379',
    'http://u:secret@h',
    'redis://u:secret@h/name',
    'redis://u:sec ret@',
  ])('refuses %s, and tells no password', (text) => {
    expect(() => queueAddress(text)).toThrow(/^Cannot use the queue .*: expected an address such as redis:/)
    expect(() => queueAddress(text)).toThrow(expect.objectContaining({ message: expect.not.stringMatching(/sec/) }))
  })
})

describe('the words of the queue', () => {
  test('a run of another format is refused in one sentence', () => {
    const run = newRun()
    expect(readRun(...writeRun(run))).toEqual(run)
    const [id, text] = writeRun({ ...run, format: queueFormat + 1, version: '9.0.0' })
    expect(() => readRun(id, text)).toThrow(
      /^Cannot work for run \w+: it was begun by llava-ts 9.0.0, which writes format 2 of the queue, expected format 1; use the same version at both ends$/,
    )
  })

  test('a request whose words give another key is refused', () => {
    const data = { messages: [{ role: 'user', content: 'Hello' }], settings, round: 0 }
    expect(() => requestIn(data, 'k')).toThrow(/^Cannot answer request k of the queue: its words belong to another key/)
    expect(() => requestIn({ words: 'Hello' }, 'k')).toThrow(/its words cannot be read/)
  })
})

describe.skipIf(redisProgram === undefined)('with a server', () => {
  let redis: RedisServer
  let folder = ''
  let files = 0
  let chat: ChatServer | undefined
  const servers: QueueServer[] = []
  const workers: RunWorker[] = []

  beforeAll(async () => {
    redis = await startRedisServer()
    folder = await mkdtemp(join(tmpdir(), 'queue-test-'))
  })
  afterEach(async () => {
    await Promise.all(workers.splice(0).map((worker) => worker.close()))
    for (const server of servers.splice(0)) server.close()
    await chat?.close()
    chat = undefined
  })
  afterAll(async () => {
    await redis?.close()
    await rm(folder, { recursive: true, force: true })
  })

  const troubles: (string | undefined)[] = []
  async function connect(): Promise<QueueServer> {
    const server = await connectQueueServer(queueAddress(redis.url()), { onTrouble: (said) => troubles.push(said) })
    servers.push(server)
    return server
  }
  async function work(run: QueuedRun, { lockMs = 60_000, apiKey = 'k', concurrency = 4 } = {}): Promise<RunWorker> {
    const teacher = openAiTeacher({ model: run.model, apiKey, baseURL: chat!.baseURL, timeoutMs: run.timeoutMs })
    const worker = await startRunWorker(run, {
      server: await connect(),
      teacher,
      learned: createLearnedLimits(),
      concurrency,
      lockMs,
    })
    workers.push(worker)
    return worker
  }
  type Changes = Partial<AskOptions> & { count?: number; path?: string; maxUsd?: number; leaveMs?: number }
  async function ask(run: QueuedRun, changes: Changes = {}) {
    const {
      count = 6,
      path = join(folder, `${++files}.jsonl`),
      maxUsd = Number.POSITIVE_INFINITY,
      leaveMs = 2000,
    } = changes
    const journal = await openJournal(path)
    const teacher = await openQueueTeacher(run, { server: await connect(), journal, leaveMs, lookMs: 10 })
    let left: number | undefined
    try {
      const result = await askAll(manyTasks(count), {
        teacher,
        journal,
        ...asking,
        ...paced({ first: 4, most: 8, usd: maxUsd }),
        price: { input: 10, output: 100 },
        firstDelayMs: 1,
        ...changes,
      }).finally(async () => {
        left = await teacher.close()
      })
      return { result, path, answers: journal.answers(), spent: journal.spent(), lost: journal.lost(), left }
    } finally {
      await journal.close()
    }
  }
  const keys = async () => (await servers[0]!.redis.keys('llava-ts:*')).sort()

  test('two workers answer everything once, and nothing stays on the server', async () => {
    chat = await startChatServer(() => ({ do: 'answer', afterMs: 5 }))
    const run = newRun()
    const both = [await work(run), await work(run)]
    const { result, answers, spent, left } = await ask(run, { count: 20 })
    expect(result).toMatchObject({ tasks: 20, answered: 20, retries: 0, dropped: 0 })
    expect({ answers, spent, left }).toEqual({ answers: 20, spent: { input: 20_000, output: 2000 }, left: 0 })
    expect(new Set(chat.requests.map(({ key }) => key)).size).toBe(20)
    expect(chat.requests.length).toBe(20)
    for (const worker of both) expect(worker.status().answered).toBeGreaterThan(0)
    await Promise.all(workers.splice(0).map((worker) => worker.close()))
    expect(await keys()).toEqual([])
  })

  test('what fails is asked again, refused or paid for as it is without a queue', async () => {
    chat = await startChatServer(({ body }, times) => {
      const has = (text: string) => JSON.stringify(body).includes(text)
      if (has('Picture 1 ') && times === 0) return { do: 'status', status: 500 }
      if (has('Picture 2 ') && times === 0) return { do: 'status', status: 429, headers: { 'retry-after-ms': '60' } }
      if (has('Picture 3 ') && times === 0) return { do: 'choices', count: 2 }
      if (has('Picture 4 ')) return { do: 'status', status: 400, code: 'content_filter', message: 'Filtered' }
      return { do: 'answer' }
    })
    const run = newRun()
    await work(run)
    const { result, answers, spent } = await ask(run)
    expect(result).toMatchObject({ tasks: 6, answered: 5, dropped: 1, retries: 3, lastDropped: 'HTTP 400: Filtered' })
    expect({ answers, spent }).toEqual({ answers: 5, spent: { input: 6000, output: 600 } })
    expect(chat.requests.length).toBe(9)
  })

  test('a worker that is let in nowhere hands its requests back and leaves; another one goes on', async () => {
    let refuse = true
    chat = await startChatServer(() => (refuse ? { do: 'status', status: 401 } : { do: 'answer' }))
    const run = newRun()
    const stranger = await work(run)
    const asking = ask(run)
    while (stranger.error() === undefined || stranger.status().inFlight > 0) await sleep(10)
    expect(String(stranger.error())).toMatch(/Cannot ask openai:m: the endpoint refused the key/)
    expect(stranger.status().handedBack).toBeGreaterThan(0)
    refuse = false
    await work(run)
    const { result, spent } = await asking
    expect(result).toMatchObject({ answered: 6, retries: 0 })
    expect(spent).toEqual({ input: 6000, output: 600 })
  })

  test('the budget holds for all workers together', async () => {
    chat = await startChatServer(() => ({ do: 'answer', afterMs: 5 }))
    const run = newRun()
    await Promise.all([work(run), work(run)])
    await expect(ask(run, { count: 50, maxUsd: 0.1 })).rejects.toThrow(/^Cannot ask further: the budget is reached/)
    expect(chat.requests.length * 0.02).toBeLessThanOrEqual(0.1)
    expect(chat.requests.length).toBeGreaterThanOrEqual(3)
  })

  test('interrupted, a run takes back what nobody took and waits for what was sent', async () => {
    chat = await startChatServer(() => ({ do: 'answer', afterMs: 100 }))
    const run = newRun()
    await work(run, { concurrency: 1 })
    const controller = new AbortController()
    const asking = ask(run, { count: 50, signal: controller.signal })
    while (chat.requests.length === 0) await sleep(5)
    controller.abort()
    const { answers, lost, left } = await asking
    expect({ answers, left }).toEqual({ answers: chat.requests.length, left: 0 })
    expect(lost.requests).toBe(0)
    expect(answers).toBeLessThan(3)
  })

  test('answers that came while nobody waited are taken in, and nothing is asked twice', async () => {
    chat = await startChatServer(() => ({ do: 'answer' }))
    const run = newRun()
    const path = join(folder, 'gone.jsonl')
    const server = await connect()
    const journal = await openJournal(path)
    const teacher = await openQueueTeacher(run, { server, journal, leaveMs: 1000 })
    const signal = new AbortController().signal
    for await (const task of manyTasks(4)) {
      void teacher.answer(requestFor(task, { prompts, settings }), { signal }).catch(() => {})
    }
    while ((await server.redis.llen(`llava-ts:${run.id}:wait`)) < 4) await sleep(5)
    server.close() // as a kill does
    await journal.close()
    await work(run)
    while (chat.answered.length < 4) await sleep(5)
    const { result, answers } = await ask(run, { path })
    expect(result).toMatchObject({ tasks: 6, dropped: 0, retries: 0 })
    expect({ answers, requests: chat.requests.length }).toEqual({ answers: 6, requests: 6 })
  })

  test('buckets on the server are those of one process', async () => {
    const [rpm, tpm] = [600, 60_000]
    const pace = createQueuePace(newRun({ requestsPerMinute: rpm, tokensPerMinute: tpm }), await connect())
    const twins = { requests: createBucket({ perMinute: rpm }), tokens: createBucket({ perMinute: tpm }) }
    const waits: [number, number][] = []
    for (const tokens of [10, 9000, 2000, 10, 500]) {
      const twin = Math.max(twins.requests.take(1), twins.tokens.take(tokens))
      waits.push([await pace.take(tokens), twin])
    }
    await pace.giveBack({ requests: 1, tokens: 2000 })
    twins.requests.giveBack(1)
    twins.tokens.giveBack(2000)
    waits.push([await pace.take(1), Math.max(twins.requests.take(1), twins.tokens.take(1))])
    expect(waits.map(([, twin]) => twin > 0)).toEqual([false, false, true, true, true, false])
    for (const [wait, twin] of waits) expect(Math.abs(wait - twin)).toBeLessThan(300)
    await pace.pause(5000)
    await pace.pause(100) // does not shorten it
    expect(await pace.pauseLeft()).toBeGreaterThan(4000)
    expect(await pace.take(0)).toBeGreaterThan(4000)
  })

  test('all workers together keep to the requests a minute', async () => {
    chat = await startChatServer(() => ({ do: 'answer' }))
    const run = newRun({ requestsPerMinute: 6000 }) // 1000 at once, then 100 a second
    await createQueuePace(run, await connect()).giveBack({ requests: -1030, tokens: 0 })
    await Promise.all([work(run), work(run)])
    const begun = Date.now()
    await ask(run)
    expect(Date.now() - begun).toBeGreaterThanOrEqual(200)
    expect(chat.requests.length).toBe(6)
  })

  test('a server that would throw answers away, or wants a password, is refused in one sentence', async () => {
    const server = await connect()
    expect(server.keeps).toBe(true)
    const refusal = () => connectQueueServer(queueAddress(redis.url()), { onTrouble: () => {} })
    await server.redis.config('SET', 'maxmemory', '100mb', 'maxmemory-policy', 'allkeys-lru')
    await expect(refusal()).rejects.toThrow(
      /^Cannot use the queue redis:.*: it throws away keys when its memory is full \(maxmemory-policy allkeys-lru\), expected noeviction/,
    )
    await server.redis.config('SET', 'maxmemory', '0', 'maxmemory-policy', 'noeviction')
    await server.redis.config('SET', 'requirepass', 'sesame')
    await expect(refusal()).rejects.toThrow(/^Cannot use the queue redis:[^ ]*: it wants a password$/)
    const wrong = queueAddress(redis.url().replace('//', '//:guess@'))
    await expect(connectQueueServer(wrong, { onTrouble: () => {} })).rejects.toThrow(
      /^Cannot use the queue redis:\/\/127[^ ]*: it refused the password \(WRONGPASS/,
    )
    await server.redis.config('SET', 'requirepass', '')
  })
})
