/** `llava generate --queue`: the requests of a run go to workers on other machines, through a Redis server. */

import { randomBytes } from 'node:crypto'
import { readFile, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { writeFileAtomically } from '../checkpoint/atomic-file.ts'
import type { AnswerJournal } from '../instruction-data/answer-journal.ts'
import { checked, parseJson } from '../instruction-data/lines.ts'
import { queueFormat } from '../instruction-data/queue-format.ts'
import { connectQueueServer, type QueueAddress, queueAddress } from '../instruction-data/queue-server.ts'
import { openQueueTeacher, type QueueTeacher } from '../instruction-data/queue-teacher.ts'
import type { Teacher } from '../instruction-data/teacher.ts'
import type { CommandContext } from './context.ts'
import type { Run } from './generate-data.ts'
import { packageVersion } from './package-files.ts'
import { clearStatus, printable, quoted, writeLine } from './terminal.ts'

const queueSchema = z.object({ run: z.string().regex(/^[0-9a-f]{12}$/) })
/** In the folder of a run while requests of it may be with workers. */
const queueFile = 'queue.json'

const lookEveryMs = 5000
/** A worker that passes on from one run to the next needs a moment. */
const looksWithoutWorkers = 2

/** What `--queue` or the argument of `llava worker` names, or REDIS_URL. @throws RangeError when neither is an address */
export function addressOf(given: string | true | undefined): QueueAddress {
  return queueAddress(typeof given === 'string' ? given : (process.env.REDIS_URL ?? ''))
}

/** An address of an endpoint as it may lie on the server. */
export function withoutSecrets(address: string): string {
  const url = new URL(address)
  url.username = ''
  url.password = ''
  return url.href.replace(/\/$/, '')
}

/** @throws Error when requests of the run in the folder may be with workers */
export async function expectNoQueue(folder: string): Promise<void> {
  const path = join(folder, queueFile)
  if ((await readFile(path).catch(() => undefined)) === undefined) return
  throw new Error(
    `Cannot go on without --queue: requests of this run may be with workers; give --queue, or remove ${quoted(path)} to ask again for what they hold`,
  )
}

/** The teacher of a run behind its queue. While it is open, workers and outages are spoken of on standard error. */
export async function openQueue(
  { options, settings, baseUrl }: Run,
  { journal, context: { stderr } }: { journal: AnswerJournal; context: CommandContext },
): Promise<{ teacher: Teacher; close: () => Promise<void> }> {
  const { out, queue, rpm = null, tpm = null, timeout } = options
  const say = (line: string) => {
    clearStatus(stderr)
    writeLine(stderr, printable(line))
  }
  const server = await connectQueueServer(addressOf(queue), { onTrouble: tellsTrouble(say, () => server.shown) })
  try {
    if (!server.keeps) {
      say(
        `${server.shown} keeps nothing on its disk (appendonly no): a restart of it loses answers on their way to here`,
      )
    }
    const id = await runOf(out)
    const teacher = await openQueueTeacher(
      {
        id,
        format: queueFormat,
        version: await packageVersion(),
        model: settings.model,
        baseUrl: baseUrl === undefined ? null : withoutSecrets(baseUrl),
        requestsPerMinute: rpm,
        tokensPerMinute: tpm,
        timeoutMs: timeout * 1000,
      },
      { server, journal, leaveMs: timeout * 1000 + lookEveryMs },
    )
    say(`Run ${id} is on ${server.shown}; on each machine that is to ask: llava worker ${server.shown}`)
    const stopWatching = watchWorkers(teacher, { id, say })
    return {
      teacher,
      close: async () => {
        stopWatching()
        const left = await teacher.close()
        server.close()
        if (left === 0) await rm(join(out, queueFile), { force: true })
        else say(`${left ?? 'Some'} requests may still be with workers: the same command takes their answers in`)
      },
    }
  } catch (error) {
    server.close()
    throw error
  }
}

/** Says when a server goes away and when it is back. */
export function tellsTrouble(say: (line: string) => void, shown: () => string) {
  return (trouble: string | undefined) =>
    say(trouble === undefined ? `${shown()} is back` : `${trouble}: waiting for it`)
}

/** The id of the run in a folder, drawn when it first goes to a queue: two runs never share one. */
async function runOf(folder: string): Promise<string> {
  const path = join(folder, queueFile)
  const text = await readFile(path, 'utf8').catch(() => undefined)
  if (text !== undefined) return checked(queueSchema, { value: parseJson(text, path), where: path }).run
  const run = randomBytes(6).toString('hex')
  await writeFileAtomically(path, async (handle) => handle.writeFile(`${JSON.stringify({ run })}\n`))
  return run
}

/** Says when the last worker is gone and when the first one is there, and why one left. */
function watchWorkers(teacher: QueueTeacher, { id, say }: { id: string; say: (line: string) => void }): () => void {
  let [without, told] = [0, false]
  let departure: string | undefined
  const look = async () => {
    const [workers, latest] = await Promise.all([teacher.workers(), teacher.departure()])
    if (latest !== undefined && latest !== departure) say(`A worker left: ${latest}`)
    departure = latest
    without = workers === 0 ? without + 1 : 0
    if (without === looksWithoutWorkers) say(`No worker is there for run ${id}`)
    if (told && without === 0) say(`${workers} ${workers === 1 ? 'worker is' : 'workers are'} there`)
    told = without >= looksWithoutWorkers
  }
  const timer = setInterval(() => void look().catch(() => {}), lookEveryMs) // an outage is spoken of elsewhere
  return () => clearInterval(timer)
}
