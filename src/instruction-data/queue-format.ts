/**
 * What lies on the Redis server while a run goes through a queue: under `llava-ts:runs` each run with what its workers must know, and for each run a BullMQ
 * queue of its own name whose jobs are requests in words. A job bears its request's key as id, so that the same words are one job, and in the end the answer.
 * Keys of endpoints never come here.
 */

import type { Redis } from 'ioredis'
import { z } from 'zod'
import { type ChatRequest, requestKey } from './requests.ts'
import { type TeacherAnswer, TeacherFailure } from './teacher.ts'

/** Grows whenever producers and workers of two versions would misunderstand each other. */
export const queueFormat = 1

/** BullMQ puts it before every key. */
export const keyPrefix = 'llava-ts'
export const runsKey = `${keyPrefix}:runs`
/** How much may be sent at the moment, by all workers of a run. */
export const paceKey = (run: string) => `${keyPrefix}:${run}:pace`
/** Why the latest worker left that could not go on. */
export const departureKey = (run: string) => `${keyPrefix}:${run}:departure`

/** What a worker writes on a job before it sends the request. */
export const sentMark = 'sent'

/** How both ends open the queue of a run. */
export function queueOptions(connection: Redis) {
  return {
    connection,
    prefix: keyPrefix,
    skipVersionCheck: true, // `connectQueueServer` did
    streams: { events: { maxLen: 100 } }, // nobody reads them
    defaultJobOptions: { attempts: 1, removeOnComplete: false, removeOnFail: false, stackTraceLimit: 0 },
  } as const
}

/** What any version can read. */
const anyFormatSchema = z.object({ format: z.number(), version: z.string() })
const runSchema = anyFormatSchema.extend({
  model: z.string(),
  /** Of the endpoint that all workers are to ask; null where each asks its own. */
  baseUrl: z.string().nullable(),
  requestsPerMinute: z.number().nullable(),
  tokensPerMinute: z.number().nullable(),
  /** Until a request without an answer is given up. */
  timeoutMs: z.number(),
})
/** A run as its workers know it. */
export type QueuedRun = z.infer<typeof runSchema> & { readonly id: string }

export function writeRun({ id, ...run }: QueuedRun): [string, string] {
  return [id, JSON.stringify(run)]
}

/** @throws Error for a run of another format */
export function readRun(id: string, text: string): QueuedRun {
  const value: unknown = JSON.parse(text)
  const { format, version } = anyFormatSchema.parse(value)
  if (format !== queueFormat) {
    throw new Error(
      `Cannot work for run ${id}: it was begun by llava-ts ${version}, which writes format ${format} of the queue, expected format ${queueFormat}; use the same version at both ends`,
    )
  }
  return { id, ...runSchema.parse(value) }
}

const usageSchema = z.object({ input: z.number(), output: z.number() })
const answerSchema = z.object({
  text: z.string(),
  finish: z.string(),
  usage: usageSchema,
  id: z.string().exactOptional(),
  model: z.string().exactOptional(),
})
const failureSchema = z.object({
  kind: z.enum(['again', 'slower', 'never']), // a worker that meets `stop` leaves instead
  reason: z.string(),
  waitMs: z.number().exactOptional(),
  usage: usageSchema.exactOptional(),
})
/** What came of a request. */
const outcomeSchema = z.union([z.object({ answer: answerSchema }), z.object({ failure: failureSchema })])
export type QueueOutcome = z.infer<typeof outcomeSchema>

const messageSchema = z.object({ role: z.enum(['system', 'user', 'assistant']), content: z.string() })
const requestSchema = z.object({
  messages: z.array(messageSchema),
  settings: z.object({ model: z.string(), temperature: z.number(), maxTokens: z.number(), seed: z.number() }),
  round: z.number(),
})

/** The data of a job: the request, or what came of it. */
export type JobData = Omit<ChatRequest, 'key'> | { readonly outcome: QueueOutcome }

export function outcomeIn(data: unknown): QueueOutcome | undefined {
  const found = z.object({ outcome: outcomeSchema }).safeParse(data)
  return found.success ? found.data.outcome : undefined
}

/** @throws Error when the words do not give the key: both ends understand them differently */
export function requestIn(data: unknown, key: string): ChatRequest {
  const found = requestSchema.safeParse(data)
  if (found.success && requestKey(found.data) === key) return { key, ...found.data }
  throw new Error(
    `Cannot answer request ${key} of the queue: its words ${found.success ? 'belong to another key' : 'cannot be read'}; use the same version of llava-ts at both ends`,
  )
}

export function answered({ text, finish, usage, id, model }: TeacherAnswer): QueueOutcome {
  return {
    answer: { text, finish, usage, ...(id !== undefined && { id }), ...(model !== undefined && { model }) },
  }
}

/** Undefined for a failure after which no request will succeed. */
export function failed({ kind, message: reason, waitMs, usage }: TeacherFailure): QueueOutcome | undefined {
  if (kind === 'stop') return undefined
  return {
    failure: { kind, reason, ...(waitMs !== undefined && { waitMs }), ...(usage !== undefined && { usage }) },
  }
}

/** @throws TeacherFailure as the worker's teacher threw it */
export function answerOrFailure(outcome: QueueOutcome): TeacherAnswer {
  if ('answer' in outcome) return outcome.answer
  const { reason, ...failure } = outcome.failure
  throw new TeacherFailure(reason, failure)
}
