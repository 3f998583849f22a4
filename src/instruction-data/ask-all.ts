/**
 * Asks a teacher for the responses to many tasks: as many at once as it bears, again after failures, and never twice for an answer that is there.
 *
 * Nothing here can lose an answer: the journal has it on the disk before anything else happens with it.
 */

import type { StoredAnswer } from './answer-journal.ts'
import type { Prompts } from './prompts.ts'
import { createRunner, type Outcome, type RunnerOptions, type RunnerStatus } from './request-runner.ts'
import { requestFor, type Task, type TeacherRequest, type TeacherSettings } from './requests.ts'

export type AskOptions = RunnerOptions & {
  readonly prompts: Prompts
  readonly settings: TeacherSettings
  /** Further requests for a task whose answer is unusable. */
  readonly validationRetries: number
  readonly usable: (task: Task, answer: StoredAnswer) => boolean
  readonly onProgress?: ((progress: AskProgress) => void) | undefined
}

export type AskProgress = RunnerStatus & {
  /** Settled: answered now or by an earlier run, or given up. */
  readonly tasks: number
  /** Answered by an earlier run. */
  readonly known: number
  readonly dropped: number
  /** Dollars, earlier runs included. */
  readonly usd: number
}

/** Tasks that wait for a place, for each that has one. */
const waitingPerPlace = 2

/**
 * Goes through all tasks once. When the signal ends the run early, what is missing is left for the next one.
 * @throws Error when no further request can succeed: wrong key, no such model, budget reached, an endpoint that stays silent. What was answered is kept.
 */
export async function askAll(tasks: AsyncIterable<Task>, options: AskOptions): Promise<AskProgress> {
  const { journal, budget, concurrency, validationRetries, onProgress } = options
  const runner = createRunner(options)
  const sameRequests = new Map<string, Promise<Outcome>>()
  let [settled, known, dropped] = [0, 0, 0]
  const progress = (): AskProgress => ({ ...runner.status(), tasks: settled, known, dropped, usd: budget.spent() })

  /** From the journal or the teacher; two tasks that ask the same in the same words share the answer. */
  async function answerTo(request: TeacherRequest): Promise<Outcome> {
    const { key } = request
    const stored = await journal.read(key)
    if (stored !== undefined) return { answer: stored }
    if (journal.dropped(key) !== undefined) return 'dropped'
    const asked = sameRequests.get(key) ?? runner.obtain(request).finally(() => sameRequests.delete(key))
    sameRequests.set(key, asked)
    return asked
  }

  async function settle(task: Task): Promise<void> {
    for (let round = 0; round <= validationRetries; round++) {
      const request = requestFor(task, { ...options, round })
      if (round === 0 && journal.has(request.key)) known += 1
      const outcome = await answerTo(request)
      if (outcome === 'stopped') return
      if (outcome === 'dropped') dropped += 1
      if (outcome === 'dropped' || options.usable(task, outcome.answer)) break
    }
    settled += 1
    onProgress?.(progress())
  }

  const open = new Set<Promise<void>>()
  for await (const task of tasks) {
    if (runner.stopped()) break
    const settling = settle(task)
      .catch(runner.stop)
      .finally(() => open.delete(settling))
    open.add(settling)
    while (open.size >= (1 + waitingPerPlace) * concurrency.limit()) await Promise.race(open)
  }
  await Promise.all(open)
  if (runner.error() !== undefined) throw runner.error()
  return progress()
}
