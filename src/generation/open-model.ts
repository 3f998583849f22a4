/** Opens a model folder in a precision: the smallest way from weight files to compiled graphs. */

import { loadWeights } from '../checkpoint/load.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { Device } from '../runtime/device.ts'
import { type CompiledModel, type CompileOptions, compileModel, compileSupplied } from './compiled-model.ts'
import type { CacheType } from './kv-cache.ts'
import { cachedWeights, cacheFolder, keyOf, prepareCache } from './model-cache.ts'
import { attempt } from './model-folder.ts'
import { isWorthKeeping, openPictureCache, type PictureCache, pictureFolder } from './picture-cache.ts'
import { choosePrecision, type Precision, type PrecisionChoice } from './precision.ts'
import { type ConversionOptions, convertInMemory, type SuppliedWeights, withFolderReader } from './stored-weights.ts'
import { choosePrecisionOnWebGpu, expectWebGpuCache } from './webgpu.ts'

export type OpenModelOptions = {
  /** Where the model runs: weights and KV cache are there too. `cpu` when left out. */
  readonly device?: Device | undefined
  /** Worker threads; all cores when left out. */
  readonly threads?: number | undefined
  /** How the weights are kept; `auto`, the default, chooses by the size of the model and the free memory. */
  readonly precision?: Precision | 'auto' | undefined
  /** Where converted weights are kept for the next time; in memory only where the folder cannot be written to, or when it is `false`. */
  readonly cache?: string | false | undefined
  /**
   * Where the visual tokens of pictures are kept for the next time; nowhere when it or, unless it is given, `cache` is `false`, and for models that
   * encode as quickly as a disk reads.
   */
  readonly pictureCache?: string | false | undefined
  /**
   * Bytes that the KV cache of one conversation may take; when left out, half of the free memory, or what the model's context takes on a device,
   * which does not tell how much memory it has.
   */
  readonly contextMemory?: number | undefined
  /** How the KV cache keeps its numbers; float32 when left out, or float16 where that would not leave room for the model's whole context. On WebGPU it is float32. */
  readonly cacheType?: CacheType | undefined
  /** Called while weights are converted, which a large model takes minutes for, once. */
  readonly onConversion?: ConversionOptions['onProgress']
  readonly signal?: AbortSignal | undefined
}

/**
 * Small models are loaded as float32. Others are converted when they are opened for the first time.
 *
 * @throws Error when there is no such device, RangeError when the weights do not fit into memory or the device does not compute in the precision, errors of the weight files, `signal.reason` when the signal fires
 */
export async function openModel(
  { folder, config }: { folder: string; config: LlavaConfig },
  options: OpenModelOptions,
): Promise<{ model: CompiledModel; choice: PrecisionChoice }> {
  const { threads, device, signal, contextMemory, cacheType } = options
  if (device === 'webgpu') expectWebGpuCache(cacheType) // before anything is converted
  const wanted = { wanted: options.precision }
  const choice = device === 'webgpu' ? await choosePrecisionOnWebGpu(config, wanted) : choosePrecision(config, wanted)
  const { precision } = choice
  const pictureCache = pictureCacheFor({ folder, config }, { ...options, precision })
  const withCache = (model: CompiledModel): CompiledModel => ({ ...model, pictureCache })
  const limits: CompileOptions = { threads, device, signal, contextMemory, cacheType }
  const read = <T>(from: () => Promise<T>) =>
    attempt(folder, 'its weights', from).catch((error) => {
      throw signal?.aborted ? signal.reason : error
    })
  if (precision === 'f32') {
    const weights = await read(() => loadWeights(folder, config))
    return { model: withCache(await compileModel({ config, weights }, limits)), choice }
  }
  const weights = await read(() => convertedWeights({ folder, config }, { ...options, precision }))
  return { model: withCache(await compileSupplied({ config, weights, precision }, limits)), choice }
}

/** Undefined where nothing is to be kept. */
function pictureCacheFor(
  { folder, config }: { folder: string; config: LlavaConfig },
  {
    precision,
    device = 'cpu',
    cache,
    pictureCache = cache === false ? false : pictureFolder(),
  }: OpenModelOptions & { precision: Precision },
): PictureCache | undefined {
  if (pictureCache === false || !isWorthKeeping(config)) return undefined
  return openPictureCache(pictureCache, { config, identity: () => keyOf({ folder, config }, { precision, device }) })
}

async function convertedWeights(
  source: { folder: string; config: LlavaConfig },
  {
    precision,
    device,
    cache = cacheFolder(),
    signal,
    onConversion: onProgress,
  }: OpenModelOptions & { precision: Precision },
): Promise<SuppliedWeights> {
  const options = { precision, device, signal, onProgress }
  if (cache !== false && (await prepareCache(cache))) return cachedWeights(source, { ...options, cache })
  return withFolderReader(source, (reader) => convertInMemory(source.config, reader, options))
}
