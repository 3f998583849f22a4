/** A run on a queue whose producer, workers and server are killed at random moments. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import type { JournalEvent } from '../src/instruction-data/answer-journal.ts'
import { type ChatServer, startChatServer } from '../src/instruction-data/chat-server.fixture.ts'
import { type RedisServer, redisProgram, startRedisServer } from '../src/instruction-data/redis-server.fixture.ts'
import { writeOneFile } from './one-file.ts'

const script = fileURLToPath(new URL('queue-process.ts', import.meta.url))
/** Of a worker, in queue-process.ts. */
const atOnce = 4

describe.skipIf(redisProgram === undefined)('killed at random moments', () => {
  let folder = ''
  let program = ''
  let redis: RedisServer
  let chat: ChatServer
  const children: ChildProcess[] = []
  let runs = 0
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'queue-killed-'))
    program = await writeOneFile(script, join(folder, 'program'))
    // Every command is on the disk before it is answered: what the server said it has, it has after a kill.
    redis = await startRedisServer('--appendfsync', 'always')
  })
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
    await chat?.close()
  })
  afterAll(async () => {
    await redis?.close()
    await rm(folder, { recursive: true, force: true })
  })

  const journal = (run: string) => join(folder, `${run}.jsonl`)
  async function eventsOf(run: string): Promise<JournalEvent[]> {
    const text = await readFile(journal(run), 'utf8').catch(() => '')
    return text
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line))
  }
  const answersOf = async (run: string) =>
    (await eventsOf(run)).flatMap(({ event, key }) => (event === 'answer' ? [key] : []))

  /** A process that waits for its cue, with one more that starts meanwhile. */
  function supply(...words: string[]) {
    const prepare = () => {
      const child = spawn(process.execPath, [program, ...words], { stdio: ['pipe', 'pipe', 'inherit'] })
      children.push(child)
      return child
    }
    let next = prepare()
    return () => {
      const child = next
      next = prepare()
      child.stdin!.write('go\n')
      return child
    }
  }
  async function begin(count: number, lockMs: number) {
    const run = `run${++runs}`
    chat = await startChatServer(() => ({ do: 'answer', afterMs: 10 + Math.random() * 40 }))
    return {
      run,
      producer: supply('producer', redis.url(), run, journal(run), String(count)),
      worker: supply('worker', redis.url(), run, chat.baseURL, String(lockMs)),
    }
  }
  async function kill(child: ChildProcess) {
    const gone = once(child, 'exit')
    child.kill('SIGKILL')
    await gone
  }
  /** Waits until so many more requests have come, and a little more. */
  async function further(requests: number) {
    const before = chat.requests.length
    for (let look = 0; look < 3000 && chat.requests.length < before + requests; look++) await sleep(5)
    await sleep(Math.random() * 40)
  }

  test('producer and server: every request is sent once', { timeout: 300_000 }, async () => {
    const count = 400
    const { run, producer, worker } = await begin(count, 10_000)
    worker()
    worker()
    let making = producer()
    for (let round = 0; round < 12; round++) {
      await further(10 + Math.random() * 20)
      if (round % 3 === 2) {
        await redis.kill()
        await sleep(Math.random() * 500)
        await redis.start()
      } else {
        await kill(making)
        making = producer()
      }
    }
    if (making.exitCode === null) await once(making, 'exit')
    expect(making.exitCode).toBe(0)
    const answers = await answersOf(run)
    expect({ answers: answers.length, different: new Set(answers).size }).toEqual({ answers: count, different: count })
    expect(chat.requests.length).toBe(count)
  })

  test('workers: only what they held is sent again, and it is counted as paid for', { timeout: 300_000 }, async () => {
    const [count, kills] = [300, 10]
    const { run, producer, worker } = await begin(count, 4000)
    const working = [worker(), worker()]
    const making = producer()
    for (let round = 0; round < kills; round++) {
      await further(5 + Math.random() * 20)
      await kill(working.shift()!)
      working.push(worker())
    }
    if (making.exitCode === null) await once(making, 'exit')
    expect(making.exitCode).toBe(0)
    const answers = await answersOf(run)
    expect({ answers: answers.length, different: new Set(answers).size }).toEqual({ answers: count, different: count })
    const again = chat.requests.length - count
    expect(again).toBeGreaterThan(0)
    expect(again).toBeLessThanOrEqual(kills * atOnce)
    const lost = (await eventsOf(run)).filter((event) => event.event === 'failed' && event.usage !== undefined)
    expect(lost.length).toBeGreaterThanOrEqual(again) // more where a machine under load kept a worker from its sign of life
  })

  test('a worker that was thought lost comes back, and one answer counts', { timeout: 120_000 }, async () => {
    const count = 40
    const { run, producer, worker } = await begin(count, 1000)
    const first = worker()
    const making = producer()
    await further(10)
    first.kill('SIGSTOP')
    worker()
    const stopped = chat.requests.length
    for (let look = 0; look < 1000 && chat.requests.length < stopped + 10; look++) await sleep(20)
    first.kill('SIGCONT')
    if (making.exitCode === null) await once(making, 'exit')
    const answers = await answersOf(run)
    expect({ answers: answers.length, different: new Set(answers).size }).toEqual({ answers: count, different: count })
    expect(chat.requests.length - count).toBeLessThanOrEqual(atOnce)
  })

  test('a worker that is asked to end finishes what it sent, and another goes on', { timeout: 120_000 }, async () => {
    const count = 100
    const { run, producer, worker } = await begin(count, 60_000)
    const first = worker()
    const making = producer()
    await further(20)
    first.kill('SIGTERM')
    await once(first, 'exit')
    expect(first.exitCode).toBe(0)
    const asked = chat.requests.length
    await sleep(200)
    expect(chat.requests.length).toBe(asked)
    worker()
    if (making.exitCode === null) await once(making, 'exit')
    expect((await answersOf(run)).length).toBe(count)
    expect(chat.requests.length).toBe(count)
  })

  test('a server that forgot everything is told again', { timeout: 120_000 }, async () => {
    const forgetful = await startRedisServer('--appendonly', 'no')
    try {
      const run = `run${++runs}`
      chat = await startChatServer(() => ({ do: 'answer', afterMs: 300 }))
      supply('worker', forgetful.url(), run, chat.baseURL, '60000')()
      const making = supply('producer', forgetful.url(), run, journal(run), '40')()
      await further(6)
      await forgetful.kill() // with requests on their way, whose answers come while it is gone
      await sleep(600)
      await forgetful.start()
      if (making.exitCode === null) await once(making, 'exit')
      expect((await answersOf(run)).length).toBe(40)
      // What the worker held, four at most (queue-process.ts), may be asked once more: the server that comes back knows nothing of it.
      expect(chat.requests.length).toBeGreaterThanOrEqual(40)
      expect(chat.requests.length).toBeLessThanOrEqual(40 + 4)
    } finally {
      await forgetful.close()
    }
  })
})
