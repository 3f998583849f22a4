/**
 * A LLaVA model ready to run: compiled graphs over one set of weights.
 *
 *     encode    pixels → visual tokens                        once per view of a picture
 *     arrange   those of all its views → visual tokens        once per picture, where there are tiles
 *     prefill   a prompt with its visual tokens → logits      once per turn
 *     step      one more token per row → logits               once per token
 *
 * `prefill` and `step` are one graph, compiled twice only where a precision gives them weights of different forms (precision.ts). They read and
 * extend the same KV cache in place. Of a prompt only the last position's logits are computed.
 *
 * ONNX Runtime repacks weights when it compiles, on one thread, which takes seconds for each gigabyte. So a large language model is compiled while
 * the first picture is already being read. Where prompts have weights of their own, these are used as they lie in the file, and only the second token
 * of the first answer waits for `step`.
 */

import { basename, dirname } from 'node:path'
import { availableMemory } from 'node:process'
import type { Weights } from '../checkpoint/load.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { WeightSource } from '../model/weights.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run, type Session } from '../runtime/session.ts'
import { type Tensor, writeOnnx } from '../tensor/index.ts'
import { arrangeGraph, cacheName, encodeGraph, languageGraph } from './graphs.ts'
import { joined } from './joined.ts'
import { type CacheMemory, type CacheType, longestContext } from './kv-cache.ts'
import type { PictureCache } from './picture-cache.ts'
import { formOf, hasOneForm, isQuantized, type Precision, type Role } from './precision.ts'
import { type PromptPicture, placesOf } from './prompt.ts'
import { convertInMemory, readerOf, type SuppliedWeights } from './stored-weights.ts'
import { isCodesOfChannels, weightsIn } from './weight-forms.ts'

export type CompiledModel = {
  readonly config: LlavaConfig
  readonly weights: SuppliedWeights
  readonly precision: Precision
  readonly sessions: {
    readonly encode: Session
    readonly arrange: Session | undefined
    readonly prefill: Promise<Session>
    readonly step: Promise<Session>
  }
  readonly threads: number | undefined
  /** The most tokens of one conversation: the model's own limit, or what the memory set aside for the KV cache holds. */
  readonly context: number
  /** Bytes set aside for the KV cache, and how its numbers are kept. */
  readonly contextMemory: number
  readonly cacheType: CacheType
  /** Visual tokens [M, D] of the pictures last seen, by their keys. */
  readonly recentPictures: Map<string, Float32Array>
  /** Visual tokens on disk, where encoding takes long enough. */
  readonly pictureCache?: PictureCache | undefined
}

export type RunLimits = { signal?: AbortSignal | undefined }

/**
 * Compiles a model. Float32 weights are used where they are, not copied: leave them unchanged. In another precision they are converted first.
 *
 * @throws RangeError when `threads` is not 1 or more or the head size is not one that cached attention knows, Error when a weight is missing, `signal.reason` when the signal fires
 */
export async function compileModel(
  { config, weights }: { config: LlavaConfig; weights: Weights },
  options: CompileOptions & { precision?: Precision } = {},
): Promise<CompiledModel> {
  const { precision = 'f32', signal } = options
  expectHeadSize(config)
  signal?.throwIfAborted()
  const supplied: SuppliedWeights =
    precision === 'f32'
      ? new Map([...weights].map(([name, { shape, data }]) => [name, residentTensor('float32', shape, { data })]))
      : await convertInMemory(config, readerOf(weights), { precision, signal })
  return compileSupplied({ config, weights: supplied, precision }, options)
}

export type CompileOptions = RunLimits & {
  threads?: number | undefined
  /** Bytes that the KV cache of one conversation may take; half of the free memory when left out. */
  contextMemory?: number | undefined
  /** How the KV cache keeps its numbers; when left out, in float16 where float32 would not leave room for the whole context of the model. */
  cacheType?: CacheType | undefined
}

/** Compiles a model whose weights are already in the forms that the precision asks for. Errors: those of `compileModel`. */
export async function compileSupplied(
  { config, weights, precision }: { config: LlavaConfig; weights: SuppliedWeights; precision: Precision },
  options: CompileOptions = {},
): Promise<CompiledModel> {
  const { threads, signal, contextMemory = availableMemory() / 2 } = options
  expectHeadSize(config)
  signal?.throwIfAborted()
  const wholeFits =
    longestContext(config.language, { memory: contextMemory, type: 'float32' }) === config.language.context
  const cacheType = options.cacheType ?? (wholeFits ? 'float32' : 'float16')
  const parts = { config, weights, precision, threads, contextMemory, cacheType }
  const compile = (outputs: Readonly<Record<string, Tensor>>, name: string) =>
    compileGraph(outputs, { ...parts, name, repack: name !== 'prefill' || oneForm })
  const oneForm = hasOneForm(precision)
  const prefill = compile(languageGraph(config, weightSource(parts, 'prompt'), cacheType), 'prefill')
  prefill.catch(() => undefined) // whoever waits for it learns of the failure
  const compiled = await Promise.allSettled([
    compile(encodeGraph(config, weightSource(parts, 'encoder')), 'encode'),
    config.tiles && compile(arrangeGraph(config, weightSource(parts, 'encoder')), 'arrange'),
    oneForm && isQuantized(precision) ? undefined : prefill,
  ])
  const failed = compiled.find((result) => result.status === 'rejected')
  const [encode, arrange] = compiled.map((result) => (result.status === 'fulfilled' ? result.value : undefined))
  if (encode === undefined || failed !== undefined || signal?.aborted) {
    const late = await prefill.catch(() => undefined)
    for (const session of [encode, arrange, late]) if (session !== undefined) await disposeSession(session)
    disposeWeights(weights)
    signal?.throwIfAborted()
    throw failed?.reason
  }
  const step = oneForm ? prefill : compile(languageGraph(config, weightSource(parts, 'decoding'), cacheType), 'step')
  step.catch(() => undefined)
  const context = longestContext(config.language, { memory: contextMemory, type: cacheType })
  return { ...parts, context, sessions: { encode, arrange, prefill, step }, recentPictures: new Map() }
}

/** The weights as the graph of a role gets them. */
export function weightSource({ precision }: { precision: Precision }, role: Role): WeightSource {
  return weightsIn((weight) => formOf(weight, { precision, role }))
}

/**
 * Compiles one more graph over weights that are already there. Without `repack` it uses codes of whole channels as they lie, which takes no time
 * and no memory now and a little of both at each run.
 */
export async function compileGraph(
  outputs: Readonly<Record<string, Tensor>>,
  options: { name: string; weights: SuppliedWeights; threads: number | undefined; repack?: boolean },
): Promise<Session> {
  const { name, weights, threads, repack = true } = options
  const [folder] = [...weights.values()].flatMap((weight) => ('path' in weight ? [dirname(weight.path)] : []))
  const graph = writeOnnx(outputs, {
    parameters: (parameter) => (repack || !isCodesOfChannels(parameter) ? 'initializers' : 'replaceable'),
    name,
    files(parameter) {
      const part = weights.get(parameter)
      if (part === undefined || !('path' in part)) return undefined
      return { location: basename(part.path), offset: part.offset, length: part.bytes }
    },
  })
  const initializers: Record<string, ResidentTensor> = {}
  for (const parameter of graph.parameters) {
    const weight = weights.get(parameter.name)
    if (weight === undefined) throw new Error(`Cannot compile graph ${name}: weight ${parameter.name} is missing`)
    if (!('path' in weight)) initializers[parameter.name] = weight
  }
  return createSession(graph.model, {
    initializers,
    externalFolder: folder,
    keepConstants: graph.parameters.some(({ dtype }) => dtype === 'float16'),
    ...(threads !== undefined && { threads }),
  })
}

function expectHeadSize({ language: { headSize } }: LlavaConfig): void {
  if (headSize % 16 !== 0) {
    throw new RangeError(
      `Cannot compile the model: its attention heads have size ${headSize}, expected a multiple of 16`,
    )
  }
}

function disposeWeights(weights: SuppliedWeights): void {
  for (const weight of weights.values()) if (!('path' in weight)) disposeTensor(weight)
}

/** Waits until all graphs are compiled, which `compileSupplied` leaves to the background where it takes long. Errors: those of compiling. */
export async function whenCompiled({ sessions }: CompiledModel): Promise<void> {
  await Promise.all([sessions.prefill, sessions.step])
}

/** Frees a model after the runs that still use it. Safe to repeat. */
export async function disposeModel({ sessions, weights, pictureCache }: CompiledModel): Promise<void> {
  await pictureCache?.settled()
  const compiled = await Promise.allSettled(Object.values(sessions))
  const all = compiled.map((session) => (session.status === 'fulfilled' ? session.value : undefined))
  await Promise.all(all.map((session) => session && disposeSession(session)))
  disposeWeights(weights)
}

/** A picture's visual tokens [M, D] and where they stand. */
export type EncodedPicture = Pick<PromptPicture, 'start' | 'length'> & { readonly visualTokens: Float32Array }

/** Tokens that follow those in a cache of one row. */
export type Prefill = {
  readonly ids: Int32Array // [L], with a placeholder per visual token
  readonly pictures: readonly EncodedPicture[] // positions counted from the first of `ids`
  readonly cache: CacheMemory
  readonly past: number // tokens in the cache before
}

/** Reads tokens into the cache, after those that are in it: the logits [V] of what follows the last one. */
export async function prefill(
  { config, sessions }: CompiledModel,
  { ids, pictures, cache, past }: Prefill,
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  return runLanguageModel(sessions.prefill, {
    inputs: {
      ...sequenceInputs(config, { ids, pictures }),
      lastRows: residentTensor('int64', [1], { data: BigInt64Array.of(BigInt(ids.length - 1)) }),
      ...reach([past + ids.length]),
    },
    cache,
    signal,
  })
}

/** One more token per row: `ids` [B] follow `past` [B] tokens in the cache → logits [B, V], row after row. */
export async function step(
  { config, sessions }: CompiledModel,
  { ids, past, cache }: { ids: readonly number[]; past: readonly number[]; cache: CacheMemory },
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  return runLanguageModel(sessions.step, {
    inputs: {
      ids: residentTensor('int64', [ids.length, 1], { data: BigInt64Array.from(ids, BigInt) }),
      visualTokens: residentTensor('float32', [0, config.language.width]),
      places: residentTensor('int64', [0]),
      lastRows: residentTensor('int64', [ids.length], { data: BigInt64Array.from(ids, (_, row) => BigInt(row)) }),
      ...reach(past.map((length) => length + 1)),
    },
    cache,
    signal,
  })
}

/** Several tokens of one row, which follow `past` tokens in the cache: the logits [N, V] after each of them. */
export async function stepSeveral(
  { config, sessions }: CompiledModel,
  { ids, past, cache }: { ids: readonly number[]; past: number; cache: CacheMemory },
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  return runLanguageModel(sessions.step, {
    inputs: {
      ...sequenceInputs(config, { ids: Int32Array.from(ids), pictures: [] }),
      lastRows: residentTensor('int64', [ids.length], { data: BigInt64Array.from(ids, (_, row) => BigInt(row)) }),
      ...reach([past + ids.length]),
    },
    cache,
    signal,
  })
}

/** A sequence [1, L] and the visual tokens [M, D] of its pictures, as `mergedSequence` takes them. */
export function sequenceInputs(
  { language }: LlavaConfig,
  { ids, pictures }: { ids: Int32Array; pictures: readonly EncodedPicture[] },
): Record<'ids' | 'visualTokens' | 'places', ResidentTensor> {
  const tokens = joined(pictures.map(({ visualTokens }) => visualTokens)) // [M, D]
  const places = placesOf(pictures)
  return {
    // A placeholder need not be a token of the vocabulary: what is looked up for it gives way to the picture.
    ids: residentTensor('int64', [1, ids.length], { data: BigInt64Array.from(ids, (id) => BigInt(Math.max(0, id))) }),
    visualTokens: residentTensor('float32', [places.length, language.width], { data: tokens }),
    places: residentTensor('int64', [places.length], { data: places }),
  }
}

/** How far each row reaches after a call, as `cachedAttention` wants to be told. */
function reach(lengths: readonly number[]): Record<'lastIndex' | 'total', ResidentTensor> {
  return {
    lastIndex: residentTensor('int32', [lengths.length], { data: Int32Array.from(lengths, (length) => length - 1) }),
    total: residentTensor('int32', [], { data: Int32Array.of(Math.max(...lengths)) }),
  }
}

async function runLanguageModel(
  compiling: Promise<Session>,
  { inputs, cache, signal }: { inputs: Record<string, ResidentTensor>; cache: CacheMemory } & RunLimits,
): Promise<Float32Array> {
  const memory = cache.blocks.flatMap(({ key, value }, block) => [
    [cacheName('key', block), key] as const,
    [cacheName('value', block), value] as const,
  ])
  const outputs = Object.fromEntries(memory.map(([name, tensor]) => [`next:${name}`, tensor]))
  try {
    const session = await untilCompiled(compiling, signal)
    const options = { outputs, fetch: ['logits'], signal }
    return take(await run(session, { ...inputs, ...Object.fromEntries(memory) }, options), 'logits')
  } finally {
    Object.values(inputs).forEach(disposeTensor)
  }
}

/** Waits for a session, or throws `signal.reason` when the signal fires first: compiling cannot be stopped, waiting for it can. */
async function untilCompiled(compiling: Promise<Session>, signal: AbortSignal | undefined): Promise<Session> {
  signal?.throwIfAborted()
  let leave = () => {}
  const left = new Promise<never>((_, reject) => {
    leave = () => reject(signal?.reason)
    signal?.addEventListener('abort', leave, { once: true })
  })
  try {
    return await Promise.race([compiling, left])
  } finally {
    signal?.removeEventListener('abort', leave)
  }
}

/** An output's numbers; its tensor is freed. */
export function take(outputs: Readonly<Record<string, ResidentTensor>>, name: string): Float32Array {
  const tensor = outputs[name]
  if (!(tensor?.data instanceof Float32Array)) throw new Error(`Cannot read output ${name}: it is not there`)
  disposeTensor(tensor)
  return tensor.data
}
