/** What is particular about answering on WebGPU: whether there is a device at all, and the precisions that suit one whose memory nobody tells. */

import { availableMemory } from 'node:process'
import type { LlavaConfig } from '../model/config.ts'
import { disposeTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import { cast, input, writeOnnx } from '../tensor/index.ts'
import type { CacheType } from './kv-cache.ts'
import { bytesOfWeights, gigabytes, isSmall, type Precision, type PrecisionChoice, precisions } from './precision.ts'

/** Integer products are what `mixed` reads prompts with; it keeps the weights twice for their sake. */
const lacking: readonly Precision[] = ['mixed']

/**
 * The precision for a model on WebGPU: as asked for, or f32 for a small model and int4 for any other.
 *
 * @param options `memory`: free main memory in bytes, through which float32 weights come
 * @throws Error when there is no GPU, RangeError when it does not compute in the precision or float32 weights do not fit into main memory
 */
export async function choosePrecisionOnWebGpu(
  config: LlavaConfig,
  { wanted = 'auto', memory = availableMemory() }: { wanted?: Precision | 'auto' | undefined; memory?: number } = {},
): Promise<PrecisionChoice> {
  const float16 = await knowsFloat16()
  const size = (precision: Precision) => bytesOfWeights(config, precision, { device: 'webgpu' })
  const refuse = (fault: string, possible: readonly Precision[]): never => {
    const others = `--precision ${possible.slice(0, -1).join(', ')} or ${possible.at(-1)}`
    throw new RangeError(`Cannot load the weights in ${wanted} on device webgpu: ${fault}, expected ${others}`)
  }
  const possible = precisions.filter((name) => !lacking.includes(name) && (float16 || name !== 'f16'))
  if (wanted === 'auto') {
    if (isSmall(config, memory)) return { precision: 'f32', reason: `${gigabytes(size('f32'))} of weights are few` }
    const reason = `${gigabytes(size('int4'))} of weights; how much memory the device has is not known`
    return { precision: 'int4', reason }
  }
  if (lacking.includes(wanted)) refuse('it has no products of 8-bit integers', possible)
  if (!possible.includes(wanted)) refuse('its driver has no 16-bit numbers', possible)
  if (wanted === 'f32' && size('f32') > memory) {
    const fault = `they take ${gigabytes(size('f32'))} of main memory on their way there and ${gigabytes(memory)} are free`
    refuse(
      fault,
      possible.filter((name) => name !== 'f32'),
    )
  }
  return { precision: wanted, reason: `as asked, ${gigabytes(size(wanted))} of weights` }
}

/** @throws RangeError when the KV cache is to be of another type than float32, the one that is known to work on WebGPU */
export function expectWebGpuCache(type: CacheType | undefined): void {
  if (type === undefined || type === 'float32') return
  throw new RangeError(
    `Cannot keep the KV cache in ${type} on device webgpu: it is float32 there, expected --kv-cache float32`,
  )
}

/**
 * Whether the GPU computes with 16-bit numbers. Nothing tells, so it is tried.
 * @throws Error when there is no GPU, or none that its driver offers through WebGPU's interfaces
 */
async function knowsFloat16(): Promise<boolean> {
  const wide = cast(input('x', 'float16', [1]), 'float32')
  const { model } = writeOnnx({ wide }, { parameters: 'inputs', name: 'try float16', operators: 'gpu' })
  const session = await createSession(model, { device: 'webgpu' })
  const x = residentTensor('float16', [1])
  try {
    Object.values(await run(session, { x })).forEach(disposeTensor)
    return true
  } catch (error) {
    if (String(error).includes('requires f16')) return false
    throw error
  } finally {
    disposeTensor(x)
    await disposeSession(session)
  }
}
