/** From answers to a data set: rows of LLaVA JSON with their verdicts, where each row comes from, what was rejected, and what all of it comes down to. */

import { type FileHandle, open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { AnswerJournal, StoredAnswer } from './answer-journal.ts'
import { gatheredWrites } from './lines.ts'
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
  /** Told how many tasks were settled. What it throws ends the writing. */
  readonly onTask?: ((count: number) => void) | undefined
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
  const report = new Map<ResponseType, Counts>()
  const outputs = await openOutputs(folder)
  let count = 0
  try {
    for await (const task of tasks) {
      const counts = report.get(task.type) ?? emptyReport()
      report.set(task.type, counts)
      await settle(task, { counts, outputs, options })
      options.onTask?.(++count)
    }
    await outputs.end()
  } finally {
    await outputs.close()
  }
  return Object.fromEntries(report)
}

/** Writes what became of one task, and counts it. */
async function settle(
  task: Task,
  { counts, outputs, options }: { counts: Counts; outputs: Outputs; options: AssembleOptions },
): Promise<void> {
  counts.tasks += 1
  const id = `${task.picture.id}-${task.type}`
  const result = await resultOf(task, options)
  if (result === undefined) {
    counts.unanswered += 1
    return
  }
  const { key, round } = result
  const about = { id, type: task.type, picture: task.picture.id, key, round }
  if ('dropped' in result) {
    counts.unanswered += 1
    await outputs.reject({ ...about, reason: result.dropped })
    return
  }
  const { answer, reading } = result
  const rejected = (reason: string) => ({ ...about, image: task.picture.image, reason, text: answer.text })
  if ('problem' in reading) {
    counts.rejected += 1
    counts.failed.form = (counts.failed.form ?? 0) + 1
    await outputs.reject(rejected(reading.problem))
    return
  }
  const { verdicts, exchanges } = reading
  for (const { validator } of verdicts) counts.failed[validator] = (counts.failed[validator] ?? 0) + 1
  if (options.strict && verdicts.length > 0) {
    counts.rejected += 1
    const reason = verdicts.map(({ validator, problem }) => `${validator}: ${problem}`).join('; ')
    await outputs.reject(rejected(reason))
    return
  }
  counts.rows += 1
  const { yes, no } = countYesNo(exchanges)
  counts.yes += yes
  counts.no += no
  await outputs.row(rowOf(task, { id, reading, options }), provenanceOf(about, { task, answer, verdicts, options }))
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

type Counts = ReturnType<typeof emptyReport>

function emptyReport() {
  return { tasks: 0, rows: 0, rejected: 0, unanswered: 0, yes: 0, no: 0, failed: {} as Record<string, number> }
}

type Outputs = Awaited<ReturnType<typeof openOutputs>>

/** The files of a data set. What is written to them is there after `end`. */
async function openOutputs(folder: string) {
  const handles: FileHandle[] = []
  const begin = async (name: string) => {
    const handle = await open(join(folder, name), 'wx')
    handles.push(handle)
    return gatheredWrites(handle)
  }
  const close = async () => {
    for (const handle of handles) await handle.close()
  }
  try {
    const rows = await begin('llava.jsonl')
    const list = await begin('llava.json')
    const provenance = await begin('provenance.jsonl')
    const rejects = await begin('rejects.jsonl')
    let separator = '[\n'
    return {
      row: async (row: DataRow, source: object): Promise<void> => {
        const text = JSON.stringify(row)
        await rows.add(`${text}\n`)
        await list.add(`${separator}${text}`)
        separator = ',\n'
        await provenance.add(`${JSON.stringify(source)}\n`)
      },
      reject: async (reject: object): Promise<void> => rejects.add(`${JSON.stringify(reject)}\n`),
      end: async (): Promise<void> => {
        await list.add(separator === '[\n' ? '[]\n' : '\n]\n')
        for (const file of [rows, list, provenance, rejects]) await file.end()
      },
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** Writes one JSON document with line breaks, for people. */
export async function writeDocument(path: string, value: unknown): Promise<void> {
  await writeFile(path, `${JSON.stringify(value, undefined, 2)}\n`)
}
