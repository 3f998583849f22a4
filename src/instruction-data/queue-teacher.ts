/**
 * A teacher that puts requests on a queue and waits until a worker somewhere has had them answered. What a failure means, when a request is sent again, what
 * may be spent: all that stays with the run that asks (`createRunner`), and its journal is the only memory that counts. A job is one attempt.
 */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Job } from 'bullmq'
import { type AnswerJournal, storedAnswer } from './answer-journal.ts'
import { estimateTokens } from './pace.ts'
import {
  answerOrFailure,
  departureKey,
  type JobData,
  outcomeIn,
  paceKey,
  type QueuedRun,
  type QueueOutcome,
  queueOptions,
  requestIn,
  runsKey,
  sentMark,
  writeRun,
} from './queue-format.ts'
import type { QueueServer } from './queue-server.ts'
import type { ChatRequest } from './requests.ts'
import { AnswerLater, type Teacher, type TeacherAnswer, TeacherFailure } from './teacher.ts'

export type QueueTeacher = Teacher & {
  /** Workers of this run; undefined where the server does not say. */
  readonly workers: () => Promise<number | undefined>
  /** Why the latest worker left that could not go on. */
  readonly departure: () => Promise<string | undefined>
  /** Takes in what is left, and removes the run from the server when nothing is with a worker any more. How many requests are; undefined when the server is away. */
  readonly close: () => Promise<number | undefined>
}

export type QueueTeacherOptions = {
  readonly server: QueueServer
  readonly journal: AnswerJournal
  /** Milliseconds between two looks at what is finished. */
  readonly lookMs?: number
  /** How long requests that workers hold are waited for when the run is interrupted, in milliseconds. */
  readonly leaveMs: number
}

const lookEveryMs = 100
/** How often jobs are put on the queue again in case a server forgot them. */
const renewEveryMs = 30_000

/** Removes a job that no worker has taken; 1 if it did. */
const takeBackScript = `
local data = redis.call('HGET', KEYS[2], 'data')
if not data or string.find(data, '{"outcome":', 1, true) == 1 then return 0 end
if redis.call('HGET', KEYS[2], 'progress') == ARGV[2] then return 0 end
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then return 0 end
redis.call('DEL', KEYS[2])
return 1
`

/** Removes a finished job unless a worker that was thought lost has just written an answer into it; 1 if it did. */
const removeScript = `
if redis.call('HGET', KEYS[1], 'data') ~= ARGV[2] then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[1])
return 1
`

type Waiting = {
  readonly request: ChatRequest
  readonly resolve: (answer: TeacherAnswer) => void
  readonly reject: (error: unknown) => void
}

/**
 * Announces a run to workers, and takes in what an earlier process of the run left on the server: answers go into the journal, requests that nobody took yet
 * come back, those that workers hold are waited for when their turn comes.
 */
export async function openQueueTeacher(
  run: QueuedRun,
  { server, journal, leaveMs, lookMs = lookEveryMs }: QueueTeacherOptions,
): Promise<QueueTeacher> {
  const { redis, patiently } = server
  const { Queue } = await import('bullmq')
  const queue = new Queue<JobData>(run.id, queueOptions(redis))
  queue.on('error', () => {}) // outages are the server's to tell
  const waiting = new Map<string, Waiting>()
  const closing = new AbortController()
  let endedAt: number | undefined
  let broken: { readonly error: unknown } | undefined

  const put = ({ key, messages, settings, round }: ChatRequest) =>
    patiently(() => queue.add('ask', { messages, settings, round }, { jobId: key }))
  const remove = (key: string) => patiently(() => queue.remove(key))
  const succeeds = (script: string, keys: readonly string[], words: readonly string[]) =>
    patiently(async () => (await redis.eval(script, keys.length, ...keys, ...words)) === 1)
  const takeBack = (key: string) =>
    succeeds(takeBackScript, [queue.toKey('wait'), queue.toKey(key)], [key, JSON.stringify(sentMark)])
  const removeUnchanged = (key: string, data: JobData) =>
    succeeds(
      removeScript,
      [key, 'completed', 'failed'].map((name) => queue.toKey(name)),
      [key, JSON.stringify(data)],
    )
  const jobs = async (...states: ('completed' | 'failed' | 'wait' | 'active')[]) =>
    (await patiently(() => queue.getJobs(states))).filter((job) => job?.id !== undefined)

  /** Hands finished jobs to those who wait for them, and forgets those whose answers are stored. */
  async function handOut(): Promise<void> {
    const finished = await jobs('completed', 'failed')
    await Promise.all(finished.map(async (job) => handOutOne(job, job.id ?? '')))
  }

  async function handOutOne(job: Job<JobData>, key: string): Promise<void> {
    const waiter = waiting.get(key)
    if (waiter === undefined) {
      if (journal.has(key)) await remove(key)
      return
    }
    const outcome = outcomeOf(job, waiter.request)
    // The next attempt is a new job.
    if ('failure' in outcome && !(await removeUnchanged(key, job.data))) return
    waiting.delete(key)
    try {
      waiter.resolve(answerOrFailure(outcome))
    } catch (failure) {
      waiter.reject(failure)
    }
  }

  /** Takes into the journal what finished while nobody waited for it. */
  async function takeIn(): Promise<void> {
    const takeInOne = async (job: Job<JobData>, key: string) => {
      if (journal.has(key)) return void (await remove(key))
      const outcome = outcomeOf(job)
      if ('failure' in outcome && !(await removeUnchanged(key, job.data))) return takeIn()
      await note(key, outcome, journal)
      if ('answer' in outcome) await remove(key)
    }
    const finished = await jobs('completed', 'failed')
    await Promise.all(finished.map((job) => takeInOne(job, job.id ?? '')))
  }

  async function lookUntilClosed(): Promise<void> {
    let renewedAt = Date.now()
    let wasAway = false
    while (!closing.signal.aborted) {
      const away = server.trouble() !== undefined
      if ((wasAway && !away) || Date.now() - renewedAt > renewEveryMs) {
        await Promise.all([...waiting.values()].map(({ request }) => put(request))) // does nothing where the job is there
        await announce()
        renewedAt = Date.now()
      }
      wasAway = away
      if (waiting.size > 0) await handOut()
      await sleep(lookMs, undefined, { signal: closing.signal }).catch(() => {})
    }
  }

  /** When the run ends, requests that nobody took come back; for the others their workers get a while. */
  async function end(key: string): Promise<void> {
    endedAt ??= Date.now()
    if (await takeBack(key)) {
      waiting.get(key)?.reject(new TeacherFailure('it was taken back before it was sent', { kind: 'again' }))
      waiting.delete(key)
    }
  }
  const announce = () => patiently(() => redis.hset(runsKey, ...writeRun(run)))
  await announce()
  for (const job of await jobs('wait')) {
    const key = job.id ?? ''
    if (await takeBack(key)) await journal.add({ event: 'failed', key, reason: 'it was taken back before it was sent' })
  }
  await takeIn()
  const leaving = setInterval(() => {
    const over = endedAt !== undefined && (server.trouble() !== undefined || Date.now() - endedAt > leaveMs)
    if (!over) return
    for (const { reject } of waiting.values()) reject(new AnswerLater())
    waiting.clear()
  }, 100)

  const breakOff = (error: unknown) => {
    if (closing.signal.aborted) return
    broken = { error }
    for (const { reject } of waiting.values()) reject(error)
    waiting.clear()
  }
  const looking = lookUntilClosed().catch(breakOff)

  return {
    name: `openai:${run.model}`,
    paid: true,
    answer: async (request, { ended }) => {
      if (broken !== undefined) throw broken.error
      const answer = new Promise<TeacherAnswer>((resolve, reject) => {
        waiting.set(request.key, { request, resolve, reject })
      })
      const onEnd = () => void end(request.key).catch(() => {}) // the connection was closed
      put(request).catch(breakOff)
      ended?.addEventListener('abort', onEnd)
      if (ended?.aborted) onEnd()
      return answer.finally(() => ended?.removeEventListener('abort', onEnd))
    },
    workers: () => queue.getWorkersCount().catch(() => undefined),
    departure: async () => (await redis.get(departureKey(run.id))) ?? undefined,
    close: async () => {
      closing.abort()
      clearInterval(leaving)
      if (server.trouble() !== undefined) return undefined
      await looking
      await takeIn()
      const left = (await jobs('wait', 'active')).length
      if (left === 0) {
        await patiently(() => redis.hdel(runsKey, run.id))
        await patiently(() => queue.obliterate({ force: true }))
        await patiently(() => redis.del(paceKey(run.id), departureKey(run.id)))
      }
      await queue.close()
      return left
    },
  }
}

/** What came of a job; one whose worker went away says nothing itself, and may have cost all that it could. */
function outcomeOf(job: Job<JobData>, asked?: ChatRequest): QueueOutcome {
  const outcome = outcomeIn(job.data)
  if (outcome !== undefined) return outcome
  const { messages, settings } = asked ?? requestIn(job.data, job.id ?? '')
  const stalled = job.failedReason?.includes('stalled') ?? false
  const reason = stalled ? 'its worker went away' : (job.failedReason ?? 'its worker left no answer')
  const usage = { input: estimateTokens(messages), output: settings.maxTokens }
  return { failure: { kind: 'again', reason, ...(job.progress === sentMark && { usage }) } }
}

async function note(key: string, outcome: QueueOutcome, journal: AnswerJournal): Promise<void> {
  if ('answer' in outcome) {
    await journal.add(storedAnswer(key, { answer: outcome.answer, attempts: 1 }))
    return
  }
  const { kind, reason, usage } = outcome.failure
  await journal.add({ event: 'failed', key, reason, ...(usage !== undefined && { usage }) })
  if (kind === 'never') await journal.add({ event: 'dropped', key, reason, final: true })
}
