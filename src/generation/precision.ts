/** Precisions: in how many bits the weights of a model are kept, and which one suits a model and a machine. */

import { availableMemory } from 'node:process'
import { expectedTensors } from '../checkpoint/layouts.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { Device } from '../runtime/device.ts'
import { sumsSaturate } from '../runtime/integer-sums.ts'
import { bytesOfParts, partsOf, type WeightForm } from './weight-forms.ts'

/**
 * `int8`: the language model in blocks of 32 numbers with 8 bits. `int4`: its linear layers in blocks of 32 numbers with 4 bits; `int4-128`: larger
 * blocks, faster and coarser. `mixed`: prompts are read in 8 bits with a scale per channel, the quickest product, and answers written in int4-128, for
 * which both are kept. In all of these the vision encoder has 8 bits per channel, token embedding and head 8 bits in blocks, norms and biases float32.
 * WebGPU has no products of integers: the vision encoder has 8 bits in blocks there, and mixed, which serves their speed, is not offered (webgpu.ts).
 */
export const precisions = ['f32', 'f16', 'int8', 'int4', 'int4-128', 'mixed'] as const
export type Precision = (typeof precisions)[number]

/** What a graph is for. A picture is read by the encoder, a prompt at once, and an answer is written token by token. */
export type Role = 'encoder' | 'prompt' | 'decoding'

/**
 * How a weight is kept for one role. In 8 bits per channel it depends on the processor, too: where integer sums saturate, `int8` takes codes that it
 * adds up exactly and slowly, and the other precisions, which are less exact anyway, take codes of 7 bits.
 */
export function formOf(
  { name, shape }: { name: string; shape: readonly number[] },
  {
    precision,
    role,
    device = 'cpu',
    saturating = sumsSaturate,
  }: { precision: Precision; role: Role; device?: Device | undefined; saturating?: () => boolean },
): WeightForm {
  // Only what multiplies or is looked up: norms, biases and positions are few numbers.
  if (precision === 'f32' || shape.length !== 2 || !name.endsWith('.weight')) return 'float32'
  if (precision === 'f16') return 'float16'
  if (device === 'cpu' && role === 'encoder') return saturating() ? (precision === 'int8' ? 'uint8' : 'int7') : 'int8'
  if (precision === 'int8') return 'int8-32'
  if (role === 'encoder') return 'int8-128'
  // Eight bits in rows, which serve as a table and as a head alike.
  if (name === 'languageModel.tokenEmbedding.weight' || name === 'languageModel.head.weight') return 'int8-128'
  if (precision === 'mixed' && role === 'prompt')
    return device === 'cpu' ? (saturating() ? 'int7' : 'int8') : 'int8-128'
  return precision === 'int4' ? 'int4-32' : 'int4-128'
}

/** Whether a prompt and the answer to it are computed from the same weights. */
export function hasOneForm(precision: Precision): boolean {
  return precision !== 'mixed'
}

/** Whether weights are kept as codes, which ONNX Runtime repacks. */
export function isQuantized(precision: Precision): boolean {
  return precision !== 'f32' && precision !== 'f16'
}

/** All forms of a weight that the graphs of a model ask for. */
export function formsOf(
  weight: { name: string; shape: readonly number[] },
  precision: Precision,
  { device = 'cpu' }: { device?: Device | undefined } = {},
): readonly WeightForm[] {
  const roles: readonly Role[] = weight.name.startsWith('languageModel.') ? ['prompt', 'decoding'] : ['encoder']
  return [...new Set(roles.map((role) => formOf(weight, { precision, device, role })))]
}

/** Bytes that the weights of a model take. */
export function bytesOfWeights(config: LlavaConfig, precision: Precision, on: { device?: Device } = {}): number {
  const weights = [...expectedTensors(config)]
  return weights.reduce((sum, [name, shape]) => sum + bytesOfWeight({ name, shape }, precision, on), 0)
}

/** Bytes that one weight takes, in all its forms. */
export function bytesOfWeight(
  weight: { name: string; shape: readonly number[] },
  precision: Precision,
  on: { device?: Device } = {},
): number {
  return formsOf(weight, precision, on).reduce((sum, form) => sum + bytesOfParts(partsOf(weight, form)), 0)
}

export type PrecisionChoice = {
  readonly precision: Precision
  /** One sentence without final period. */
  readonly reason: string
}

/** Up to this many bytes of float32 weights, every precision is quick, and the exact one is no burden. */
const smallModel = 1e9

export function isSmall(config: LlavaConfig, memory: number): boolean {
  return bytesOfWeights(config, 'f32') <= Math.min(smallModel, memory * shareForWeights)
}

/** Room for the KV cache, activations and the program, as a share of the memory. */
const shareForWeights = 0.6

/**
 * The precision for a model: as asked for, or chosen by what the machine can hold.
 *
 * @throws RangeError when the weights take more memory than there is
 */
export function choosePrecision(
  config: LlavaConfig,
  { wanted = 'auto', memory = availableMemory() }: { wanted?: Precision | 'auto' | undefined; memory?: number } = {},
): PrecisionChoice {
  const size = (precision: Precision) => bytesOfWeights(config, precision)
  if (wanted !== 'auto') {
    if (size(wanted) > memory) {
      const fitting = [...precisions].reverse().filter((precision) => size(precision) <= memory)
      const way = fitting.length === 0 ? 'more memory' : `--precision ${fitting.join(' or ')}`
      throw new RangeError(
        `Cannot load the weights in ${wanted}: they take ${gigabytes(size(wanted))} and ${gigabytes(memory)} of memory are free, expected ${way}`,
      )
    }
    return { precision: wanted, reason: `as asked, ${gigabytes(size(wanted))} of weights` }
  }
  if (isSmall(config, memory)) {
    return { precision: 'f32', reason: `${gigabytes(size('f32'))} of weights are few` }
  }
  for (const precision of ['mixed', 'int4', 'int4-128'] as const) {
    if (size(precision) > memory * shareForWeights) continue
    const reason = `${gigabytes(size(precision))} of weights with ${gigabytes(memory)} of memory free`
    return { precision, reason }
  }
  throw new RangeError(
    `Cannot load the model: its weights take ${gigabytes(size('int4-128'))} in the smallest precision and ${gigabytes(memory)} of memory are free, expected ${gigabytes(size('int4-128') / shareForWeights)}`,
  )
}

export function gigabytes(bytes: number): string {
  return bytes < 1e8 ? `${Math.ceil(bytes / 1e6)} MB` : `${(bytes / 1e9).toFixed(1)} GB`
}
