/**
 * A context: what the language model has read so far, kept in a KV cache between turns.
 *
 * The next prompt usually begins with all that was read, so only its new tokens are computed. Going back is setting
 * the length: what lies behind it in the cache is never looked at again.
 */

import { cacheWithRoom } from './cache-room.ts'
import type { CompiledModel, RunLimits } from './compiled-model.ts'
import { encodePicture } from './encode-picture.ts'
import { type CacheMemory, cacheBytesPerToken, disposeCache } from './kv-cache.ts'
import { prefill, step, stepSeveral } from './language-calls.ts'
import type { EncodedPicture } from './language-inputs.ts'
import { gigabytes } from './precision.ts'
import { commonPrefix, countVisualTokens, type Prompt, type PromptPicture } from './prompt.ts'

export type GenerationContext = {
  readonly model: CompiledModel
  read: { readonly ids: number[]; readonly pictures: readonly PromptPicture[] } // what the cache holds
  cache: CacheMemory | undefined
  state: 'open' | 'busy' | 'closed'
  /** Where the context shares a cache with others (batch.ts). */
  readonly row?: SharedRow
}

export type SharedRow = {
  /** Runs `work` with the row's memory, made large enough for `tokens`, while nobody else uses the cache. */
  use<T>(tokens: number, work: (cache: CacheMemory) => Promise<T>): Promise<T>
  /** Reads one token together with those of other rows: the logits [V] of the next. */
  step(token: number, past: number, limits: RunLimits): Promise<Float32Array>
  release(): void
}

export type Reading = {
  readonly logits: Float32Array // [V], of what follows
  readonly reused: number // tokens that were in the cache already
  readonly imageMs: number
  readonly promptMs: number
}

/** An empty context. It takes memory when something is read; close it. */
export function openContext(model: CompiledModel): GenerationContext {
  return { model, read: { ids: [], pictures: [] }, cache: undefined, state: 'open' }
}

/** Frees the cache. Safe to repeat. Throws an Error while an answer is being generated. */
export function closeContext(context: GenerationContext): void {
  if (context.state === 'busy') throw new Error('Cannot close the context: it is generating, end that first')
  if (context.cache !== undefined) disposeCache(context.cache)
  if (context.state !== 'closed') context.row?.release()
  Object.assign(context, { cache: undefined, read: { ids: [], pictures: [] }, state: 'closed' })
}

/**
 * Reads a prompt, of which the cache may already hold the beginning.
 *
 * @throws RangeError when the prompt does not fit into the model's context, `signal.reason` when the signal fires: the
 *   context then stays usable and has read nothing more
 */
export async function readPrompt(
  context: GenerationContext,
  prompt: Prompt,
  { signal }: RunLimits = {},
): Promise<Reading> {
  const { model } = context
  expectFits(prompt, model)
  const reused = commonPrefix(context.read, prompt)
  const started = performance.now()
  const fresh = prompt.pictures.filter(({ start }) => start >= reused)
  const pictures: EncodedPicture[] = []
  for (const picture of fresh) {
    const visualTokens = await visualTokensOf(model, picture, { signal })
    pictures.push({ start: picture.start - reused, length: picture.length, visualTokens })
  }
  const encoded = performance.now()
  rewind(context, reused)
  const room = { tokens: prompt.ids.length, kept: reused }
  const ids = prompt.ids.subarray(reused)
  const read = (cache: CacheMemory) => prefill(model, { ids, pictures, cache, past: reused }, { signal })
  const logits = await (context.row?.use(room.tokens, read) ?? read(await roomFor(context, room)))
  context.read = { ids: [...prompt.ids], pictures: prompt.pictures }
  return { logits, reused, imageMs: encoded - started, promptMs: performance.now() - encoded }
}

/** Reads one token that follows all that was read: the logits [V] of the next. */
export async function readToken(
  context: GenerationContext,
  token: number,
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  const past = context.read.ids.length
  const alone = async () => {
    const cache = await roomFor(context, { tokens: past + 1, kept: past })
    return step(context.model, { ids: [token], past: [past], cache }, { signal })
  }
  const logits = await (context.row?.step(token, past, { signal }) ?? alone())
  context.read.ids.push(token)
  return logits
}

/**
 * Reads several tokens that follow all that was read: the logits [V] after each. `rewind` takes back those that turn out wrong. Only of a context with
 * a cache of its own.
 */
export async function readTokens(
  context: GenerationContext,
  tokens: readonly number[],
  { signal }: RunLimits = {},
): Promise<Float32Array[]> {
  if (context.row !== undefined) throw new Error('Cannot read several tokens at once: the context shares its cache')
  const past = context.read.ids.length
  const cache = await roomFor(context, { tokens: past + tokens.length, kept: past })
  const logits = await stepSeveral(context.model, { ids: tokens, past, cache }, { signal })
  context.read.ids.push(...tokens)
  const { vocabulary: V } = context.model.config.language
  return tokens.map((_, row) => logits.subarray(row * V, (row + 1) * V))
}

/** Forgets everything after the first `length` tokens. */
export function rewind(context: GenerationContext, length: number): void {
  const { ids, pictures } = context.read
  context.read = { ids: ids.slice(0, length), pictures: pictures.filter(({ start }) => start < length) }
}

/** @throws RangeError naming the length of the prompt and the context */
export function expectFits({ ids, pictures }: Prompt, { config, context, cacheType }: CompiledModel): void {
  if (ids.length === 0) throw new RangeError('Cannot generate: the prompt is empty, expected at least one token')
  if (ids.length < context) return
  const visual = countVisualTokens(pictures)
  const described = visual === 0 ? '' : ` (${visual} of them visual tokens)`
  const perToken = cacheBytesPerToken(config.language, cacheType)
  const limit =
    context === config.language.context
      ? `the context of ${context}`
      : `${context}: each takes ${gigabytes(perToken)} in the KV cache, for which ${gigabytes(perToken * context)} are set aside`
  throw new RangeError(`Cannot generate: the prompt has ${ids.length} tokens${described}, expected fewer than ${limit}`)
}

async function roomFor(context: GenerationContext, room: { tokens: number; kept: number }): Promise<CacheMemory> {
  const { cache, model } = context
  context.cache = await cacheWithRoom(model, { cache, ...room })
  return context.cache
}

/** Visual tokens of a picture, computed once as long as it is among the last few that the model saw, or kept on disk. */
async function visualTokensOf(
  model: CompiledModel,
  picture: PromptPicture,
  { signal }: RunLimits,
): Promise<Float32Array> {
  const { recentPictures: seen } = model
  const { key } = picture
  const tokens = seen.get(key) ?? (await keptTokens(model, picture, { signal }))
  seen.delete(key) // the latest goes to the end
  seen.set(key, tokens)
  for (const oldest of seen.keys()) {
    if (seen.size <= rememberedPictures) break
    seen.delete(oldest)
  }
  return tokens
}

async function keptTokens(model: CompiledModel, picture: PromptPicture, { signal }: RunLimits): Promise<Float32Array> {
  const { config, pictureCache } = model
  const shape = [picture.length, config.language.width] as const
  const kept = await pictureCache?.read(picture.key, shape)
  signal?.throwIfAborted()
  if (kept !== undefined) return kept
  const { visualTokens } = await encodePicture(model, picture, { signal })
  pictureCache?.write(picture.key, { shape, data: visualTokens })
  return visualTokens
}

const rememberedPictures = 16
