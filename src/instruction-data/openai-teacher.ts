/** A teacher behind any endpoint that speaks OpenAI's chat completions; what goes wrong is told as what it means for the run. */

import OpenAI, { APIConnectionError, APIError, APIUserAbortError } from 'openai'
import { z } from 'zod'
import { tellWrongFields } from '../wrong-fields.ts'
import { limitsIn, waitUntilReset } from './rate-limits.ts'
import type { ChatRequest } from './requests.ts'
import { type ChatTeacher, type TeacherAnswer, TeacherFailure, type TokenUsage } from './teacher.ts'

export type Endpoint = {
  readonly model: string
  /** The key; a local server may take any. */
  readonly apiKey: string
  /** Such as `http://localhost:8000/v1`; OpenAI's own unless told. */
  readonly baseURL?: string | undefined
  /** Milliseconds until a request without a complete answer is given up. */
  readonly timeoutMs: number
}

/** What an answer must look like to be used; servers add much else. */
const completionSchema = z.object({
  id: z.string().optional(),
  model: z.string().optional(),
  choices: z.array(
    z.object({
      finish_reason: z.string().nullish(),
      message: z.object({ content: z.string().nullish(), refusal: z.string().nullish() }),
    }),
  ),
  usage: z.object({ prompt_tokens: z.number().min(0), completion_tokens: z.number().min(0) }).nullish(),
})

export function openAiTeacher({ model, apiKey, baseURL, timeoutMs }: Endpoint): ChatTeacher {
  // The pipeline counts, delays and limits retries; a client that retried by itself would hide them.
  const client = new OpenAI({ apiKey, baseURL: baseURL ?? null, maxRetries: 0, timeout: timeoutMs, logLevel: 'off' })
  const name = `openai:${model}`
  return {
    name,
    paid: true,
    answer: async (request, { signal }) => {
      // The client's own time limit ends with the headers; this one holds until the answer is complete.
      const limit = AbortSignal.timeout(timeoutMs)
      try {
        const sending = client.chat.completions.create(bodyOf(request), {
          signal: AbortSignal.any([signal, limit]),
          headers: { 'Idempotency-Key': request.key },
        })
        const { data, response } = await sending.withResponse()
        const limits = limitsIn(response.headers)
        return { ...readCompletion(data), ...(limits !== undefined && { limits }) }
      } catch (error) {
        signal.throwIfAborted()
        if (error instanceof TeacherFailure) throw error
        if (limit.aborted)
          throw new TeacherFailure(`no answer within ${timeoutMs / 1000} s`, { kind: 'slower', cause: error })
        throw failureOf(error, model)
      }
    },
  }
}

/** The body of a request, for the endpoint and for batch files alike. */
export function bodyOf({ messages, settings }: ChatRequest) {
  const { model, temperature, maxTokens, seed } = settings
  return { model, messages: [...messages], temperature, max_tokens: maxTokens, seed, n: 1 }
}

/** @throws TeacherFailure when it is no chat completion with exactly one choice */
export function readCompletion(response: unknown): TeacherAnswer {
  const completion = completionSchema.safeParse(response)
  if (!completion.success) {
    throw new TeacherFailure(
      `found no chat completion in the answer (${typeof response === 'string' ? 'text' : tellWrongFields(completion.error, response)})`,
      { kind: 'again' },
    )
  }
  const { choices, usage: counted, id, model } = completion.data
  const usage: TokenUsage = { input: counted?.prompt_tokens ?? 0, output: counted?.completion_tokens ?? 0 }
  const [choice] = choices
  if (choice === undefined || choices.length > 1) {
    throw new TeacherFailure(`found ${choices.length} choices in the answer, expected one`, { kind: 'again', usage })
  }
  const finish = choice.finish_reason ?? 'stop'
  if (finish === 'content_filter')
    throw new TeacherFailure('the content filter stopped the answer', { kind: 'never', usage })
  const text = choice.message.content ?? choice.message.refusal ?? ''
  return { text, finish, usage, ...(id !== undefined && { id }), ...(model !== undefined && { model }) }
}

function failureOf(error: unknown, model: string): TeacherFailure {
  if (error instanceof APIError && error.status !== undefined) return statusFailure(error, model)
  if (error instanceof APIConnectionError)
    return new TeacherFailure(`no connection (${rootCause(error)})`, { kind: 'again', cause: error })
  if (error instanceof SyntaxError) return new TeacherFailure('the answer is no JSON', { kind: 'again', cause: error })
  // A stream that is cut off ends in an error of the platform's own.
  if (error instanceof TypeError || error instanceof APIUserAbortError) {
    return new TeacherFailure(`the answer was cut off (${rootCause(error)})`, { kind: 'again', cause: error })
  }
  return new TeacherFailure(rootCause(error), { kind: 'again', cause: error })
}

function statusFailure(error: APIError, model: string): TeacherFailure {
  const { status, code } = error
  const said = `HTTP ${status}: ${oneLine(error.message.replace(/^\d+ /, ''))}`
  const limits = limitsIn(error.headers)
  const fail = (kind: TeacherFailure['kind'], text = said, waitMs?: number) =>
    new TeacherFailure(text, { kind, waitMs, limits, cause: error })
  if (status === 401 || status === 403)
    return fail('stop', `the endpoint refused the key (${said}), expected a valid one in OPENAI_API_KEY`)
  if (status === 404)
    return fail('stop', `the endpoint does not know the model ${model} or has no chat completions (${said})`)
  if (status === 402 || code === 'insufficient_quota') return fail('stop', `the account has no money left (${said})`)
  if (status === 429) return fail('slower', said, retryAfter(error.headers) ?? waitUntilReset(limits))
  if (status !== undefined && (status >= 500 || status === 408 || status === 409)) {
    return fail(status === 409 ? 'again' : 'slower', said, retryAfter(error.headers))
  }
  return fail('never')
}

/** What `Retry-After` or `retry-after-ms` ask for, in milliseconds; seconds or a date (RFC 9110 §10.2.3). */
export function retryAfter(headers: Headers | undefined, now = Date.now()): number | undefined {
  const exact = Number.parseFloat(headers?.get('retry-after-ms') ?? '')
  if (Number.isFinite(exact)) return Math.max(0, exact)
  const asked = headers?.get('retry-after')?.trim() ?? ''
  if (/^\d+(\.\d+)?$/.test(asked)) return Number(asked) * 1000
  const date = Date.parse(asked)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}

function rootCause(error: unknown): string {
  let cause = error
  while (cause instanceof Error && cause.cause instanceof Error) cause = cause.cause
  return cause instanceof Error
    ? oneLine(cause.message || (cause as NodeJS.ErrnoException).code || cause.name)
    : String(cause)
}

function oneLine(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim().replace(/\.$/, '')
  return line.length > 300 ? `${line.slice(0, 300)}…` : line
}
