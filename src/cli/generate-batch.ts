/** `llava generate --batch`: the requests as batch files of the provider, submitted, waited for and collected; each step is noted, and none is done twice. */

import { createWriteStream } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import OpenAI from 'openai'
import { z } from 'zod'
import { writeFileAtomically } from '../checkpoint/atomic-file.ts'
import { type AnswerJournal, openJournal } from '../instruction-data/answer-journal.ts'
import {
  type BatchStatus,
  batchStatus,
  collectBatch,
  endedStatuses,
  findBatch,
  submitBatch,
  writeBatchFiles,
} from '../instruction-data/batch-files.ts'
import { checked, parseJson } from '../instruction-data/lines.ts'
import { costOf, type Price } from '../instruction-data/pace.ts'
import type { CommandContext } from './context.ts'
import { type Run, tasksOf } from './generate-data.ts'
import { keyOf } from './generate-options.ts'
import { hashFile, runFiles } from './generate-run.ts'
import { clearStatus, drawStatus, writeLine } from './terminal.ts'

const stateSchema = z.array(
  z.object({
    file: z.string(),
    requests: z.number(),
    usage: z.object({ input: z.number(), output: z.number() }), // at most
    mark: z.string(), // of its bytes: by it a batch is found again
    id: z.string().optional(), // once it is submitted
    collected: z.boolean(),
  }),
)
type BatchState = z.infer<typeof stateSchema>

/**
 * Asks for all that is not answered yet, through batches. Interrupted while it waits, it goes on with the same batches.
 * @throws Error when a batch ended without any answers, or the budget allows no further request
 */
export async function askBatch(run: Run, context: CommandContext): Promise<undefined> {
  const { out, teacher, poll } = run.options
  if (!run.options.ask) return
  const apiKey = keyOf(teacher, { baseUrl: run.baseUrl, env: process.env })
  const journal = await openJournal(join(out, runFiles.answers))
  try {
    await askInBatches(run, { journal, apiKey, pollMs: poll * 1000, context })
  } finally {
    await journal.close()
  }
}

type Asking = { journal: AnswerJournal; apiKey: string; pollMs: number; context: CommandContext }

/**
 * Without a budget, all at once. With one, as many requests as are sure to stay below it; since responses are mostly shorter than the longest, what is left
 * once they are collected is enough for more.
 */
async function askInBatches(run: Run, { journal, apiKey, pollMs, context }: Asking): Promise<void> {
  const folder = join(run.options.out, 'batches')
  await mkdir(folder, { recursive: true })
  const client = new OpenAI({ apiKey, baseURL: run.baseUrl ?? null, logLevel: 'off' })
  const { price, maxUsd } = run.options
  const asked = new Set<string>()
  for (;;) {
    const resumed = await readState(folder)
    const isResumed = resumed.some(({ collected }) => !collected)
    const spent = price === undefined ? 0 : costOf(journal.spent(), price) + costOf(journal.lost(), price)
    const budget = price === undefined || maxUsd === undefined ? undefined : { left: maxUsd - spent, price }
    const { state, unaffordable } = isResumed
      ? { state: resumed, unaffordable: undefined }
      : await writeFiles(run, { folder, journal, asked, budget })
    if (state.length === 0 && unaffordable !== undefined) {
      throw new Error(
        `Cannot ask further: the budget is reached, $${spent.toFixed(4)} are spent and the next request may cost $${unaffordable.toFixed(4)}`,
      )
    }
    const done = await askBatches(state, { folder, client, journal, price, left: budget?.left, pollMs, context })
    const mayBeMore = unaffordable !== undefined || (isResumed && budget !== undefined)
    if (!done || !mayBeMore) return
  }
}

/** Submits what is not submitted yet, waits for all and keeps their answers; false when the command was interrupted before the end. */
async function askBatches(
  state: BatchState,
  {
    folder,
    client,
    journal,
    price = { input: 0, output: 0 },
    left = Number.POSITIVE_INFINITY,
    pollMs,
    context,
  }: Pick<Asking, 'journal' | 'pollMs' | 'context'> & {
    folder: string
    client: OpenAI
    price: Price | undefined
    left: number | undefined
  },
): Promise<boolean> {
  const { stderr, watch } = context
  const dollars = (usd: number) => `$${usd.toFixed(4)}`
  let free = left // without what batches may cost that are on their way
  for (const { id, collected, usage } of state) if (id !== undefined && !collected) free -= costOf(usage, price)
  for (const batch of state.filter(({ id, collected }) => id === undefined && !collected)) {
    if (watch.signal.aborted) return false
    const usd = costOf(batch.usage, price)
    batch.id = await findBatch(client, batch.mark)
    if (batch.id === undefined && usd > free) {
      throw new Error(
        `Cannot submit ${batch.requests} requests: they may cost ${dollars(usd)}, and ${dollars(free)} are left of --max-usd`,
      )
    }
    batch.id ??= await submitBatch(client, { path: join(folder, batch.file), mark: batch.mark })
    free -= usd
    await writeState(folder, state)
    const most = usd === 0 ? '' : `, for ${dollars(usd)} at most`
    writeLine(stderr, `Submitted ${batch.requests} requests as batch ${batch.id}${most}`)
  }
  for (const batch of state) {
    if (batch.collected || batch.id === undefined) continue
    const { id } = batch
    const end = await ended(id, { client, pollMs, context }).finally(() => clearStatus(stderr))
    if (end === undefined) return false
    for (const [index, file] of end.files.entries()) {
      const path = join(folder, batch.file.replace('.jsonl', `-results-${index + 1}.jsonl`))
      const { body } = await client.files.content(file)
      if (body === null) throw new Error(`Cannot collect batch ${id}: its file ${file} is empty`)
      await pipeline(Readable.fromWeb(body as Parameters<typeof Readable.fromWeb>[0]), createWriteStream(path))
      const before = journal.spent()
      const { answers, failed } = await collectBatch(path, journal)
      const { input, output } = journal.spent()
      const usd = costOf({ input: input - before.input, output: output - before.output }, price)
      writeLine(stderr, `Batch ${id}: ${answers} answers, ${failed} failed${usd === 0 ? '' : `, ${dollars(usd)}`}`)
    }
    batch.collected = true // also one without answers: the next run asks anew, and not for this one again
    await writeState(folder, state)
    if (end.files.length === 0)
      throw new Error(
        `Cannot collect batch ${id}: it ended as ${end.status} without answers; what is missing is asked for anew by the next run`,
      )
  }
  return true
}

/** Waits for the end of a batch: how it ended, with its files; undefined when the command was interrupted. */
async function ended(
  id: string,
  { client, pollMs, context: { stderr, watch } }: { client: OpenAI; pollMs: number; context: CommandContext },
): Promise<Pick<BatchStatus, 'status' | 'files'> | undefined> {
  for (;;) {
    const { status, done, failed, total, files } = await batchStatus(client, id)
    if (endedStatuses.includes(status)) return { status, files }
    drawStatus(stderr, `Batch ${id} is ${status}: ${done} of ${total} done, ${failed} failed`)
    const interrupted = await sleep(pollMs, false, { signal: watch.signal }).catch(() => true)
    if (interrupted) return undefined
  }
}

async function writeFiles(
  run: Run,
  {
    folder,
    ...options
  }: {
    folder: string
    journal: AnswerJournal
    asked: Set<string>
    budget: { readonly left: number; readonly price: Price } | undefined
  },
): Promise<{ state: BatchState; unaffordable: number | undefined }> {
  const prefix = join(folder, `requests-${Date.now()}`)
  const { prompts, settings } = run
  const { files, unaffordable } = await writeBatchFiles(tasksOf(run), { prefix, prompts, settings, ...options })
  const state: BatchState = []
  for (const { path, requests, usage } of files) {
    state.push({
      file: path.slice(folder.length + 1),
      requests,
      usage,
      mark: (await hashFile(path)).slice(0, 32),
      collected: false,
    })
  }
  if (state.length > 0) await writeState(folder, state)
  return { state, unaffordable }
}

async function readState(folder: string): Promise<BatchState> {
  const path = join(folder, 'batches.json')
  const text = await readFile(path, 'utf8').catch(() => undefined)
  return text === undefined ? [] : checked(stateSchema, { value: parseJson(text, path), where: path })
}

async function writeState(folder: string, state: BatchState): Promise<void> {
  const text = `${JSON.stringify(state, undefined, 2)}\n`
  await writeFileAtomically(join(folder, 'batches.json'), async (handle) => handle.writeFile(text))
}
