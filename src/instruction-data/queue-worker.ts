/**
 * A worker of one run: takes requests from its queue, has them answered, and puts the answers back. One attempt for each; whether there is another one is
 * decided where the run is.
 *
 * An answer is written into its job before anything else happens with it, whether or not the job still counts as this worker's: who lost touch with the
 * server for long has the answer all the same.
 */

import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Job } from 'bullmq'
import { estimateTokens } from './pace.ts'
import {
  answered,
  departureKey,
  failed,
  type JobData,
  keyPrefix,
  outcomeIn,
  type QueuedRun,
  type QueueOutcome,
  queueOptions,
  requestIn,
  runsKey,
  sentMark,
} from './queue-format.ts'
import { createQueuePace } from './queue-pace.ts'
import type { QueueServer } from './queue-server.ts'
import type { LearnedLimits } from './rate-limits.ts'
import type { ChatRequest } from './requests.ts'
import { type ChatTeacher, TeacherFailure } from './teacher.ts'

export type RunWorker = {
  readonly run: QueuedRun
  readonly status: () => RunWorkerStatus
  /** Why this worker cannot go on; undefined while it can. */
  readonly error: () => unknown
  /**
   * Takes nothing more, hands back what was not sent yet, and waits for the rest. False when the server is away with nothing to be waited for: BullMQ's worker
   * then keeps the process alive until the server is back.
   */
  readonly close: () => Promise<boolean>
}

export type RunWorkerStatus = {
  readonly inFlight: number
  readonly answered: number
  /** Attempts that came to nothing. */
  readonly failed: number
  readonly handedBack: number
  /** Why the latest attempt came to nothing; nothing once one succeeded. */
  readonly trouble: string | undefined
}

export type RunWorkerOptions = {
  readonly server: QueueServer
  readonly teacher: ChatTeacher
  /** Limits of the endpoint, as this process knows them. */
  readonly learned: LearnedLimits
  /** Requests at once. */
  readonly concurrency: number
  /** How long the server waits for a sign of life before the requests of a worker count as lost, in milliseconds. */
  readonly lockMs?: number
}

/** Whether a change reached its job; false when the server has none of that key any more. */
async function isThere(change: Promise<void>): Promise<boolean> {
  return change.then(
    () => true,
    (error: unknown) => {
      if (error instanceof Error && /missing key for job/i.test(error.message)) return false
      throw error
    },
  )
}

/** How long an answer looks for its run when the server lost both. */
const looksForRun = 50
const lookForRunMs = 100
const longestCloseMs = 10_000
/** Longer than a server takes to come back: requests of a worker that lives should not be given to another. */
const usualLockMs = 120_000

export async function startRunWorker(
  run: QueuedRun,
  { server, teacher, learned, concurrency, lockMs = usualLockMs }: RunWorkerOptions,
): Promise<RunWorker> {
  const { Queue, Worker, WaitingError } = await import('bullmq')
  const { redis, patiently } = server
  const pace = createQueuePace(run, server)
  const stopping = new AbortController()
  setMaxListeners(0, stopping.signal) // every request that waits listens
  /** By key: a request that the server takes for lost, or lost itself, may come here once more while it is on its way. */
  const inHand = new Map<string, Promise<boolean>>()
  const counts = { inFlight: 0, answered: 0, failed: 0, handedBack: 0 }
  let trouble: string | undefined
  let failure: unknown

  /** Waits until the request may leave; false when the worker stops before. */
  async function waitForTurn(tokens: number): Promise<boolean> {
    const pausing = async (ms: number) => sleep(ms, undefined, { signal: stopping.signal }).catch(() => {})
    let wait = Math.max(await pace.take(tokens), learned.take(tokens))
    while (wait > 0 && !stopping.signal.aborted) {
      await pausing(wait)
      wait = await pace.pauseLeft() // it may have begun meanwhile
    }
    if (!stopping.signal.aborted) return true
    await pace.giveBack({ requests: 1, tokens })
    return false
  }

  async function handBack(job: Job<JobData>, token: string): Promise<never> {
    counts.handedBack += 1
    await patiently(() => job.moveToWait(token)).catch(() => {}) // it is not this worker's any more
    throw new WaitingError()
  }

  async function work(job: Job<JobData>, token = ''): Promise<void> {
    if (outcomeIn(job.data) !== undefined) return // answered by a worker that was thought lost
    const key = job.id ?? ''
    const done = inHand.get(key) ?? attempt(job, key).finally(() => inHand.delete(key))
    inHand.set(key, done)
    if (!(await done)) await handBack(job, token)
  }

  /** One attempt, its outcome stored; false when the request did not leave, or was let in nowhere. */
  async function attempt(job: Job<JobData>, key: string): Promise<boolean> {
    try {
      const request = requestIn(job.data, key)
      const most = estimateTokens(request.messages) + request.settings.maxTokens
      if (stopping.signal.aborted || !(await waitForTurn(most))) return false
      if (!(await isThere(patiently(() => job.updateProgress(sentMark))))) return false
      const { outcome, unused, waitMs } = await ask(request, most)
      if (outcome !== undefined)
        await store(key, outcome) // before anything else
      else await isThere(patiently(() => job.updateProgress(0))) // nothing was charged
      if (unused > 0) await pace.giveBack({ requests: 0, tokens: unused })
      if (waitMs > 0) await pace.pause(waitMs)
      return outcome !== undefined
    } catch (error) {
      stop(error)
      return false
    }
  }

  /** What came of one attempt, no outcome when no further one can succeed from here; tokens of `most` that it did not use, and how long all are to wait. */
  async function ask(request: ChatRequest, most: number) {
    const sentAt = Date.now()
    try {
      const answer = await teacher.answer(request, { signal: new AbortController().signal })
      learned.learn(answer.limits, sentAt)
      counts.answered += 1
      trouble = undefined
      return { outcome: answered(answer), unused: most - answer.usage.input - answer.usage.output, waitMs: 0 }
    } catch (error) {
      if (!(error instanceof TeacherFailure)) throw error
      learned.learn(error.limits, sentAt)
      counts.failed += 1
      trouble = error.message
      if (error.kind === 'stop') stop(new Error(`Cannot ask ${teacher.name}: ${error.message}`, { cause: error }))
      return { outcome: failed(error), unused: 0, waitMs: error.waitMs ?? 0 }
    }
  }

  /** Writes an outcome into its job, wherever that is now; into a new one if the job is gone and the run is not. */
  async function store(key: string, outcome: QueueOutcome): Promise<void> {
    for (let look = 0; look < looksForRun; look++) {
      const job: Job<JobData> | undefined = await patiently(() => queue.getJob(key))
      if (job !== undefined && (await isThere(patiently(() => job.updateData({ outcome }))))) return
      if (await patiently(() => redis.hexists(runsKey, run.id))) {
        await patiently(() => queue.add('ask', { outcome }, { jobId: key }))
        return
      }
      await sleep(lookForRunMs)
    }
  }

  const queue = new Queue<JobData>(run.id, queueOptions(redis))
  queue.on('error', () => {})
  const worker = new Worker<JobData>(
    run.id,
    async (job, token) => {
      counts.inFlight += 1
      try {
        await work(job, token)
      } finally {
        counts.inFlight -= 1
      }
    },
    {
      connection: redis,
      prefix: keyPrefix,
      skipVersionCheck: true,
      concurrency,
      lockDuration: lockMs,
      stalledInterval: lockMs / 4,
      maxStalledCount: 0, // whether it is asked again is decided where the run is
      runRetryDelay: 1000,
      drainDelay: 2,
    },
  )
  worker.on('error', () => {}) // outages are the server's to tell; a lost lock does no harm, see above

  function stop(error?: unknown): void {
    if (error !== undefined && failure === undefined) {
      failure = error
      const said = error instanceof Error ? error.message : String(error)
      void patiently(() => redis.set(departureKey(run.id), said, 'EX', 86_400)).catch(() => {})
    }
    if (stopping.signal.aborted) return
    stopping.abort()
    void worker.pause(true)
  }

  return {
    run,
    status: () => ({ ...counts, trouble }),
    error: () => failure,
    close: async () => {
      stop()
      while (counts.inFlight > 0) await sleep(lookForRunMs) // for as long as the server is away
      if (server.trouble() !== undefined) return false
      const waiting = new AbortController()
      const closing = worker.close().then(async () => {
        await queue.close()
        return true
      })
      const enough = sleep(longestCloseMs, false, { signal: waiting.signal }).catch(() => false)
      return Promise.race([closing, enough]).finally(() => waiting.abort())
    },
  }
}
