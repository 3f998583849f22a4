/** llama.cpp's simplest formats, as its reference code rounds them (ggml-quants.c, quantize_row_q8_0_ref and quantize_row_q4_0_ref). */

import { fromFloat32, toFloat32 } from '../src/checkpoint/dtype.ts'
import type { Weights } from '../src/checkpoint/load.ts'

const block = 32

/** All matrices as Q8_0 and back, as an export in that format has them. */
export function asQ8(weights: Weights): Weights {
  return mapMatrices(weights, () => q8)
}

/** The language model as Q4_0, but for the head, which llama.cpp gives more bits; the vision encoder stays as it is, near what F16 would be. */
export function asQ4(weights: Weights): Weights {
  return mapMatrices(weights, (name) => {
    if (!name.startsWith('languageModel.')) return undefined
    return name.endsWith('head.weight') ? q8 : q4
  })
}

export type Rounding = (numbers: Float32Array) => Float32Array

function mapMatrices(weights: Weights, roundingOf: (name: string) => Rounding | undefined): Weights {
  return new Map(
    [...weights].map(([name, weight]) => {
      const round = weight.shape.length === 2 ? roundingOf(name) : undefined
      return [name, round === undefined ? weight : { ...weight, data: inBlocks(weight.data, round) }]
    }),
  )
}

export function inBlocks(data: Float32Array, round: Rounding): Float32Array {
  const result = new Float32Array(data.length)
  for (let i = 0; i < data.length; i += block) result.set(round(data.subarray(i, i + block)), i)
  return result
}

export function q8(numbers: Float32Array): Float32Array {
  const largest = numbers.reduce((most, value) => Math.max(most, Math.abs(value)), 0)
  const scale = largest / 127
  const stored = asHalf(scale)
  return numbers.map((value) => (scale === 0 ? 0 : Math.round(value / scale) * stored))
}

export function q4(numbers: Float32Array): Float32Array {
  const extreme = numbers.reduce((most, value) => (Math.abs(value) > Math.abs(most) ? value : most), 0)
  const scale = extreme / -8
  const stored = asHalf(scale)
  return numbers.map((value) => (scale === 0 ? 0 : (Math.min(15, Math.floor(value / scale + 8.5)) - 8) * stored))
}

function asHalf(value: number): number {
  return toFloat32('F16', fromFloat32('F16', Float32Array.of(value)))[0] ?? 0
}
