/** A teacher answers requests: a language model behind an endpoint, or rules that read boxes and captions. */

import type { EndpointLimits } from './rate-limits.ts'
import type { ChatRequest, TeacherRequest } from './requests.ts'

export type TokenUsage = { readonly input: number; readonly output: number }

export type TeacherAnswer = {
  readonly text: string
  /** Why the teacher stopped: `stop`, `length`, `content_filter`, … */
  readonly finish: string
  readonly usage: TokenUsage
  /** The endpoint's own id of the answer and name of the model, where it gives them. */
  readonly id?: string
  readonly model?: string
  /** What the endpoint said about its limits. */
  readonly limits?: EndpointLimits
}

export type Teacher = {
  readonly name: string // as the user names it: `rules`, `openai:MODEL`
  /** Whether answers cost something: a request that is sent is then noted before, and an answer is kept for good. */
  readonly paid: boolean
  /**
   * @param options.signal gives the request up
   * @param options.ended fires when the run ends; who asks an endpoint goes on until the answer is there
   * @throws TeacherFailure; AnswerLater when the run ends and the answer will be found by the next one
   */
  readonly answer: (request: TeacherRequest, options: AnswerOptions) => Promise<TeacherAnswer>
}

export type AnswerOptions = { readonly signal: AbortSignal; readonly ended?: AbortSignal }

/** A teacher that needs the words of a request alone. */
export type ChatTeacher = Omit<Teacher, 'answer'> & {
  readonly answer: (request: ChatRequest, options: AnswerOptions) => Promise<TeacherAnswer>
}

/** The answer to a request is not there when the run ends, and will be kept for the next one. */
export class AnswerLater extends Error {
  constructor() {
    super('the answer will be found by the next run')
    this.name = 'AnswerLater'
  }
}

/**
 * What a failed request means for the others.
 *
 * - `again`: the same request may succeed later: network, overload, an answer that is none
 * - `slower`: as `again`, and all requests should come less often
 * - `never`: this request will not succeed, others may: refused content, a context that is too long
 * - `stop`: no request will succeed: wrong key, no such model, no money left
 */
export type FailureKind = 'again' | 'slower' | 'never' | 'stop'

export class TeacherFailure extends Error {
  readonly kind: FailureKind
  /** How long the endpoint asks to wait, in milliseconds. */
  readonly waitMs: number | undefined
  /** What the failed request cost all the same: an answer came, and could not be used. */
  readonly usage: TokenUsage | undefined
  /** What the endpoint said about its limits. */
  readonly limits: EndpointLimits | undefined

  constructor(
    message: string,
    {
      kind,
      waitMs,
      usage,
      limits,
      cause,
    }: {
      kind: FailureKind
      waitMs?: number | undefined
      usage?: TokenUsage | undefined
      limits?: EndpointLimits | undefined
      cause?: unknown
    },
  ) {
    super(message, { cause })
    this.name = 'TeacherFailure'
    this.kind = kind
    this.waitMs = waitMs
    this.usage = usage
    this.limits = limits
  }
}
