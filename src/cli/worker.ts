/** `llava worker`: asks a teacher for the runs that `llava generate --queue` put on a Redis server. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { openAiTeacher } from '../instruction-data/openai-teacher.ts'
import { type QueuedRun, readRun, runsKey } from '../instruction-data/queue-format.ts'
import { connectQueueServer, type QueueServer } from '../instruction-data/queue-server.ts'
import { type RunWorker, startRunWorker } from '../instruction-data/queue-worker.ts'
import { createLearnedLimits } from '../instruction-data/rate-limits.ts'
import type { CommandContext } from './context.ts'
import { endpointOf, keyOf } from './generate-options.ts'
import { addressOf, tellsTrouble, withoutSecrets } from './generate-queue.ts'
import { wholeNumber } from './options.ts'
import { clearStatus, printable, writeLine } from './terminal.ts'
import { sumOf, workerProgress } from './worker-progress.ts'

type WorkerOptions = { run?: string; baseUrl?: string; concurrency: number; untilDone?: boolean; json?: boolean }

const lookEveryMs = 1000
/** For what is still to be printed, where the process would not end by itself. */
const exitMs = 500

export function addWorkerCommand(program: Command, context: CommandContext): void {
  program
    .command('worker')
    .description('ask a teacher for runs of llava generate --queue, on as many machines as you like')
    .argument('[address]', 'the Redis or Valkey server: redis://HOST:PORT/DB, rediss:// with TLS (default: REDIS_URL)')
    .option('--run <id>', 'only this run; otherwise all that are on the server')
    .option(
      '--base-url <address>',
      'of the endpoint (default: OPENAI_BASE_URL, or OpenAI); the key comes from OPENAI_API_KEY',
    )
    .option(
      '--concurrency <n>',
      'requests of a run at once at most',
      wholeNumber('--concurrency', { from: 1, to: 1024 }),
      32,
    )
    .option('--until-done', 'end when all runs are done, instead of waiting for further ones')
    .option('--json', 'print one JSON object at the end')
    .addHelpText(
      'after',
      `
Examples:
  $ llava worker redis://10.0.0.5:6379
  $ OPENAI_API_KEY=sk-… llava worker rediss://:PASSWORD@queue.example.org:6380/2 --run 1f0c5e2a9b77
  $ REDIS_URL=redis://:PASSWORD@10.0.0.5 llava worker --base-url http://localhost:8000/v1 --concurrency 8 --until-done

Limits of requests, tokens and dollars are those of the run, for all its workers together. Ctrl-C takes nothing more, hands back what was not sent yet and
waits for the rest; a second one ends at once. The server should keep what it is told on its disk: appendonly yes.`,
    )
    .action((address: string | undefined, options: WorkerOptions) => work(address, { options, context }))
}

async function work(
  given: string | undefined,
  { options, context: { stdout, stderr, watch } }: { options: WorkerOptions; context: CommandContext },
): Promise<void> {
  const address = addressOf(given)
  const baseUrl = endpointOf(options.baseUrl ?? process.env.OPENAI_BASE_URL)
  const apiKey = keyOf('the endpoint', { baseUrl, env: process.env })
  const say = (line: string) => {
    clearStatus(stderr)
    writeLine(stderr, printable(line))
  }
  const server = await connectQueueServer(address, { onTrouble: tellsTrouble(say, () => address.shown) })
  const learned = createLearnedLimits()
  const begin = (run: QueuedRun) => {
    expectEndpoint(run, baseUrl)
    const teacher = openAiTeacher({ model: run.model, apiKey, baseURL: baseUrl, timeoutMs: run.timeoutMs })
    return startRunWorker(run, { server, teacher, learned, concurrency: options.concurrency })
  }
  const workers: RunWorker[] = []
  const progress = workerProgress({ terminal: stderr, workers })
  say(`Waiting for runs on ${address.shown}`)
  try {
    await serve({ server, workers, begin, options, say, signal: watch.signal, show: progress.show })
  } finally {
    const inFlight = sumOf(workers).inFlight
    if (watch.signal.aborted && inFlight > 0) say(`Waiting for what is on its way (${inFlight}); a second Ctrl-C gives it up`)
    const closed = await Promise.all(workers.map((worker) => worker.close()))
    progress.end()
    server.close()
    if (!closed.every(Boolean)) setTimeout(() => process.exit(), exitMs).unref() // with the code that is set until then
  }
  const { answered, failed, handedBack } = sumOf(workers)
  if (options.json) writeLine(stdout, JSON.stringify({ answered, failed, handedBack }))
  else say(`Answered ${answered}, failed ${failed}, handed back ${handedBack}`)
}

type Serving = {
  readonly server: QueueServer
  /** Of all runs so far, those that are over included. */
  readonly workers: RunWorker[]
  readonly begin: (run: QueuedRun) => Promise<RunWorker>
  readonly options: WorkerOptions
  readonly say: (line: string) => void
  readonly signal: AbortSignal
  readonly show: () => void
}

/** Works for runs as they come and go, until there is a reason to end. @throws Error when this worker cannot go on */
async function serve({ server, workers, begin, options, say, signal, show }: Serving): Promise<void> {
  const open = new Map<string, RunWorker>()
  const refused = new Map<string, unknown>()
  const interrupted = new Promise<undefined>((resolve) => signal.addEventListener('abort', () => resolve(undefined)))
  while (!signal.aborted) {
    const listed = await Promise.race([server.patiently(() => server.redis.hgetall(runsKey)), interrupted])
    if (listed === undefined) return
    for (const [id, text] of Object.entries(listed)) {
      if (open.has(id) || refused.has(id) || (options.run !== undefined && options.run !== id)) continue
      try {
        const worker = await begin(readRun(id, text))
        open.set(id, worker)
        workers.push(worker)
        say(`Working for run ${id} (openai:${worker.run.model})`)
      } catch (error) {
        if (options.run !== undefined) throw error
        refused.set(id, error)
        say(error instanceof Error ? error.message : String(error))
      }
    }
    for (const [id, worker] of open) {
      if (worker.error() !== undefined) throw worker.error()
      if (id in listed) continue
      await worker.close()
      open.delete(id)
      say(`Run ${id} is over`)
    }
    if (options.untilDone && open.size === 0) {
      const [first] = refused.values()
      if (first !== undefined) throw first
      if (workers.length > 0) return
    }
    show()
    await sleep(lookEveryMs, undefined, { signal }).catch(() => {})
  }
}

/** @throws Error when the run is meant for another endpoint */
function expectEndpoint({ id, baseUrl }: QueuedRun, own: string | undefined): void {
  if (baseUrl === null || (own !== undefined && withoutSecrets(own) === baseUrl)) return
  const mine = own === undefined ? 'that of OpenAI' : withoutSecrets(own)
  throw new Error(
    `Cannot work for run ${id}: its endpoint is ${baseUrl}, this worker has ${mine}; start it with --base-url ${baseUrl}`,
  )
}
