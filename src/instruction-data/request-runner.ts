/** Sends single requests until each is answered or given up, at the pace that endpoint, buckets and budget allow. */

import { setMaxListeners } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { type AnswerJournal, type StoredAnswer, storedAnswer } from './answer-journal.ts'
import { type Bucket, type Budget, backOff, type Concurrency, costOf, estimateTokens, type Price } from './pace.ts'
import { createLearnedLimits } from './rate-limits.ts'
import type { TeacherRequest } from './requests.ts'
import { AnswerLater, type Teacher, TeacherFailure } from './teacher.ts'

export type RunnerOptions = {
  readonly teacher: Teacher
  readonly journal: AnswerJournal
  readonly concurrency: Concurrency
  readonly requestBucket?: Bucket | undefined
  readonly tokenBucket?: Bucket | undefined
  readonly budget: Budget
  readonly price: Price
  /** Further attempts after failures of network or endpoint, counted while other requests succeed: an outage is not the fault of a request. */
  readonly transportRetries: number
  /** How long everything may fail before the run gives up, in milliseconds. */
  readonly patienceMs: number
  /** Ends the run properly: nothing new is sent, what is on its way is waited for. */
  readonly signal?: AbortSignal | undefined
  /** The bound of the first delay between two attempts, in milliseconds; a second unless told. */
  readonly firstDelayMs?: number | undefined
}

export type Outcome = { readonly answer: StoredAnswer } | 'dropped' | 'stopped'

export type Runner = {
  readonly obtain: (request: TeacherRequest) => Promise<Outcome>
  /** Ends the run because of an error; the first one is kept. */
  readonly stop: (error: unknown) => void
  readonly stopped: () => boolean
  readonly error: () => unknown
  readonly status: () => RunnerStatus
}

export type RunnerStatus = {
  readonly inFlight: number
  /** Requests at once. */
  readonly limit: number
  readonly answered: number
  readonly retries: number
  /** Why the latest attempt failed; nothing once one succeeded. */
  readonly trouble: string | undefined
  /** Why the latest request was given up. */
  readonly lastDropped: string | undefined
}

/** So many requests refused for good, with none answered in between, are no accident. */
const mostRefusedInARow = 20
/** With so few requests left open, others that could succeed in the meantime may be missing. */
const fewOpen = 2

export function createRunner(options: RunnerOptions): Runner {
  const { teacher, journal, concurrency, budget, price, patienceMs, firstDelayMs } = options
  const ending = new AbortController()
  const ended = options.signal === undefined ? ending.signal : AbortSignal.any([options.signal, ending.signal])
  setMaxListeners(0, ended) // every request that waits listens
  let failure: { readonly error: unknown } | undefined
  const places = createPlaces(concurrency.limit)
  const learned = createLearnedLimits()
  let [answered, retries, refusedInARow, open] = [0, 0, 0, 0]
  let trouble: string | undefined
  let lastDropped: string | undefined
  let pausedUntil = 0
  let failingSince: number | undefined // while nothing succeeds

  function stop(error: unknown): void {
    failure ??= { error }
    ending.abort()
    places.wake()
  }

  /** Waits until the request may leave; what it may cost is set aside then. False when the run ends before. */
  async function waitForTurn(tokens: { input: number; output: number }): Promise<boolean> {
    const usd = costOf(tokens, price)
    const { requestBucket, tokenBucket } = options
    try {
      while (pausedUntil > Date.now()) await sleep(pausedUntil - Date.now(), undefined, { signal: ended })
      const all = tokens.input + tokens.output
      const wait = Math.max(requestBucket?.take(1) ?? 0, tokenBucket?.take(all) ?? 0, learned.take(all))
      if (wait > 0) await sleep(wait, undefined, { signal: ended })
      while (!ended.aborted && !budget.reserve(usd)) {
        if (budget.reserved() > 0) await places.released(ended)
        else
          stop(
            new Error(
              `Cannot ask further: the budget is reached, $${budget.spent().toFixed(4)} are spent and the next request may cost $${usd.toFixed(4)}`,
            ),
          )
      }
    } catch (error) {
      if (!ended.aborted) throw error
    }
    return !ended.aborted
  }

  async function attempt(request: TeacherRequest, attempts: number): Promise<Outcome | TeacherFailure> {
    const most = { input: estimateTokens(request.messages), output: request.settings.maxTokens }
    if (!(await places.take(ended))) return 'stopped'
    let reserved = false
    let cost = 0
    try {
      reserved = await waitForTurn(most)
      if (!reserved) return 'stopped'
      const { key } = request
      if (teacher.paid) await journal.add({ event: 'sent', key, usage: most })
      // What was sent will be paid for, so it is waited for even when the run ends.
      const signal = new AbortController().signal
      const sentAt = Date.now()
      const given = await teacher.answer(request, { signal, ended }).catch((error: unknown) => {
        if (error instanceof TeacherFailure) learned.learn(error.limits, sentAt)
        throw error
      })
      learned.learn(given.limits, sentAt)
      const { usage } = given
      cost = costOf(usage, price)
      options.tokenBucket?.giveBack(Math.max(0, most.input + most.output - usage.input - usage.output))
      const answer = storedAnswer(key, { answer: given, attempts })
      await journal.add(answer)
      return { answer }
    } catch (error) {
      if (error instanceof AnswerLater) return 'stopped'
      if (!(error instanceof TeacherFailure)) throw error
      cost = error.usage === undefined ? 0 : costOf(error.usage, price)
      const { message: reason, usage } = error
      await journal.add({ event: 'failed', key: request.key, reason, ...(usage !== undefined && { usage }) })
      return error
    } finally {
      if (reserved) budget.settle(costOf(most, price), cost)
      places.release()
    }
  }

  async function drop(
    request: TeacherRequest,
    { reason, final }: { reason: string; final: boolean },
  ): Promise<Outcome> {
    lastDropped = reason
    await journal.add({ event: 'dropped', key: request.key, reason, final })
    return 'dropped'
  }

  async function obtain(request: TeacherRequest): Promise<Outcome> {
    open += 1
    try {
      let counted = 0
      for (let attempts = 1; ; attempts++) {
        const successesBefore = answered
        const outcome = await attempt(request, attempts)
        if (outcome === 'stopped' || outcome === 'dropped') return outcome
        if (!(outcome instanceof TeacherFailure)) {
          answered += 1
          refusedInARow = 0
          trouble = undefined
          failingSince = undefined
          concurrency.succeeded()
          places.wake()
          return outcome
        }
        const { kind, message: reason, waitMs = 0 } = outcome
        trouble = reason
        if (kind === 'stop') {
          stop(new Error(`Cannot ask ${teacher.name}: ${reason}`, { cause: outcome }))
          return 'stopped'
        }
        if (kind === 'never') {
          refusedInARow += 1
          if (teacher.paid && refusedInARow >= mostRefusedInARow) {
            stop(
              new Error(
                `Cannot ask ${teacher.name}: the last ${refusedInARow} requests were all refused, the latest with ${reason}`,
              ),
            )
          }
          return drop(request, { reason, final: true })
        }
        if (kind === 'slower') concurrency.slowed()
        failingSince ??= Date.now()
        const silentMs = Date.now() - failingSince
        if (silentMs + waitMs > patienceMs) {
          const about = waitMs > 0 ? ` and a request to wait ${Math.round(waitMs / 1000)} s` : ''
          stop(
            new Error(
              `Cannot ask ${teacher.name}: nothing succeeded for ${Math.round(silentMs / 1000)} s, the latest attempt ended with ${reason}${about}`,
            ),
          )
          return 'stopped'
        }
        if (answered > successesBefore || open <= fewOpen) counted += 1
        if (counted > options.transportRetries) return drop(request, { reason, final: false })
        retries += 1
        pausedUntil = Math.max(pausedUntil, Date.now() + waitMs)
        const delay = waitMs + backOff(attempts - 1, firstDelayMs === undefined ? {} : { firstMs: firstDelayMs })
        if (!(await pause(delay, ended))) return 'stopped'
      }
    } finally {
      open -= 1
    }
  }

  return {
    obtain,
    stop,
    stopped: () => ended.aborted,
    error: () => failure?.error,
    status: () => ({ inFlight: places.taken(), limit: concurrency.limit(), answered, retries, trouble, lastDropped }),
  }
}

/** Places for requests on their way, as many as `limit` says at the moment; who waits longest is next. */
function createPlaces(limit: () => number) {
  let taken = 0
  let waiting: (() => void)[] = []
  const wake = () => {
    const woken = waiting
    waiting = []
    for (const resolve of woken) resolve()
  }
  const changed = (signal: AbortSignal) =>
    new Promise<void>((resolve) => {
      if (signal.aborted) resolve()
      else waiting.push(resolve)
    })
  return {
    /** False when the run ends before there is one. */
    take: async (signal: AbortSignal): Promise<boolean> => {
      while (!signal.aborted && taken >= limit()) await changed(signal)
      if (signal.aborted) return false
      taken += 1
      return true
    },
    release: () => {
      taken -= 1
      wake()
    },
    released: changed,
    wake,
    taken: () => taken,
  }
}

/** False when the run ends before the time is over. */
async function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  return sleep(ms, true, { signal }).catch(() => false)
}
