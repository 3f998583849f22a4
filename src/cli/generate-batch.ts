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
  batchStatus,
  collectBatch,
  endedStatuses,
  findBatch,
  submitBatch,
  writeBatchFiles,
} from '../instruction-data/batch-files.ts'
import { checked, parseJson } from '../instruction-data/lines.ts'
import type { CommandContext } from './context.ts'
import { type Run, tasksOf } from './generate-data.ts'
import { keyOf } from './generate-options.ts'
import { hashFile, runFiles } from './generate-run.ts'
import { clearStatus, drawStatus, writeLine } from './terminal.ts'

const stateSchema = z.array(
  z.object({
    file: z.string(),
    requests: z.number(),
    mark: z.string(), // of its bytes: by it a batch is found again
    id: z.string().exactOptional(), // once it is submitted
    collected: z.boolean(),
  }),
)
type BatchState = z.infer<typeof stateSchema>

/**
 * Asks for all that is not answered yet, through batches. Interrupted while it waits, it goes on with the same batches.
 * @throws Error when a batch ended without any answers
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

async function askInBatches(
  run: Run,
  {
    journal,
    apiKey,
    pollMs,
    context,
  }: { journal: AnswerJournal; apiKey: string; pollMs: number; context: CommandContext },
): Promise<void> {
  const { stderr, watch } = context
  const folder = join(run.options.out, 'batches')
  await mkdir(folder, { recursive: true })
  const client = new OpenAI({ apiKey, baseURL: run.baseUrl ?? null, logLevel: 'off' })
  const resumed = await readState(folder)
  const state = resumed.some(({ collected }) => !collected) ? resumed : await writeFiles(run, { folder, journal })
  for (const batch of state.filter(({ id }) => id === undefined)) {
    if (watch.signal.aborted) return
    batch.id =
      (await findBatch(client, batch.mark)) ??
      (await submitBatch(client, { path: join(folder, batch.file), mark: batch.mark }))
    await writeState(folder, state)
    writeLine(stderr, `Submitted ${batch.requests} requests as batch ${batch.id}`)
  }
  for (const batch of state) {
    if (batch.collected || batch.id === undefined) continue
    const files = await ended(batch.id, { client, pollMs, context }).finally(() => clearStatus(stderr))
    if (files === undefined) return
    for (const [index, file] of files.entries()) {
      const path = join(folder, batch.file.replace('.jsonl', `-results-${index + 1}.jsonl`))
      const { body } = await client.files.content(file)
      if (body === null) throw new Error(`Cannot collect batch ${batch.id}: its file ${file} is empty`)
      await pipeline(Readable.fromWeb(body as Parameters<typeof Readable.fromWeb>[0]), createWriteStream(path))
      const { answers, failed } = await collectBatch(path, journal)
      writeLine(stderr, `Batch ${batch.id}: ${answers} answers, ${failed} failed`)
    }
    batch.collected = true
    await writeState(folder, state)
  }
}

/** Waits for the end of a batch; its files, or undefined when the command was interrupted. */
async function ended(
  id: string,
  { client, pollMs, context: { stderr, watch } }: { client: OpenAI; pollMs: number; context: CommandContext },
): Promise<readonly string[] | undefined> {
  for (;;) {
    const { status, done, failed, total, files } = await batchStatus(client, id)
    if (endedStatuses.includes(status)) {
      if (files.length === 0) throw new Error(`Cannot collect batch ${id}: it ended as ${status} without answers`)
      return files
    }
    drawStatus(stderr, `Batch ${id} is ${status}: ${done} of ${total} done, ${failed} failed`)
    const interrupted = await sleep(pollMs, false, { signal: watch.signal }).catch(() => true)
    if (interrupted) return undefined
  }
}

async function writeFiles(
  run: Run,
  { folder, journal }: { folder: string; journal: AnswerJournal },
): Promise<BatchState> {
  const prefix = join(folder, `requests-${Date.now()}`)
  const { prompts, settings } = run
  const files = await writeBatchFiles(tasksOf(run), { prefix, journal, prompts, settings })
  const state: BatchState = []
  for (const { path, requests } of files) {
    state.push({
      file: path.slice(folder.length + 1),
      requests,
      mark: (await hashFile(path)).slice(0, 32),
      collected: false,
    })
  }
  await writeState(folder, state)
  return state
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
