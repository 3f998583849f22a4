/** From answers to a data set: rows of LLaVA JSON with their verdicts, where each row comes from, what was rejected, and what all of it comes down to. */

import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { finished } from 'node:stream/promises'
import type { AnswerJournal, StoredAnswer } from './answer-journal.ts'
import type { Prompts, ResponseType } from './prompts.ts'
import { type Exchange, readAnswer } from './read-answer.ts'
import { requestFor, shareOf, type Task, type TeacherSettings } from './requests.ts'
import { countYesNo, judge, type Validator, type Verdict } from './validators.ts'

/** A row of LLaVA JSON; readers of that format pass over what they do not know. */
export type DataRow = {
  readonly id: string
  readonly image: string
  readonly conversations: readonly { readonly from: 'human' | 'gpt'; readonly value: string }[]
  readonly type: ResponseType
  readonly teacher: string
  readonly prompts: string // their version
  readonly verdicts: readonly Verdict[]
}

export type AssembleOptions = {
  readonly journal: Pick<AnswerJournal, 'read' | 'dropped'>
  readonly prompts: Prompts
  readonly settings: TeacherSettings
  readonly teacher: string
  readonly validators: readonly Validator[]
  readonly validationRetries: number
  /** Leaves out rows that any validator finds something wrong with; without it they stay, and say so. */
  readonly strict: boolean
  /** Version of the program. */
  readonly generator: string
}

export type TypeReport = {
  readonly tasks: number
  readonly rows: number
  readonly rejected: number
  /** Not answered yet, or given up. */
  readonly unanswered: number
  readonly yes: number
  readonly no: number
  /** Responses that each validator found something wrong with; `form` are those that could not be read. */
  readonly failed: Readonly<Record<string, number>>
}

export type DataReport = Readonly<Partial<Record<ResponseType, TypeReport>>>

/** What became of one response: a row to be, or why not. */
export type Reading =
  | { readonly exchanges: readonly Exchange[]; readonly verdicts: readonly Verdict[] }
  | { readonly problem: string }

/** Reads and judges one answer. */
export function readAndJudge(
  task: Task,
  { answer, validators }: { answer: Pick<StoredAnswer, 'text' | 'finish'>; validators: readonly Validator[] },
): Reading {
  try {
    const exchanges = readAnswer(task, answer.text)
    return { exchanges, verdicts: judge({ task, exchanges, finish: answer.finish }, validators) }
  } catch (error) {
    if (error instanceof SyntaxError) return { problem: error.message }
    throw error
  }
}

/** What is asked again: responses that cannot be read, and with `strict` those that would be left out. */
export function isUsable(reading: Reading, { strict }: { strict: boolean }): boolean {
  return !('problem' in reading) && (!strict || reading.verdicts.length === 0)
}

/**
 * Writes `llava.jsonl`, `llava.json`, `provenance.jsonl` and `rejects.jsonl` into a folder, in the order of the tasks. Equal answers give equal bytes,
 * however often the run was interrupted.
 */
export async function assemble(
  tasks: AsyncIterable<Task>,
  folder: string,
  options: AssembleOptions,
): Promise<DataReport> {
  const files = {
    rows: 'llava.jsonl',
    list: 'llava.json',
    provenance: 'provenance.jsonl',
    rejects: 'rejects.jsonl',
  } as const
  const rows = await openOutput(join(folder, files.rows))
  const list = await openOutput(join(folder, files.list))
  const provenance = await openOutput(join(folder, files.provenance))
  const rejects = await openOutput(join(folder, files.rejects))
  const report = new Map<ResponseType, ReturnType<typeof emptyReport>>()
  let separator = '[\n'
  for await (const task of tasks) {
    const counts = report.get(task.type) ?? emptyReport()
    report.set(task.type, counts)
    counts.tasks += 1
    const id = `${task.picture.id}-${task.type}`
    const result = await resultOf(task, options)
    if (result === undefined) {
      counts.unanswered += 1
      continue
    }
    const { key, round } = result
    const about = { id, type: task.type, picture: task.picture.id, key, round }
    if ('dropped' in result) {
      counts.unanswered += 1
      await rejects.write(`${JSON.stringify({ ...about, reason: result.dropped })}\n`)
      continue
    }
    const { answer, reading } = result
    if ('problem' in reading) {
      counts.rejected += 1
      counts.failed.form = (counts.failed.form ?? 0) + 1
      await rejects.write(
        `${JSON.stringify({ ...about, image: task.picture.image, reason: reading.problem, text: answer.text })}\n`,
      )
      continue
    }
    for (const { validator } of reading.verdicts) counts.failed[validator] = (counts.failed[validator] ?? 0) + 1
    const row = rowOf(task, { id, reading, options })
    if (options.strict && reading.verdicts.length > 0) {
      counts.rejected += 1
      const reason = reading.verdicts.map(({ validator, problem }) => `${validator}: ${problem}`).join('; ')
      await rejects.write(`${JSON.stringify({ ...about, image: task.picture.image, reason, text: answer.text })}\n`)
      continue
    }
    counts.rows += 1
    const { yes, no } = countYesNo(reading.exchanges)
    counts.yes += yes
    counts.no += no
    const text = JSON.stringify(row)
    await rows.write(`${text}\n`)
    await list.write(`${separator}${text}`)
    separator = ',\n'
    await provenance.write(
      `${JSON.stringify(provenanceOf(about, { task, answer, verdicts: reading.verdicts, options }))}\n`,
    )
  }
  await list.write(separator === '[\n' ? '[]\n' : '\n]\n')
  for (const output of [rows, list, provenance, rejects]) await output.close()
  return Object.fromEntries(report)
}

type Result =
  | { readonly key: string; readonly round: number; readonly answer: StoredAnswer; readonly reading: Reading }
  | { readonly key: string; readonly round: number; readonly dropped: string }

/** The first usable answer of a task, or else the last one that can be read, or else the last one; undefined when there is none yet. */
async function resultOf(task: Task, options: AssembleOptions): Promise<Result | undefined> {
  const { journal, validators, strict, validationRetries } = options
  let best: Result | undefined
  for (let round = 0; round <= validationRetries; round++) {
    const { key } = requestFor(task, { ...options, round })
    const answer = await journal.read(key)
    if (answer === undefined) {
      const dropped = journal.dropped(key)
      return best ?? (dropped === undefined ? undefined : { key, round, dropped })
    }
    const reading = readAndJudge(task, { answer, validators })
    const result = { key, round, answer, reading }
    if (isUsable(reading, { strict })) return result
    if (best === undefined || !('problem' in reading)) best = result
  }
  return best
}

function rowOf(
  task: Task,
  { id, reading, options }: { id: string; reading: Exclude<Reading, { problem: string }>; options: AssembleOptions },
): DataRow {
  const { picture, type, promptVersion } = task
  // As in the paper, the picture comes before or after the first question, at random.
  const before = shareOf(`${options.settings.seed} order ${id}`) < 0.5
  const conversations = reading.exchanges.flatMap(({ question, answer }, index) => [
    { from: 'human' as const, value: index > 0 ? question : before ? `<image>\n${question}` : `${question}\n<image>` },
    { from: 'gpt' as const, value: answer },
  ])
  return {
    id,
    image: picture.image,
    conversations,
    type,
    teacher: options.teacher,
    prompts: promptVersion,
    verdicts: reading.verdicts,
  }
}

function provenanceOf(
  about: object,
  {
    task,
    answer,
    verdicts,
    options,
  }: { task: Task; answer: StoredAnswer; verdicts: readonly Verdict[]; options: AssembleOptions },
) {
  const { settings, teacher, generator } = options
  return {
    ...about,
    image: task.picture.image,
    ...(task.picture.licenses !== undefined && { licenses: task.picture.licenses }),
    captions: task.picture.captions,
    boxes: task.picture.boxes,
    teacher,
    model: answer.model ?? settings.model,
    temperature: settings.temperature,
    maxTokens: settings.maxTokens,
    seed: settings.seed,
    prompts: task.promptVersion,
    response: answer.id ?? null,
    finish: answer.finish,
    usage: answer.usage,
    at: answer.at,
    attempts: answer.attempts,
    verdicts,
    generator,
  }
}

function emptyReport() {
  return { tasks: 0, rows: 0, rejected: 0, unanswered: 0, yes: 0, no: 0, failed: {} as Record<string, number> }
}

async function openOutput(path: string) {
  const stream = createWriteStream(path)
  await once(stream, 'open')
  return {
    write: async (text: string) => {
      if (stream.errored) throw stream.errored
      if (!stream.write(text)) await once(stream, 'drain')
    },
    close: async () => {
      stream.end()
      await finished(stream)
    },
  }
}

/** Writes one JSON document with line breaks, for people. */
export async function writeDocument(path: string, value: unknown): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, undefined, 2)}\n`)
}
