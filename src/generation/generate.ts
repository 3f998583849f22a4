/** Answering: read the prompt, then choose, read and stream one token after the other until a stop rule applies. */

import { createTextStream } from '../conversation/text-stream.ts'
import type { Tokenizer } from '../conversation/tokenizer.ts'
import type { CompiledModel } from './compiled-model.ts'
import {
  closeContext,
  expectFits,
  type GenerationContext,
  openContext,
  readPrompt,
  readToken,
  readTokens,
  rewind,
} from './context.ts'
import { createLookup, type Lookup } from './lookup.ts'
import { countVisualTokens, type Prompt } from './prompt.ts'
import {
  checkSamplingOptions,
  chooseToken,
  expectNumber,
  type LogProbability,
  logProbabilities,
  type SamplingOptions,
  seededRandom,
} from './sampling.ts'
import { createStopFilter } from './stop.ts'

export type GenerationOptions = SamplingOptions & {
  /** Most tokens of the answer; as many as the context holds when left out. */
  maxTokens?: number | undefined
  /** Texts that end the answer; they are not part of it. */
  stop?: readonly string[] | undefined
  /** Log-probabilities of each token, and of this many of the most likely ones in its place. */
  logprobs?: number | undefined
  /**
   * Guesses tokens that were said before and reads them together, which is quicker where an answer quotes (lookup.ts); the answer is the same. On
   * unless it is `false`, but never in a batch.
   */
  lookup?: boolean | undefined
  /** Ends the answer where it is, also while the prompt is being read. */
  signal?: AbortSignal | undefined
}

export type GenerationSetting = {
  readonly tokenizer: Tokenizer
  /** Tokens that end the answer. */
  readonly stopTokens: readonly number[]
  /** Keeps what was read for the next turn; without one, everything is forgotten at the end. */
  readonly context?: GenerationContext | undefined
}

/** One generated token. */
export type Piece = {
  /** What became certain with it: often empty, never half a character, never a part of a stop string. */
  readonly text: string
  readonly token: number
  readonly logprob?: number
  readonly alternatives?: readonly LogProbability[]
}

export type FinishReason = 'stop' | 'length' | 'abort'

export type GenerationResult = {
  readonly finishReason: FinishReason
  readonly usage: {
    readonly promptTokens: number // visual tokens included
    readonly imageTokens: number
    readonly reusedTokens: number // of the prompt, read in an earlier turn
    readonly completionTokens: number // the stop token included
  }
  readonly timings: { readonly imageMs: number; readonly promptMs: number; readonly decodeMs: number }
}

/**
 * The answer to a prompt, token by token. The texts of all pieces add up to the answer.
 *
 * @returns why it ended, what it used and how long it took; a signal that fires ends it with `abort`, not with an error
 * @throws RangeError for an option out of range or a prompt that does not fit into the context, before any work; Error
 *   when the context is closed or already generating, or the model computes something that is no number
 */
export async function* generate(
  model: CompiledModel,
  prompt: Prompt,
  options: GenerationOptions & GenerationSetting,
): AsyncGenerator<Piece, GenerationResult> {
  checkOptions(options)
  expectFits(prompt, model)
  const { tokenizer, stopTokens, signal, logprobs, seed = Math.floor(Math.random() * 2 ** 32) } = options
  const { config } = model
  const room = model.context - prompt.ids.length
  const maxTokens = Math.min(options.maxTokens ?? room, room)
  const stream = createTextStream(tokenizer, { leadingSpace: 'trim' })
  const filter = createStopFilter(options.stop ?? [])
  const random = seededRandom(seed)
  const seen = new Set(prompt.ids.filter((id) => id !== config.imageToken))
  const usage = {
    promptTokens: prompt.ids.length,
    imageTokens: countVisualTokens(prompt.pictures),
    reusedTokens: 0,
    completionTokens: 0,
  }
  const timings = { imageMs: 0, promptMs: 0, decodeMs: 0 }
  const context = occupy(options.context ?? openContext(model))
  let reader: TokenReader | undefined
  try {
    const reading = await unlessAborted(readPrompt(context, prompt, { signal }), signal)
    if (reading === undefined) return { finishReason: 'abort', usage, timings }
    const { imageMs, promptMs, reused } = reading
    Object.assign(timings, { imageMs, promptMs })
    usage.reusedTokens = reused
    let { logits } = reading
    reader = tokenReader(context, { prompt, lookup: options.lookup ?? true, signal })
    while (true) {
      const token = chooseToken(logits, { options, seen, random })
      seen.add(token)
      usage.completionTokens++
      const { text, finishReason } = textOf(token)
      yield { text, token, ...(logprobs !== undefined && logProbabilities(logits, { token, count: logprobs })) }
      if (finishReason !== undefined) return { finishReason, usage, timings }
      const started = performance.now()
      const next = await unlessAborted(reader.read(token, { most: maxTokens - usage.completionTokens - 1 }), signal)
      timings.decodeMs += performance.now() - started
      if (next === undefined) return { finishReason: 'abort', usage, timings }
      logits = next
    }
  } finally {
    reader?.forget()
    release(context, { close: options.context === undefined })
  }

  /** The text that a token adds, and whether the answer ends with it. */
  function textOf(token: number): { text: string; finishReason: FinishReason | undefined } {
    const ends = stopTokens.includes(token)
    const { text, stopped } = filter.push(ends ? stream.flush() : stream.push(token))
    if (stopped) return { text, finishReason: 'stop' }
    if (ends) return { text: text + filter.flush(), finishReason: 'stop' }
    if (usage.completionTokens < maxTokens) return { text, finishReason: undefined }
    const rest = filter.push(stream.flush())
    return { text: text + rest.text + filter.flush(), finishReason: rest.stopped ? 'stop' : 'length' }
  }
}

type TokenReader = {
  /** Reads a token that was chosen: the logits [V] of the next. At most `most` tokens after that one are guessed. */
  read(token: number, limits: { most: number }): Promise<Float32Array>
  /** Takes back what was guessed and not chosen. */
  forget(): void
}

/** Most tokens that are guessed at once: more are wrong too often for what they cost in few bits (docs/experiments.md). */
const mostGuessed = 3

function tokenReader(
  context: GenerationContext,
  { prompt, lookup, signal }: { prompt: Prompt; lookup: boolean; signal: AbortSignal | undefined },
): TokenReader {
  if (!lookup || context.row !== undefined)
    return { read: (token) => readToken(context, token, { signal }), forget: () => {} }
  const known: Lookup = createLookup(prompt.ids, { never: [context.model.config.imageToken] })
  let guessed: { token: number; logits: Float32Array }[] = [] // read already, in case they are chosen
  const forget = () => {
    if (guessed.length > 0) rewind(context, context.read.ids.length - guessed.length)
    guessed = []
  }
  return {
    async read(token, { most }) {
      signal?.throwIfAborted() // also where nothing has to be computed
      known.push(token)
      const [next, ...rest] = guessed
      if (next?.token === token) {
        guessed = rest
        return next.logits
      }
      forget()
      const tokens = known.guess(Math.min(mostGuessed, most))
      if (tokens.length === 0) return readToken(context, token, { signal })
      const [logits, ...after] = await readTokens(context, [token, ...tokens], { signal })
      if (logits === undefined) throw new Error('The language model returned no logits')
      guessed = after.map((logits, i) => ({ token: tokens[i] ?? 0, logits }))
      return logits
    },
    forget,
  }
}

function checkOptions({ maxTokens, logprobs, ...options }: GenerationOptions): void {
  checkSamplingOptions(options)
  const whole = (least: number) => ({
    expected: `a whole number from ${least} up`,
    holds: (value: number) => Number.isInteger(value) && value >= least,
  })
  expectNumber('maxTokens', maxTokens, whole(1))
  expectNumber('logprobs', logprobs, whole(0))
}

function occupy(context: GenerationContext): GenerationContext {
  if (context.state !== 'open') {
    const found = context.state === 'busy' ? 'it is generating already' : 'it is closed'
    throw new Error(`Cannot generate in this context: ${found}`)
  }
  context.state = 'busy'
  return context
}

function release(context: GenerationContext, { close }: { close: boolean }): void {
  context.state = 'open'
  if (close) closeContext(context)
}

/** The promise's value, or undefined when the signal ended it. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T | undefined> {
  try {
    return await promise
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return undefined
    throw error
  }
}
