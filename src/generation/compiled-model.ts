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
 * of the first answer waits for `step`. Calls to a GPU take turns: nothing is won by waiting there, and all is compiled at once.
 */

import { basename, dirname } from 'node:path'
import { availableMemory } from 'node:process'
import type { Weights } from '../checkpoint/load.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { WeightSource } from '../model/weights.ts'
import { type Compute, type Device, operatorsOf } from '../runtime/device.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, type Session } from '../runtime/session.ts'
import { type Tensor, writeOnnx } from '../tensor/index.ts'
import { type CacheScales, findScales, firstScales } from './cache-scales.ts'
import { closeDeviceCaches, type DeviceCaches, openDeviceCaches } from './device-cache.ts'
import { arrangeGraph, encodeGraph, languageGraph } from './graphs.ts'
import { allocateCache, type CacheType, disposeCache, longestContext } from './kv-cache.ts'
import { runLanguageModel } from './language-calls.ts'
import { promptInputs } from './language-inputs.ts'
import type { PictureCache } from './picture-cache.ts'
import { formOf, hasOneForm, isQuantized, type Precision, type Role } from './precision.ts'
import { convertInMemory, readerOf, type SuppliedWeights } from './stored-weights.ts'
import { expectWebGpuCache } from './webgpu.ts'
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
  /** Where the graphs run; the weights are there too. */
  readonly device: Device
  /** What KV caches on a device are made and changed with; undefined on the CPU. */
  readonly deviceCaches: DeviceCaches | undefined
  /** The most tokens of one conversation: the model's own limit, or what the memory set aside for the KV cache holds. */
  readonly context: number
  /** Bytes set aside for the KV cache, and how its numbers are kept. */
  readonly contextMemory: number
  readonly cacheType: CacheType
  /** Of a KV cache in 8 bits; none otherwise. */
  readonly cacheScales: CacheScales
  /** Visual tokens [M, D] of the pictures last seen, by their keys. */
  readonly recentPictures: Map<string, Float32Array>
  /** Visual tokens on disk, where encoding takes long enough. */
  readonly pictureCache?: PictureCache | undefined
}

export type RunLimits = { signal?: AbortSignal | undefined }

/**
 * Compiles a model. On the CPU float32 weights are used where they are, not copied: leave them unchanged. In another precision they are converted first.
 *
 * @throws RangeError when `threads` is not 1 or more, the head size is not one that cached attention knows, or the device has no such KV cache, Error when a weight is missing, `signal.reason` when the signal fires
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
  if (device === 'webgpu') expectWebGpuCache(options.cacheType)
  signal?.throwIfAborted()
  const wholeFits =
    longestContext(config.language, { memory: contextMemory, type: 'float32' }) === config.language.context
  const cacheType = options.cacheType ?? (wholeFits || device !== 'cpu' ? 'float32' : 'float16')
  const deviceCaches = await openCaches({ config, type: cacheType, threads, device }).catch((error: unknown) => {
    disposeWeights(weights)
    throw error
  })
  const parts = { config, weights, precision, threads, device, contextMemory, cacheType }
  const compile = (outputs: Readonly<Record<string, Tensor>>, name: string) =>
    compileGraph(outputs, { ...parts, name, repack: name !== 'prefill' || oneForm })
  const oneForm = hasOneForm(precision)
  const prefill = compile(languageGraph(config, weightSource(parts, 'prompt'), cacheType), 'prefill')
  prefill.catch(() => undefined) // whoever waits for it learns of the failure
  const compiled = await Promise.allSettled([
    compile(encodeGraph(config, weightSource(parts, 'encoder')), 'encode'),
    config.tiles && compile(arrangeGraph(config, weightSource(parts, 'encoder')), 'arrange'),
    oneForm && isQuantized(precision) && device === 'cpu' ? undefined : prefill,
  ])
  const failed = compiled.find((result) => result.status === 'rejected')
  const [encode, arrange] = compiled.map((result) => (result.status === 'fulfilled' ? result.value : undefined))
  if (encode === undefined || failed !== undefined || signal?.aborted) {
    const late = await prefill.catch(() => undefined)
    for (const session of [encode, arrange, late]) if (session !== undefined) await disposeSession(session)
    if (deviceCaches !== undefined) await closeDeviceCaches(deviceCaches)
    disposeWeights(weights)
    signal?.throwIfAborted()
    throw failed?.reason
  }
  const step = oneForm ? prefill : compile(languageGraph(config, weightSource(parts, 'decoding'), cacheType), 'step')
  step.catch(() => undefined)
  const context = longestContext(config.language, { memory: contextMemory, type: cacheType })
  const cacheScales = cacheType === 'int8' ? firstScales(config.language) : {}
  const sessions = { encode, arrange, prefill, step }
  const model: CompiledModel = { ...parts, deviceCaches, context, sessions, cacheScales, recentPictures: new Map() }
  if (cacheType === 'int8') await fitScales(model, { signal })
  return model
}

async function openCaches({
  config,
  ...options
}: Compute & { config: LlavaConfig; type: CacheType }): Promise<DeviceCaches | undefined> {
  return options.device === 'webgpu' ? openDeviceCaches(config.language, options) : undefined
}

async function fitScales(model: CompiledModel, limits: RunLimits): Promise<void> {
  const { config, sessions, cacheScales } = model
  const { language } = config
  try {
    await findScales(cacheScales, {
      language,
      async read({ ids, fetch }) {
        const cache = allocateCache(language, { capacity: ids.length, type: 'int8' })
        const text = promptInputs(config, { ids, pictures: [], past: 0 })
        try {
          return await runLanguageModel(sessions.prefill, {
            inputs: { ...text, ...cacheScales },
            cache,
            fetch,
            ...limits,
          })
        } finally {
          Object.values(text).forEach(disposeTensor)
          disposeCache(cache)
        }
      },
    })
  } catch (error) {
    await disposeModel(model)
    throw error
  }
}

/** The weights as the graph of a role gets them. */
export function weightSource(kept: { precision: Precision; device: Device }, role: Role): WeightSource {
  return weightsIn((weight) => formOf(weight, { ...kept, role }))
}

/**
 * Compiles one more graph over weights that are already there. Without `repack` it uses codes of whole channels as they lie, which takes no time
 * and no memory now and a little of both at each run.
 */
export async function compileGraph(
  outputs: Readonly<Record<string, Tensor>>,
  options: Compute & { name: string; weights: SuppliedWeights; repack?: boolean },
): Promise<Session> {
  const { name, weights, threads, device, repack = true } = options
  const [folder] = [...weights.values()].flatMap((weight) => ('path' in weight ? [dirname(weight.path)] : []))
  const graph = writeOnnx(outputs, {
    parameters: (parameter) => (repack || !isCodesOfChannels(parameter) ? 'initializers' : 'replaceable'),
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

/** Waits until all graphs are compiled, which `compileSupplied` leaves to the background where it takes long. Errors: those of compiling. */
export async function whenCompiled({ sessions }: CompiledModel): Promise<void> {
  await Promise.all([sessions.prefill, sessions.step])
}

/** Frees a model after the runs that still use it. Safe to repeat. */
export async function disposeModel(model: CompiledModel): Promise<void> {
  const { sessions, deviceCaches, weights, pictureCache, cacheScales } = model
  await pictureCache?.settled()
  const compiled = await Promise.allSettled(Object.values(sessions))
  const all = compiled.map((session) => (session.status === 'fulfilled' ? session.value : undefined))
  await Promise.all(all.map((session) => session && disposeSession(session)))
  if (deviceCaches !== undefined) await closeDeviceCaches(deviceCaches)
  disposeWeights(weights)
  Object.values(cacheScales).forEach(disposeTensor)
}
