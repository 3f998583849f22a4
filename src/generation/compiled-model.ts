/**
 * A LLaVA model ready to run: three compiled graphs over one set of weights.
 *
 *     encode    pixels → visual tokens                        once per picture
 *     prefill   a prompt with its visual tokens → logits      once per turn
 *     step      one more token per row → logits               once per token
 *
 * `prefill` and `step` read and extend the same KV cache in place. Only the last position's logits are ever computed.
 */

import type { Weights } from '../checkpoint/load.ts'
import type { LlavaConfig } from '../model/config.ts'
import { type Context, languageModel, logits } from '../model/language-model.ts'
import { mergedSequence } from '../model/llava.ts'
import { project } from '../model/projector.ts'
import { patchFeatures } from '../model/vision-encoder.ts'
import { parameters, type WeightSource } from '../model/weights.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run, type Session } from '../runtime/session.ts'
import { type Dim, gatherRows, input, productOf, rows, type Tensor, writeOnnx } from '../tensor/index.ts'
import type { CacheMemory } from './kv-cache.ts'

export type CompiledModel = {
  readonly config: LlavaConfig
  readonly weights: ReadonlyMap<string, ResidentTensor<'float32'>>
  readonly sessions: { readonly encode: Session; readonly prefill: Session; readonly step: Session }
  readonly threads: number | undefined
  /** Visual tokens [P, D] of the pictures last seen, by their keys. */
  readonly recentPictures: Map<string, Float32Array>
}

export type RunLimits = { signal?: AbortSignal | undefined }

/**
 * Compiles a model. The weights are used where they are, not copied: leave them unchanged.
 *
 * @throws RangeError when `threads` is not 1 or more or the head size is not one that cached attention knows, Error when a weight is missing, `signal.reason` when the signal fires
 */
export async function compileModel(
  { config, weights }: { config: LlavaConfig; weights: Weights },
  { threads, signal }: RunLimits & { threads?: number | undefined } = {},
): Promise<CompiledModel> {
  const { headSize } = config.language
  if (headSize % 16 !== 0) {
    throw new RangeError(
      `Cannot compile the model: its attention heads have size ${headSize}, expected a multiple of 16`,
    )
  }
  signal?.throwIfAborted()
  const resident = new Map(
    [...weights].map(([name, { shape, data }]) => [name, residentTensor('float32', shape, { data })]),
  )
  const compile = (outputs: Readonly<Record<string, Tensor>>, name: string) =>
    compileGraph(outputs, { name, weights: resident, threads })
  const compiled = await Promise.allSettled([
    compile(encodeGraph(config), 'encode'),
    compile(prefillGraph(config), 'prefill'),
    compile(stepGraph(config), 'step'),
  ])
  const [encode, prefill, step] = compiled.map((result) => (result.status === 'fulfilled' ? result.value : undefined))
  if (encode === undefined || prefill === undefined || step === undefined || signal?.aborted) {
    for (const session of [encode, prefill, step]) if (session !== undefined) await disposeSession(session)
    for (const tensor of resident.values()) disposeTensor(tensor)
    signal?.throwIfAborted()
    throw compiled.find((result) => result.status === 'rejected')?.reason
  }
  return { config, weights: resident, sessions: { encode, prefill, step }, threads, recentPictures: new Map() }
}

/** Compiles one more graph over weights that are already there. */
export async function compileGraph(
  outputs: Readonly<Record<string, Tensor>>,
  { name, weights, threads }: { name: string; weights: CompiledModel['weights']; threads: number | undefined },
): Promise<Session> {
  const graph = writeOnnx(outputs, { parameters: 'initializers', name })
  const initializers = graph.parameters.map((parameter) => {
    const tensor = weights.get(parameter.name)
    if (tensor === undefined) throw new Error(`Cannot compile graph ${name}: weight ${parameter.name} is missing`)
    return [parameter.name, tensor] as const
  })
  return createSession(graph.model, {
    initializers: Object.fromEntries(initializers),
    ...(threads !== undefined && { threads }),
  })
}

/** Frees a model after the runs that still use it. Safe to repeat. */
export async function disposeModel({ sessions, weights }: CompiledModel): Promise<void> {
  await Promise.all(Object.values(sessions).map(disposeSession))
  for (const tensor of weights.values()) disposeTensor(tensor)
}

/** Visual tokens [P, D] of a picture from its pixels [3, S, S]; on request its patch features [P, C] too. */
export async function encodePicture(
  { config, sessions }: CompiledModel,
  pixels: Float32Array,
  { signal, features = false }: RunLimits & { features?: boolean } = {},
): Promise<{ visualTokens: Float32Array; patchFeatures: Float32Array | undefined }> {
  const { imageSide: S } = config.vision
  const given = residentTensor('float32', [1, 3, S, S], { data: pixels })
  const fetch = features ? ['visualTokens', 'patchFeatures'] : ['visualTokens']
  try {
    const result = await run(sessions.encode, { pixels: given }, { fetch, signal })
    return {
      visualTokens: take(result, 'visualTokens'),
      patchFeatures: features ? take(result, 'patchFeatures') : undefined,
    }
  } finally {
    disposeTensor(given)
  }
}

/** Tokens that follow those in a cache of one row. */
export type Prefill = {
  readonly ids: Int32Array // [L], with P placeholders per picture
  readonly pictures: readonly { readonly start: number; readonly visualTokens: Float32Array }[] // [P, D] each
  readonly cache: CacheMemory
  readonly past: number // tokens in the cache before
}

/** Reads tokens into the cache, after those that are in it: the logits [V] of what follows the last one. */
export async function prefill(
  { config, sessions }: CompiledModel,
  { ids, pictures, cache, past }: Prefill,
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  const { visualTokens: P, language } = config
  const places = new BigInt64Array(pictures.length * P)
  const tokens = new Float32Array(pictures.length * P * language.width)
  for (const [index, { start, visualTokens }] of pictures.entries()) {
    tokens.set(visualTokens, index * P * language.width)
    for (let i = 0; i < P; i++) places[index * P + i] = BigInt(start + i)
  }
  return runLanguageModel(sessions.prefill, {
    inputs: {
      ids: residentTensor('int64', [1, ids.length], { data: BigInt64Array.from(ids, BigInt) }),
      visualTokens: residentTensor('float32', [pictures.length, P, language.width], { data: tokens }),
      places: residentTensor('int64', [places.length], { data: places }),
      lastRows: residentTensor('int64', [1], { data: BigInt64Array.of(BigInt(ids.length - 1)) }),
      ...reach([past + ids.length]),
    },
    cache,
    signal,
  })
}

/** One more token per row: `ids` [B] follow `past` [B] tokens in the cache → logits [B, V], row after row. */
export async function step(
  { sessions }: CompiledModel,
  { ids, past, cache }: { ids: readonly number[]; past: readonly number[]; cache: CacheMemory },
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  return runLanguageModel(sessions.step, {
    inputs: {
      ids: residentTensor('int64', [ids.length, 1], { data: BigInt64Array.from(ids, BigInt) }),
      ...reach(past.map((length) => length + 1)),
    },
    cache,
    signal,
  })
}

/** How far each row reaches after a call, as `cachedAttention` wants to be told. */
function reach(lengths: readonly number[]): Record<'lastIndex' | 'total', ResidentTensor> {
  return {
    lastIndex: residentTensor('int32', [lengths.length], { data: Int32Array.from(lengths, (length) => length - 1) }),
    total: residentTensor('int32', [], { data: Int32Array.of(Math.max(...lengths)) }),
  }
}

async function runLanguageModel(
  session: Session,
  { inputs, cache, signal }: { inputs: Record<string, ResidentTensor>; cache: CacheMemory } & RunLimits,
): Promise<Float32Array> {
  const memory = cache.blocks.flatMap(({ key, value }, block) => [
    [cacheName('key', block), key] as const,
    [cacheName('value', block), value] as const,
  ])
  const outputs = Object.fromEntries(memory.map(([name, tensor]) => [`next:${name}`, tensor]))
  try {
    const options = { outputs, fetch: ['logits'], signal }
    return take(await run(session, { ...inputs, ...Object.fromEntries(memory) }, options), 'logits')
  } finally {
    Object.values(inputs).forEach(disposeTensor)
  }
}

/** An output's numbers; its tensor is freed. */
export function take(outputs: Readonly<Record<string, ResidentTensor>>, name: string): Float32Array {
  const tensor = outputs[name]
  if (!(tensor?.data instanceof Float32Array)) throw new Error(`Cannot read output ${name}: it is not there`)
  disposeTensor(tensor)
  return tensor.data
}

function encodeGraph(config: LlavaConfig): Record<string, Tensor> {
  const { imageSide: S } = config.vision
  const features = patchFeatures(config, parameters, input('pixels', 'float32', ['I', 3, S, S])) // [I, P, C]
  return { patchFeatures: features, visualTokens: project(config, parameters, features) } // [I, P, D]
}

function prefillGraph(config: LlavaConfig): Record<string, Tensor> {
  const ids = input('ids', 'int64', ['B', 'L'])
  const { visualTokens: P, language } = config
  const tokens = input('visualTokens', 'float32', ['I', P, language.width])
  const places = input('places', 'int64', [productOf(['I', P])])
  const lastRows = input('lastRows', 'int64', ['B'])
  const embeddings = mergedSequence(config, parameters, { ids, pictures: { tokens, places } }) // [B, L, D]
  return languageGraph(config, parameters, { embeddings, last: (hidden) => gatherRows(rows(hidden), lastRows) })
}

function stepGraph(config: LlavaConfig): Record<string, Tensor> {
  const embeddings = mergedSequence(config, parameters, { ids: input('ids', 'int64', ['B', 1]) }) // [B, 1, D]
  return languageGraph(config, parameters, { embeddings, last: rows })
}

/** Logits [B, V] of the rows that `last` takes from the hidden states [B, L, D], and the longer cache. */
function languageGraph(
  config: LlavaConfig,
  weights: WeightSource,
  { embeddings, last }: { embeddings: Tensor; last: (hidden: Tensor) => Tensor },
): Record<string, Tensor> {
  const { depth, keyValueHeads, headSize } = config.language
  const part = (kind: 'key' | 'value', block: number) =>
    input(cacheName(kind, block), 'float32', ['B', keyValueHeads, 'capacity' satisfies Dim, headSize])
  const context: Context = {
    kind: 'cached',
    caches: Array.from({ length: depth }, (_, block) => ({ key: part('key', block), value: part('value', block) })),
    lastIndex: input('lastIndex', 'int32', ['B']),
    total: input('total', 'int32', []),
  }
  const { hidden, caches } = languageModel(config.language, weights, { embeddings, context })
  const next = caches.flatMap(({ key, value }, block) => [
    [`next:${cacheName('key', block)}`, key] as const,
    [`next:${cacheName('value', block)}`, value] as const,
  ])
  return { logits: logits(config.language, weights, last(hidden)), ...Object.fromEntries(next) }
}

function cacheName(kind: 'key' | 'value', block: number): string {
  return `${kind}.${block}`
}
