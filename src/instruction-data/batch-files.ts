/**
 * Requests as batch files of a provider, at half the price and within a day: written, handed over, waited for, and their answers kept like any others.
 *
 * Which batch has which requests is noted before anything is sent, so that a run that is killed asks for the answers of its batches and not for new ones.
 */

import { createReadStream } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import type OpenAI from 'openai'
import { z } from 'zod'
import { type AnswerJournal, storedAnswer } from './answer-journal.ts'
import { readJsonLines } from './lines.ts'
import { bodyOf, readCompletion } from './openai-teacher.ts'
import { costOf, estimateTokens, type Price } from './pace.ts'
import type { Prompts } from './prompts.ts'
import { requestFor, type Task, type TeacherRequest, type TeacherSettings } from './requests.ts'
import { TeacherFailure, type TokenUsage } from './teacher.ts'

/** Providers take so many requests in one file, and so many bytes. */
const mostRequests = 50_000
const mostBytes = 190_000_000

export type BatchFile = {
  readonly path: string
  readonly requests: number
  /** Tokens at most: those of the messages as estimated, and the longest responses. */
  readonly usage: TokenUsage
}

export type BatchFiles = {
  readonly files: readonly BatchFile[]
  /** Where a request was left out because all together might cost more than allowed: what it may cost, in dollars. */
  readonly unaffordable: number | undefined
}

/**
 * Writes the requests of tasks that are not answered yet as `PREFIX-1.jsonl`, `PREFIX-2.jsonl`, …; each key once.
 * @param options.asked keys that are passed over as well; those that are written are added
 * @param options.budget dollars that all of them may cost at most; requests from the first one on that would cost more are left out
 */
export async function writeBatchFiles(
  tasks: AsyncIterable<Task>,
  {
    prefix,
    journal,
    prompts,
    settings,
    asked = new Set(),
    budget,
    most = mostRequests,
  }: {
    prefix: string
    journal: Pick<AnswerJournal, 'has' | 'dropped'>
    prompts: Prompts
    settings: TeacherSettings
    asked?: Set<string>
    budget?: { readonly left: number; readonly price: Price } | undefined
    most?: number
  },
): Promise<BatchFiles> {
  const files: BatchFile[] = []
  let lines: string[] = []
  let [bytes, input, usd] = [0, 0, 0]
  const flush = async () => {
    if (lines.length === 0) return
    const path = `${prefix}-${files.length + 1}.jsonl`
    await writeFile(path, lines.join(''))
    files.push({ path, requests: lines.length, usage: { input, output: lines.length * settings.maxTokens } })
    lines = []
    bytes = input = 0
  }
  for await (const task of tasks) {
    const request = requestFor(task, { prompts, settings })
    const { key } = request
    if (asked.has(key) || journal.has(key) || journal.dropped(key) !== undefined) continue
    const tokens = mostTokens(request)
    const cost = budget === undefined ? 0 : costOf(tokens, budget.price)
    if (budget !== undefined && usd + cost > budget.left) {
      await flush()
      return { files, unaffordable: cost }
    }
    usd += cost
    asked.add(key)
    const line = `${JSON.stringify({ custom_id: key, method: 'POST', url: '/v1/chat/completions', body: bodyOf(request) })}\n`
    if (lines.length >= most || bytes + Buffer.byteLength(line) > mostBytes) await flush()
    lines.push(line)
    bytes += Buffer.byteLength(line)
    input += tokens.input
  }
  await flush()
  return { files, unaffordable: undefined }
}

/** As a request that is sent alone is set aside for. */
function mostTokens({ messages, settings }: TeacherRequest): TokenUsage {
  return { input: estimateTokens(messages), output: settings.maxTokens }
}

/** Hands a file over; the result is the id of the batch. `mark` is kept with it, so that it can be found again. */
export async function submitBatch(client: OpenAI, { path, mark }: { path: string; mark: string }): Promise<string> {
  const { id } = await client.files.create({ file: createReadStream(path), purpose: 'batch' })
  const batch = await client.batches.create({
    input_file_id: id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
    metadata: { mark },
  })
  return batch.id
}

/** The batch that was submitted with a mark, by a run that was killed before it noted the id. */
export async function findBatch(client: OpenAI, mark: string): Promise<string | undefined> {
  for await (const { id, metadata } of client.batches.list({ limit: 100 })) if (metadata?.mark === mark) return id
  return undefined
}

export type BatchStatus = {
  readonly status: string
  readonly done: number
  readonly failed: number
  readonly total: number
  readonly files: readonly string[]
}

/** How far a batch is; `files` are those with answers and errors, once it has ended. */
export async function batchStatus(client: OpenAI, id: string): Promise<BatchStatus> {
  const {
    status,
    request_counts: counts,
    output_file_id: output,
    error_file_id: errors,
  } = await client.batches.retrieve(id)
  const files = [output, errors].filter((file) => file !== undefined && file !== null && file !== '')
  return {
    status,
    done: counts?.completed ?? 0,
    failed: counts?.failed ?? 0,
    total: counts?.total ?? 0,
    files: files as string[],
  }
}

export const endedStatuses: readonly string[] = ['completed', 'failed', 'expired', 'cancelled']

const resultSchema = z.object({
  custom_id: z.string(),
  response: z.object({ status_code: z.number(), body: z.unknown() }).nullish(),
  error: z.object({ message: z.string().nullish() }).nullish(),
})

export type Collected = { readonly answers: number; readonly known: number; readonly failed: number }

/**
 * Keeps the answers of a result file of a batch. Answers that are there already are passed over, so that a file can be collected again.
 * @throws SyntaxError that names the line which is no result
 */
export async function collectBatch(path: string, journal: Pick<AnswerJournal, 'has' | 'add'>): Promise<Collected> {
  const counts = { answers: 0, known: 0, failed: 0 }
  for await (const { line, value } of readJsonLines(path)) {
    const result = resultSchema.safeParse(value)
    if (!result.success) throw new SyntaxError(`Cannot read ${path}, line ${line}: found no result of a batch`)
    const { custom_id: key, response, error } = result.data
    if (journal.has(key)) {
      counts.known += 1
      continue
    }
    try {
      if (response?.status_code !== 200)
        throw new TeacherFailure(error?.message ?? `HTTP ${response?.status_code ?? 'nothing'}`, { kind: 'again' })
      await journal.add(storedAnswer(key, { answer: readCompletion(response.body), attempts: 1 }))
      counts.answers += 1
    } catch (failure) {
      if (!(failure instanceof TeacherFailure)) throw failure
      const { message: reason, usage, kind } = failure
      await journal.add({ event: 'failed', key, reason, ...(usage !== undefined && { usage }) })
      if (kind === 'never') await journal.add({ event: 'dropped', key, reason, final: true })
      counts.failed += 1
    }
  }
  return counts
}
