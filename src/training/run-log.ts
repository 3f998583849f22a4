/** The log of a training run, read back: one JSON event a line, as run.ts writes them. */

import { z } from 'zod'
import { tellWrongFields } from '../wrong-fields.ts'
import type { AskedQuestion, GivenAnswer } from './interview.ts'

/** What the log of a run tells, in the order it was told. */
export type RunLog = {
  readonly steps: readonly {
    readonly step: number
    readonly loss: number
    readonly gradientNorm: number
    /** Factor on the peak learning rates. */
    readonly schedule: number
  }[]
  readonly validations: readonly {
    readonly step: number
    readonly loss: number
    /** Share of answers per skill that would be said word for word, given the right words before: 0 to 1. */
    readonly accuracy: Readonly<Record<string, number>>
  }[]
  /** What the model is asked all through the run. */
  readonly questions: readonly AskedQuestion[]
  /** What it answers by itself, in the order of the questions, and the share of right ones per skill. */
  readonly answers: readonly {
    readonly step: number
    readonly answers: readonly GivenAnswer[]
    readonly accuracy: Readonly<Record<string, number>>
  }[]
  readonly skipped: readonly { readonly sample: string; readonly reason: string }[]
}

const step = z.number().int().min(0)
const value = z
  .number()
  .nullable()
  .transform((found) => found ?? Number.NaN) // JSON writes NaN and infinities as null
const eventSchemas = {
  step: z.object({ step, loss: value, gradientNorm: value, schedule: value }),
  validation: z.object({ step, loss: value, accuracy: z.record(z.string(), value) }),
  questions: z.object({
    questions: z.array(
      z.object({
        sample: z.string(),
        question: z.string(),
        reference: z.string(),
        skill: z.string().exactOptional(),
        picture: z
          .string()
          .regex(/^samples\/\d+\.png$/, 'a file of the run')
          .exactOptional(),
      }),
    ),
  }),
  answers: z.object({
    step,
    answers: z.array(z.object({ text: z.string(), right: z.boolean().exactOptional() })),
    accuracy: z.record(z.string(), value),
  }),
  skipped: z.object({ sample: z.string(), reason: z.string() }),
}

/**
 * Reads the JSON lines of a run's log; `source` names it in errors. Lines of other types are passed over, and so is a
 * last line that a killed run left half-written.
 * @throws SyntaxError or TypeError that names the line
 */
export function parseRunLog(text: string, source: string): RunLog {
  const steps: RunLog['steps'][number][] = []
  const validations: RunLog['validations'][number][] = []
  const answers: RunLog['answers'][number][] = []
  const skipped: RunLog['skipped'][number][] = []
  let questions: RunLog['questions'] = []
  const lines = text.split('\n')
  for (const [index, line] of lines.entries()) {
    const where = `Cannot read line ${index + 1} of ${source}`
    const unterminated = index === lines.length - 1
    if (unterminated && !isJson(line)) continue
    const event = parseEvent(line, where)
    const check = <T>(schema: z.ZodType<T>): T => checked(schema, { event, where })
    if (event.type === 'step') steps.push(check(eventSchemas.step))
    else if (event.type === 'validation') validations.push(check(eventSchemas.validation))
    else if (event.type === 'questions') questions = check(eventSchemas.questions).questions
    else if (event.type === 'answers') answers.push(check(eventSchemas.answers))
    else if (event.type === 'skipped') skipped.push(check(eventSchemas.skipped))
  }
  return { steps, validations, questions, answers, skipped }
}

export function isGroup(setting: unknown): setting is Readonly<Record<string, unknown>> {
  return typeof setting === 'object' && setting !== null && !Array.isArray(setting)
}

function parseEvent(line: string, where: string): Readonly<Record<string, unknown>> {
  let event: unknown
  try {
    event = JSON.parse(line)
  } catch (cause) {
    throw new SyntaxError(
      `${where}: found ${line.trim() === '' ? 'an empty line' : 'broken JSON'}, expected one event`,
      { cause },
    )
  }
  if (!isGroup(event) || typeof event.type !== 'string') {
    throw new TypeError(`${where}: found no event, expected an object with a type`)
  }
  return event
}

function checked<T>(schema: z.ZodType<T>, { event, where }: { event: unknown; where: string }): T {
  const result = schema.safeParse(event)
  if (!result.success) throw new TypeError(`${where}: ${tellWrongFields(result.error, event)}`)
  return result.data
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
