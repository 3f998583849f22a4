/** The library's front door: load a model folder, ask about pictures, converse, look inside. */

import { tokenizeConversation } from './conversation/tokenize.ts'
import { assistantTurn, systemTurn, type Turn, userTurn } from './conversation/turns.ts'
import { type CompiledModel, disposeModel } from './generation/compiled-model.ts'
import { closeContext, type GenerationContext, openContext } from './generation/context.ts'
import { findModel } from './generation/find-model.ts'
import {
  type FinishReason,
  type GenerationOptions,
  type GenerationResult,
  generate,
  type Piece,
} from './generation/generate.ts'
import { type ModelFolder, readModelParts } from './generation/model-folder.ts'
import { type OpenModelOptions, openModel } from './generation/open-model.ts'
import type { PrecisionChoice } from './generation/precision.ts'
import { makePrompt, type Prompt } from './generation/prompt.ts'
import { type ShownPicture, showPicture } from './generation/shown-picture.ts'
import { trace as traceModel } from './generation/trace.ts'
import type { Values } from './generation/uncached.ts'
import { decodeImage, type ImageSource } from './image/decode.ts'
import type { LlavaConfig } from './model/config.ts'
import type { Device } from './runtime/device.ts'

export type Question = {
  readonly question: string
  /** A path, a file URL, the bytes of an encoded picture, or pixels. */
  readonly image?: ImageSource | undefined
  /** Several pictures, in the order in which the question speaks of them; none is fine. */
  readonly images?: readonly ImageSource[] | undefined
}

export type AskOptions = Question & GenerationOptions & { readonly system?: string | undefined }

export type Answer = {
  readonly answer: string
  readonly usage: GenerationResult['usage']
  readonly timings: GenerationResult['timings']
  readonly finishReason: FinishReason
}

export type Conversation = {
  /** The turns so far. A turn that was aborted stays with what was said; one without any answer is taken back. */
  readonly history: readonly Turn[]
  /** Asks the next question; streams the answer. What was read before is not computed again. */
  say(question: Question & GenerationOptions): AsyncGenerator<string, Answer>
  /** Forgets all turns. */
  clear(): void
  /** Frees the memory of the turns. Afterwards nothing more can be said. */
  dispose(): void
}

/** A loaded model. Free it with `dispose` or `await using`. */
export type Llava = {
  readonly config: LlavaConfig
  readonly device: Device
  /** In how many bits the weights are kept, and why. */
  readonly precision: PrecisionChoice
  /** The answer as pieces of text while they are generated; a piece never ends within a character. */
  answer(options: AskOptions): AsyncGenerator<string, Answer>
  /** The answer token by token, with log-probabilities on request (`logprobs`). */
  pieces(options: AskOptions): AsyncGenerator<Piece, GenerationResult>
  /** The whole answer at once, with what it used and how long it took. */
  ask(options: AskOptions): Promise<Answer>
  /** Several turns about the same pictures. */
  conversation(options?: { readonly system?: string | undefined }): Conversation
  /** Named intermediates of reading a question, from pixels to logits (see `generation/trace.ts`). */
  trace(
    options: Question & { readonly system?: string | undefined; readonly signal?: AbortSignal | undefined },
  ): Promise<Map<string, Values>>
  /** Frees the model after what is still running. Safe to repeat. */
  dispose(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export type LoadOptions = OpenModelOptions

export const Llava = {
  /**
   * Loads a model: the name of an embedded one (`picturebook`, the default), the folder of a Hugging Face checkpoint, or ORG/NAME
   * of one that was fetched before (`llava pull`).
   *
   * @throws Error when there is no such model or a file of it is missing, SyntaxError, TypeError or RangeError when one
   *   is corrupt; always one sentence that names it. `signal.reason` when the signal fires
   */
  async load(nameOrFolder = 'picturebook', options: LoadOptions = {}): Promise<Llava> {
    const { signal } = options
    signal?.throwIfAborted()
    const path = await findModel(nameOrFolder)
    const folder = await readModelParts(path, { signal })
    const { model, choice } = await openModel({ folder: path, config: folder.config }, options)
    return open({ model, folder }, choice)
  },
}

/** The public object over a compiled model. */
function open(parts: Parts, precision: PrecisionChoice): Llava {
  const { model } = parts
  const { config, device } = model
  let disposal: Promise<void> | undefined
  const dispose = () => {
    disposal ??= disposeModel(model)
    return disposal
  }
  const pieces = async function* (options: AskOptions): AsyncGenerator<Piece, GenerationResult> {
    const asked = await firstTurn(parts, options)
    if (asked.aborted) return nothingSaid
    return yield* generatePieces(parts, { ...asked, options })
  }
  const answer = (options: AskOptions) => texts(pieces(options))
  return {
    config,
    device,
    precision,
    answer,
    pieces,
    ask: (options) => lastValue(answer(options)),
    conversation: (options = {}) => openConversation(parts, options),
    async trace(options) {
      const { turns, pictures } = await firstTurn(parts, options)
      options.signal?.throwIfAborted()
      return traceModel(model, promptOf(parts, { turns, pictures }), { signal: options.signal })
    },
    dispose,
    [Symbol.asyncDispose]: dispose,
  }
}

type Parts = { readonly model: CompiledModel; readonly folder: Omit<ModelFolder, 'weights'> }

function openConversation(parts: Parts, { system }: { readonly system?: string | undefined }): Conversation {
  const start = system === undefined ? [] : [systemTurn(system)]
  const context = openContext(parts.model)
  let history: readonly Turn[] = start
  let pictures: readonly ShownPicture[] = []
  return {
    get history() {
      return history
    },
    async *say(options) {
      const asked = await questionTurn(parts, options)
      const turns = [...history, asked.turn]
      const shown = [...pictures, ...asked.pictures]
      if (asked.aborted) return nothing
      const stream = texts(generatePieces(parts, { ...asked, turns, pictures: shown, options, context }))
      let said = ''
      try {
        for (let next = await stream.next(); ; next = await stream.next()) {
          if (next.done) return next.value
          said += next.value
          yield next.value
        }
      } finally {
        await stream.return(nothing)
        if (said.trim() !== '') {
          history = [...turns, assistantTurn(said)]
          pictures = shown
        }
      }
    },
    clear() {
      history = start
      pictures = []
    },
    dispose: () => closeContext(context),
  }
}

/** What is asked and its pictures; `aborted` when the signal fired while they were read. */
type Asked<T> = T & {
  readonly pictures: readonly ShownPicture[]
  readonly preparingMs: number
  readonly aborted: boolean
}

async function firstTurn(
  parts: Parts,
  options: Question & { system?: string | undefined; signal?: AbortSignal | undefined },
): Promise<Asked<{ turns: readonly Turn[] }>> {
  const { turn, ...rest } = await questionTurn(parts, options)
  return { ...rest, turns: options.system === undefined ? [turn] : [systemTurn(options.system), turn] }
}

/** The question as a turn in which `<image>` is text like any other: pictures are parts of their own. */
async function questionTurn(
  { folder }: Parts,
  { question, image, images = [], signal }: Question & { signal?: AbortSignal | undefined },
): Promise<Asked<{ turn: Turn }>> {
  if (typeof question !== 'string') {
    throw new TypeError(`Cannot ask: question is of type ${typeof question}, expected a string`)
  }
  if (question.trim() === '') throw new RangeError('Cannot ask: the question is empty, expected text')
  const sources = image === undefined ? images : [image, ...images]
  const turn = userTurn(question, { images: sources.length })
  const started = performance.now()
  const pictures: ShownPicture[] = []
  try {
    for (const source of sources) {
      const picture = await decodeImage(source, signal === undefined ? {} : { signal })
      pictures.push(showPicture(picture, folder))
    }
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return { turn, pictures, preparingMs: 0, aborted: true }
    throw error
  }
  return { turn, pictures, preparingMs: performance.now() - started, aborted: signal?.aborted ?? false }
}

const nothingSaid: GenerationResult = {
  finishReason: 'abort',
  usage: { promptTokens: 0, imageTokens: 0, reusedTokens: 0, completionTokens: 0 },
  timings: { imageMs: 0, promptMs: 0, decodeMs: 0 },
}
const nothing: Answer = { answer: '', ...nothingSaid }

type Asking = { turns: readonly Turn[]; pictures: readonly ShownPicture[] }

function promptOf({ folder }: Parts, { turns, pictures }: Asking): Prompt {
  const { config, template, tokenizer } = folder
  const { imageToken } = config
  const tokenized = tokenizeConversation(turns, { template, tokenizer, imageToken, generationPrompt: true })
  return makePrompt(tokenized, { pictures: pictures.map((show) => show(pictures.length)), config })
}

/** Generates with the folder's stop rules and defaults; the time that pictures took includes reading them. */
async function* generatePieces(
  parts: Parts,
  {
    options,
    context,
    preparingMs,
    ...asking
  }: Asking & { options: GenerationOptions; preparingMs: number; context?: GenerationContext },
): AsyncGenerator<Piece, GenerationResult> {
  const { tokenizer, stopTokens, stop, defaults } = parts.folder
  const given = Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined))
  const result = yield* generate(parts.model, promptOf(parts, asking), {
    maxTokens: longestAnswer,
    ...defaults,
    ...given,
    stop: [...stop, ...(options.stop ?? [])],
    tokenizer,
    stopTokens,
    context,
  })
  return { ...result, timings: { ...result.timings, imageMs: result.timings.imageMs + preparingMs } }
}

/** Tokens, where neither the question nor generation_config.json says otherwise. */
const longestAnswer = 512

async function* texts(pieces: AsyncGenerator<Piece, GenerationResult>): AsyncGenerator<string, Answer> {
  let answer = ''
  try {
    for (let next = await pieces.next(); ; next = await pieces.next()) {
      if (next.done) return { answer, ...next.value }
      answer += next.value.text
      if (next.value.text !== '') yield next.value.text
    }
  } finally {
    await pieces.return(nothingSaid)
  }
}

async function lastValue<T>(generator: AsyncGenerator<unknown, T>): Promise<T> {
  for (let next = await generator.next(); ; next = await generator.next()) if (next.done) return next.value
}
