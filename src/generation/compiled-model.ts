/**
 * A LLaVA model ready to run: compiled graphs over one set of weights.
 *
 *     encode    pixels → visual tokens                        once per view of a picture
 *     arrange   those of all its views → visual tokens        once per picture, where there are tiles
 *     prefill   a prompt with its visual tokens → logits      once per turn
 *     step      one more token per row → logits               once per token
 *
 * `prefill` and `step` are one graph, compiled twice only where a precision gives them weights of different forms (precision.ts). They read and
 * extend the same KV cache in place. Only the last position's logits are ever computed.
 */

import { basename, dirname } from 'node:path'
import { availableMemory } from 'node:process'
import type { Weights } from '../checkpoint/load.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { WeightSource } from '../model/weights.ts'
import { type Compute, type Device, operatorsOf } from '../runtime/device.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run, type Session } from '../runtime/session.ts'
import { type Tensor, writeOnnx } from '../tensor/index.ts'
import { closeDeviceCaches, type DeviceCaches, openDeviceCaches } from './device-cache.ts'
import { arrangeGraph, cacheName, encodeGraph, languageGraph } from './graphs.ts'
import { joined } from './joined.ts'
import { type CacheMemory, type CacheType, longestContext } from './kv-cache.ts'
import { formOf, hasOneForm, type Precision, type Role } from './precision.ts'
import { type PromptPicture, partOf, placesOf } from './prompt.ts'
import { convertInMemory, readerOf, type SuppliedWeights } from './stored-weights.ts'
import { weightsIn } from './weight-forms.ts'

export type CompiledModel = {
  readonly config: LlavaConfig
  readonly weights: SuppliedWeights
  readonly precision: Precision
  readonly sessions: {
    readonly encode: Session
    readonly arrange: Session | undefined
    readonly prefill: Session
    readonly step: Session
  }
  readonly threads: number | undefined
  /** Where the graphs run; the weights are there too. */
  readonly device: Device
  /** What KV caches on a device are made and changed with; undefined on the CPU. */
  readonly deviceCaches: DeviceCaches | undefined
  /** The most tokens of one conversation: the model's own limit, or what the memory set aside for the KV cache holds. */
  readonly context: number
  /** Bytes set aside for the KV cache, and how its numbers are kept. */
  readonly contextMemory: number
  readonly cacheType: CacheType
  /** Visual tokens [M, D] of the pictures last seen, by their keys. */
  readonly recentPictures: Map<string, Float32Array>
}

export type RunLimits = { signal?: AbortSignal | undefined }

/**
 * Compiles a model. On the CPU float32 weights are used where they are, not copied: leave them unchanged. In another precision they are converted first.
 *
 * @throws RangeError when `threads` is not 1 or more or the head size is not one that cached attention knows, Error when a weight is missing, `signal.reason` when the signal fires
 */
export async function compileModel(
  { config, weights }: { config: LlavaConfig; weights: Weights },
  options: CompileOptions & { precision?: Precision } = {},
): Promise<CompiledModel> {
  const { precision = 'f32', signal, device } = options
  expectHeadSize(config)
  signal?.throwIfAborted()
  const supplied: SuppliedWeights =
    precision === 'f32'
      ? new Map([...weights].map(([name, { shape, data }]) => [name, residentTensor('float32', shape, { data })]))
      : await convertInMemory(config, readerOf(weights), { precision, device, signal })
  return compileSupplied({ config, weights: supplied, precision }, options)
}

export type CompileOptions = RunLimits & {
  threads?: number | undefined
  device?: Device | undefined
  /** Bytes that the KV cache of one conversation may take; when left out, half of the free memory, or what the model's context takes on a device, which does not tell. */
  contextMemory?: number | undefined
  /** How the KV cache keeps its numbers; when left out, in float16 where float32 would not leave room for the whole context of the model. */
  cacheType?: CacheType | undefined
}

/** Compiles a model whose weights are already in the forms that the precision asks for. Errors: those of `compileModel`. */
export async function compileSupplied(
  { config, weights, precision }: { config: LlavaConfig; weights: SuppliedWeights; precision: Precision },
  options: CompileOptions = {},
): Promise<CompiledModel> {
  const { threads, signal, device = 'cpu' } = options
  const { contextMemory = device === 'cpu' ? availableMemory() / 2 : Number.POSITIVE_INFINITY } = options
  expectHeadSize(config)
  signal?.throwIfAborted()
  const wholeFits =
    longestContext(config.language, { memory: contextMemory, type: 'float32' }) === config.language.context
  const cacheType = options.cacheType ?? (wholeFits || device !== 'cpu' ? 'float32' : 'float16')
  const deviceCaches = await openCaches({ config, type: cacheType, threads, device }).catch((error: unknown) => {
    disposeWeights(weights)
    throw error
  })
  const parts = { config, weights, precision, threads, device, contextMemory, cacheType }
  const compile = (outputs: Readonly<Record<string, Tensor>>, name: string) => compileGraph(outputs, { ...parts, name })
  const prompt = compile(languageGraph(config, weightSource(parts, 'prompt'), cacheType), 'prefill')
  const compiled = await Promise.allSettled([
    compile(encodeGraph(config, weightSource(parts, 'encoder')), 'encode'),
    prompt,
    // The graph is the same; compiled once, its weights are packed once.
    hasOneForm(precision) ? prompt : compile(languageGraph(config, weightSource(parts, 'decoding'), cacheType), 'step'),
    config.tiles && compile(arrangeGraph(config, weightSource(parts, 'encoder')), 'arrange'),
  ])
  const failed = compiled.find((result) => result.status === 'rejected')
  const [encode, prefill, step, arrange] = compiled.map((result) =>
    result.status === 'fulfilled' ? result.value : undefined,
  )
  if (encode === undefined || prefill === undefined || step === undefined || failed !== undefined || signal?.aborted) {
    for (const session of [encode, prefill, step, arrange]) if (session !== undefined) await disposeSession(session)
    if (deviceCaches !== undefined) await closeDeviceCaches(deviceCaches)
    disposeWeights(weights)
    signal?.throwIfAborted()
    throw failed?.reason
  }
  const context = longestContext(config.language, { memory: contextMemory, type: cacheType })
  return { ...parts, deviceCaches, context, sessions: { encode, arrange, prefill, step }, recentPictures: new Map() }
}

async function openCaches({
  config,
  ...options
}: Compute & { config: LlavaConfig; type: CacheType }): Promise<DeviceCaches | undefined> {
  return options.device === 'webgpu' ? openDeviceCaches(config.language, options) : undefined
}

/** The weights as the graph of a role gets them. */
export function weightSource(kept: { precision: Precision; device: Device }, role: Role): WeightSource {
  return weightsIn((weight) => formOf(weight, { ...kept, role }))
}

/** Compiles one more graph over weights that are already there. */
export async function compileGraph(
  outputs: Readonly<Record<string, Tensor>>,
  { name, weights, threads, device }: Compute & { name: string; weights: SuppliedWeights },
): Promise<Session> {
  const [folder] = [...weights.values()].flatMap((weight) => ('path' in weight ? [dirname(weight.path)] : []))
  const graph = writeOnnx(outputs, {
    parameters: 'initializers',
    name,
    operators: operatorsOf(device),
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
    device,
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

/** Frees a model after the runs that still use it. Safe to repeat. */
export async function disposeModel({ sessions, deviceCaches, weights }: CompiledModel): Promise<void> {
  await Promise.all(Object.values(sessions).map((session) => session && disposeSession(session)))
  if (deviceCaches !== undefined) await closeDeviceCaches(deviceCaches)
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
  { config, sessions, deviceCaches }: CompiledModel,
  { ids, pictures, cache, past }: Prefill,
  { signal }: RunLimits = {},
): Promise<Float32Array> {
  const most = deviceCaches?.longestRead ?? ids.length
  let logits: Float32Array = new Float32Array()
  for (let from = 0; from < ids.length; from += most) {
    const part = partOf({ ids, pictures }, { from, to: Math.min(from + most, ids.length) })
    const inputs = {
      ...sequenceInputs(config, part),
      lastRows: residentTensor('int64', [1], { data: BigInt64Array.of(BigInt(part.ids.length - 1)) }),
      ...reach([past + from + part.ids.length]),
    }
    logits = await runLanguageModel(sessions.prefill, { inputs, cache, signal })
  }
  return logits
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
