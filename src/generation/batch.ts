/**
 * Batched generation: several conversations over one cache, whose next tokens are computed in one step.
 *
 * Reading the weights is what a token costs, and a step reads them once for all rows. Rows join and leave at any time: a step takes whatever tokens
 * are waiting when it begins. A row is a context like any other; `generate` does not know that it shares the model.
 */

import { cacheWithRoom, leadingRows, rowsOfStep, withRow } from './cache-room.ts'
import type { CompiledModel } from './compiled-model.ts'
import { type GenerationContext, openContext } from './context.ts'
import { type CacheMemory, cacheBytesPerToken, disposeCache } from './kv-cache.ts'
import { step } from './language-calls.ts'

export type Batch = {
  /** For `generate`: the model, with the context that each of the rows can have. */
  readonly model: CompiledModel
  readonly rows: number
  readonly [stateKey]: State
}

const stateKey: unique symbol = Symbol('state')

type Waiting = {
  readonly token: number
  readonly past: number
  readonly resolve: (logits: Float32Array) => void
  readonly reject: (reason: unknown) => void
}

type State = {
  cache: CacheMemory | undefined
  /** By row; undefined where a row is free. */
  readonly contexts: (GenerationContext | undefined)[]
  /** The tokens that wait for the next step, by row. */
  readonly waiting: Map<number, Waiting>
  scheduled: boolean
  /** Whatever uses the cache does so after all that came before. */
  last: Promise<unknown>
  closed: boolean
}

/**
 * A batch without conversations. It takes memory when something is read; close it.
 *
 * @throws RangeError when `rows` is not 1 or more
 */
export function openBatch(model: CompiledModel, { rows }: { rows: number }): Batch {
  if (!Number.isInteger(rows) || rows < 1) {
    throw new RangeError(`Cannot open a batch of ${rows} rows: expected a whole number from 1 up`)
  }
  const perToken = cacheBytesPerToken(model.config.language, model.cacheType)
  const context = Math.min(model.context, Math.floor(model.contextMemory / rows / perToken))
  const contexts = Array.from({ length: rows }, () => undefined)
  const state: State = {
    cache: undefined,
    contexts,
    waiting: new Map(),
    scheduled: false,
    last: Promise.resolve(),
    closed: false,
  }
  return { model: { ...model, context }, rows, [stateKey]: state }
}

/** How many conversations could join. */
export function freeRows({ rows, [stateKey]: { contexts } }: Batch): number {
  return rows - contexts.filter((context) => context !== undefined).length
}

/**
 * An empty context on a free row: the way to join. `closeContext` is the way to leave.
 *
 * @throws Error when the batch is closed or all rows are taken
 */
export function openRow(batch: Batch): GenerationContext {
  const state = batch[stateKey]
  if (state.closed) throw new Error('Cannot join the batch: it is closed')
  const row = Array.from(state.contexts).indexOf(undefined)
  if (row < 0) throw new Error(`Cannot join the batch: all ${batch.rows} rows are taken`)
  const context: GenerationContext = {
    ...openContext(batch.model),
    row: {
      use: (tokens, work) =>
        exclusively(state, async () => withRow(batch.model, { cache: await cacheFor(batch, tokens), row }, work)),
      step: (token, past, { signal }) => submit(batch, { row, token, past, signal }),
      release: () => {
        state.contexts[row] = undefined
      },
    },
  }
  state.contexts[row] = context
  return context
}

/** Frees the cache once what is under way has ended. Contexts of its rows cannot be used any more. Safe to repeat. */
export async function closeBatch({ [stateKey]: state }: Batch): Promise<void> {
  state.closed = true
  await exclusively(state, async () => {
    if (state.cache !== undefined) disposeCache(state.cache)
    state.cache = undefined
  })
}

/** Runs `work` when everything before it has ended: a prompt and a step must not write to the cache at the same time. */
function exclusively<T>(state: State, work: () => Promise<T>): Promise<T> {
  const result = state.last.then(work)
  state.last = result.catch(() => undefined)
  return result
}

/** The batch's memory with room for `tokens` positions in each row. What it holds is kept whole: other rows are in the middle of something. */
async function cacheFor({ model, rows, [stateKey]: state }: Batch, tokens: number): Promise<CacheMemory> {
  const { cache } = state
  state.cache = await cacheWithRoom(model, { cache, tokens, kept: cache?.capacity ?? 0, batch: rows })
  return state.cache
}

/** Waits for the next step. A signal ends the waiting, not the step, which others wait for too. */
function submit(
  batch: Batch,
  { row, token, past, signal }: { row: number; token: number; past: number; signal: AbortSignal | undefined },
): Promise<Float32Array> {
  const state = batch[stateKey]
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason)
    const leave = () => {
      if (state.waiting.get(row) === entry) state.waiting.delete(row)
      reject(signal?.reason)
    }
    const entry: Waiting = {
      token,
      past,
      resolve(logits) {
        signal?.removeEventListener('abort', leave)
        resolve(logits)
      },
      reject(reason) {
        signal?.removeEventListener('abort', leave)
        reject(reason)
      },
    }
    signal?.addEventListener('abort', leave, { once: true })
    state.waiting.set(row, entry)
    schedule(batch)
  })
}

function schedule(batch: Batch): void {
  const state = batch[stateKey]
  if (state.scheduled) return
  state.scheduled = true
  void exclusively(state, async () => {
    // The rows of the last step go on at about the same time: one turn of the event loop lets them all hand in their tokens.
    await new Promise((resolve) => setImmediate(resolve))
    state.scheduled = false
    await stepTogether(batch)
  })
}

async function stepTogether(batch: Batch): Promise<void> {
  const state = batch[stateKey]
  const entries = [...state.waiting]
  state.waiting.clear()
  if (entries.length === 0) return
  try {
    if (state.closed) throw new Error('Cannot go on generating: the batch is closed')
    const waiting = new Map(entries)
    const count = rowsOfStep(batch.model, { last: Math.max(...waiting.keys()), all: batch.rows })
    // A row without a waiting token reads one all the same, behind what it holds, where its next one overwrites it.
    const rows = Array.from({ length: count }, (_, row) => {
      return waiting.get(row) ?? { token: 0, past: state.contexts[row]?.read.ids.length ?? 0 }
    })
    const cache = await cacheFor(batch, Math.max(...rows.map(({ past }) => past + 1)))
    const logits = await step(batch.model, {
      ids: rows.map(({ token }) => token),
      past: rows.map(({ past }) => past),
      cache: leadingRows(cache, count),
    })
    const V = batch.model.config.language.vocabulary
    for (const [row, { resolve }] of entries) resolve(logits.slice(row * V, (row + 1) * V))
  } catch (error) {
    for (const [, { reject }] of entries) reject(error)
  }
}
