/**
 * What a run asked and was answered, in a file that is only ever added to. Whatever kills the process, an answer that was noted is found again, and its
 * request is never sent a second time.
 *
 * Events: `sent` before a request that costs something leaves; `answer`, on the disk before it counts; `failed` when an attempt came to nothing;
 * `dropped` when a request was given up, for good or for this run. A line that a kill left half-written is cut off.
 */

import { constants } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { z } from 'zod'
import { checked, isFull, parseJson } from './lines.ts'
import type { TeacherAnswer, TokenUsage } from './teacher.ts'

const usage = z.object({ input: z.number(), output: z.number() })
const answerSchema = z.object({
  event: z.literal('answer'),
  key: z.string(),
  text: z.string(),
  finish: z.string(),
  usage,
  id: z.string().exactOptional(),
  model: z.string().exactOptional(),
  at: z.string(), // when it came, ISO 8601
  attempts: z.number(), // how many this process sent for it
})
const eventSchema = z.discriminatedUnion('event', [
  z.object({ event: z.literal('sent'), key: z.string(), usage /* at most, as estimated */ }),
  answerSchema,
  z.object({ event: z.literal('failed'), key: z.string(), reason: z.string(), usage: usage.exactOptional() }),
  z.object({ event: z.literal('dropped'), key: z.string(), reason: z.string(), final: z.boolean() }),
])
export type StoredAnswer = z.infer<typeof answerSchema>
export type JournalEvent = z.infer<typeof eventSchema>

/** An answer that came just now, as it is noted. */
export function storedAnswer(
  key: string,
  { answer, attempts }: { answer: TeacherAnswer; attempts: number },
): StoredAnswer {
  const { text, finish, usage, id, model } = answer
  const about = { ...(id !== undefined && { id }), ...(model !== undefined && { model }) }
  return { event: 'answer', key, text, finish, usage, ...about, at: new Date().toISOString(), attempts }
}

export type AnswerJournal = {
  /** Whether a request was answered, in any run so far. */
  readonly has: (key: string) => boolean
  readonly read: (key: string) => Promise<StoredAnswer | undefined>
  /** Why a request was given up for good. */
  readonly dropped: (key: string) => string | undefined
  /** Resolves for an answer when it is on the disk, for other events when the system has them: a killed process leaves them readable. */
  readonly add: (event: JournalEvent) => Promise<void>
  /** Tokens of all answers and of failed attempts that cost something. */
  readonly spent: () => TokenUsage
  /** Tokens, as estimated, of requests that were sent and never heard of again: a kill came between. They may have been charged. */
  readonly lost: () => TokenUsage & { readonly requests: number }
  readonly answers: () => number
  readonly close: () => Promise<void>
}

/** What the events so far come down to. */
type State = {
  /** Where the line of an answer begins, in bytes. */
  readonly places: Map<string, number>
  readonly drops: Map<string, string>
  readonly sent: Map<string, TokenUsage>
  input: number
  output: number
}

const pieceLength = 1 << 16 // bytes
const mostBlocks = 64 // of that length, kept in memory
const newline = 0x0a

/**
 * Opens the journal at `path`, or begins one. One process at a time.
 * @param durable whether answers are waited for until they are on the disk; without it they survive the process, not a power failure
 * @throws SyntaxError when a line that is not the last one is no event
 */
export async function openJournal(
  path: string,
  { durable = true }: { durable?: boolean } = {},
): Promise<AnswerJournal> {
  const handle = await open(path, constants.O_RDWR | constants.O_CREAT, 0o644)
  const state: State = { places: new Map(), drops: new Map(), sent: new Map(), input: 0, output: 0 }
  const size = await replay(handle, { path, state }).catch(async (error) => {
    await handle.close()
    throw error
  })
  await handle.truncate(size)
  const { append, written } = appender(handle, { path, size })
  const lineAt = lineReader(handle, written)
  return {
    has: (key) => state.places.has(key),
    read: async (key) => {
      const offset = state.places.get(key)
      if (offset === undefined) return undefined
      return parseJson(await lineAt(offset), `${path}, byte ${offset}`) as StoredAnswer // it was checked when it was noted
    },
    dropped: (key) => state.drops.get(key),
    add: async (event) => {
      const offset = await append(`${JSON.stringify(event)}\n`, { durable: durable && event.event === 'answer' })
      note(state, { event, offset })
    },
    spent: () => ({ input: state.input, output: state.output }),
    lost: () => {
      const all = [...state.sent.values()]
      const sum = (of: keyof TokenUsage) => all.reduce((total, one) => total + one[of], 0)
      return { requests: all.length, input: sum('input'), output: sum('output') }
    },
    answers: () => state.places.size,
    close: () => handle.close(),
  }
}

/** Adds text at the end of a file and resolves to where it begins. Texts that come while one is being written share one fsync. */
function appender(handle: FileHandle, { path, size }: { path: string; size: number }) {
  type Waiting = { bytes: Buffer; durable: boolean; done: () => void; fail: (error: unknown) => void }
  let waiting: Waiting[] = []
  let written = size
  let end = size // with all that waits
  let writing = false
  let failure: { error: unknown } | undefined // nobody knows then what is on the disk: the next opening finds out

  async function write(lot: readonly Waiting[]): Promise<void> {
    const bytes = Buffer.concat(lot.map((one) => one.bytes))
    for (let from = 0; from < bytes.length; ) {
      from += (await handle.write(bytes, from, bytes.length - from, written + from)).bytesWritten
    }
    if (lot.some((one) => one.durable)) await handle.datasync()
    written += bytes.length
  }

  async function writeAll(): Promise<void> {
    writing = true
    while (waiting.length > 0) {
      const lot = waiting
      waiting = []
      try {
        if (failure !== undefined) throw failure.error
        await write(lot)
        for (const { done } of lot) done()
      } catch (error) {
        failure ??= { error: unwritable(path, error) }
        for (const { fail } of lot) fail(failure.error)
      }
    }
    writing = false
  }

  async function append(text: string, { durable }: { durable: boolean }): Promise<number> {
    const bytes = Buffer.from(text)
    const offset = end
    end += bytes.length
    await new Promise<void>((done, fail) => {
      waiting.push({ bytes, durable, done, fail })
      if (!writing) void writeAll()
    })
    return offset
  }
  return { append, written: () => written }
}

function unwritable(path: string, error: unknown): Error {
  const reason = isFull(error) ? 'no space left on the device' : error instanceof Error ? error.message : String(error)
  return new Error(`Cannot keep an answer in ${path}: ${reason}; all that came before are kept`, { cause: error })
}

/** Reads all events; returns where the last complete line ends. */
async function replay(handle: FileHandle, { path, state }: { path: string; state: State }): Promise<number> {
  const piece = Buffer.alloc(1 << 20)
  let [line, end, read] = [0, 0, 0]
  let begun: Buffer[] = [] // of a line that the pieces so far do not end
  for (;;) {
    const { bytesRead } = await handle.read(piece, 0, piece.length, read)
    if (bytesRead === 0) return end
    read += bytesRead
    let from = 0
    for (let at = piece.indexOf(newline); at >= 0 && at < bytesRead; at = piece.indexOf(newline, from)) {
      const text = Buffer.concat([...begun, piece.subarray(from, at)]).toString('utf8')
      const where = `${path}, line ${++line}`
      note(state, { event: checked(eventSchema, { value: parseJson(text, where), where }), offset: end })
      begun = []
      from = at + 1
      end = read - bytesRead + from
    }
    begun.push(Buffer.from(piece.subarray(from, bytesRead)))
  }
}

function note(state: State, { event, offset }: { event: JournalEvent; offset: number }): void {
  const { key } = event
  if (event.event === 'sent') {
    state.sent.set(key, event.usage)
    return
  }
  state.sent.delete(key)
  if (event.event === 'answer') state.places.set(key, offset)
  if (event.event === 'dropped' && event.final) state.drops.set(key, event.reason)
  if (event.event === 'dropped') return
  state.input += event.usage?.input ?? 0
  state.output += event.usage?.output ?? 0
}

/**
 * A function that reads the line beginning at a byte. Answers lie about in the order in which they are asked for again: blocks are kept for the lines that
 * follow, unless they reach beyond the bytes that are `written` and may still grow.
 */
function lineReader(handle: FileHandle, written: () => number): (offset: number) => Promise<string> {
  const blocks = new Map<number, Promise<Buffer>>()

  async function readBlock(index: number): Promise<Buffer> {
    const block = Buffer.alloc(pieceLength)
    const { bytesRead } = await handle.read(block, 0, pieceLength, index * pieceLength)
    return block.subarray(0, bytesRead)
  }

  function blockAt(index: number): Promise<Buffer> {
    const known = blocks.get(index)
    if (known !== undefined) return known
    const block = readBlock(index)
    if ((index + 1) * pieceLength > written()) return block
    block.catch(() => blocks.delete(index))
    blocks.set(index, block)
    const [oldest] = blocks.keys()
    if (blocks.size > mostBlocks && oldest !== undefined) blocks.delete(oldest)
    return block
  }

  return async (offset) => {
    const parts: Buffer[] = []
    for (let at = offset; ; ) {
      const block = await blockAt(Math.floor(at / pieceLength))
      const rest = block.subarray(at % pieceLength)
      const end = rest.indexOf(newline)
      if (end >= 0 && parts.length === 0) return rest.toString('utf8', 0, end)
      parts.push(end < 0 ? rest : rest.subarray(0, end))
      if (end >= 0 || block.length < pieceLength) return Buffer.concat(parts).toString('utf8')
      at += rest.length
    }
  }
}
