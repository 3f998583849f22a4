/**
 * One end of a queue as a process of its own, for tests that kill it; it begins when told on standard input.
 *
 *     queue-process.ts producer REDIS RUN JOURNAL COUNT
 *     queue-process.ts worker REDIS RUN ENDPOINT LOCK_MS
 */

import { openJournal } from '../src/instruction-data/answer-journal.ts'
import { askAll } from '../src/instruction-data/ask-all.ts'
import { asking, manyTasks, paced } from '../src/instruction-data/asking.fixture.ts'
import { openAiTeacher } from '../src/instruction-data/openai-teacher.ts'
import { type QueuedRun, queueFormat } from '../src/instruction-data/queue-format.ts'
import { connectQueueServer, type QueueServer, queueAddress } from '../src/instruction-data/queue-server.ts'
import { openQueueTeacher } from '../src/instruction-data/queue-teacher.ts'
import { startRunWorker } from '../src/instruction-data/queue-worker.ts'
import { createLearnedLimits } from '../src/instruction-data/rate-limits.ts'

const [role, address = '', id = '', ...words] = process.argv.slice(2)
const run: QueuedRun = {
  id,
  format: queueFormat,
  version: '0',
  model: 'm',
  baseUrl: null,
  requestsPerMinute: null,
  tokensPerMinute: null,
  timeoutMs: 10_000,
}

async function produce(server: QueueServer, path: string, count: number): Promise<void> {
  const journal = await openJournal(path)
  const teacher = await openQueueTeacher(run, { server, journal, leaveMs: 10_000, lookMs: 20 })
  await askAll(manyTasks(count), {
    teacher,
    journal,
    ...asking,
    ...paced({ first: 16, most: 16, usd: 1 }),
    transportRetries: 20,
    firstDelayMs: 10,
  })
  await teacher.close()
  await journal.close()
}

async function work(server: QueueServer, baseURL: string, lockMs: number): Promise<void> {
  const teacher = openAiTeacher({ model: 'm', apiKey: 'k', baseURL, timeoutMs: run.timeoutMs })
  const worker = await startRunWorker(run, { server, teacher, learned: createLearnedLimits(), concurrency: 4, lockMs })
  await new Promise((resolve) => process.once('SIGTERM', resolve))
  await worker.close()
  process.stdout.write(`${JSON.stringify(worker.status())}\n`)
}

async function main(): Promise<void> {
  await Promise.all([import('bullmq'), import('ioredis')]) // takes longer than all the rest
  await new Promise((resolve) => process.stdin.once('data', resolve))
  const server = await connectQueueServer(queueAddress(address), { onTrouble: () => {} })
  const [first = '', second = ''] = words
  if (role === 'producer') await produce(server, first, Number(second))
  else await work(server, first, Number(second))
  process.exit(0)
}

void main()
