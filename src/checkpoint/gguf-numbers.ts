/**
 * Number formats of GGUF files: float32, float16, and two formats of blocks of 32 weights that share a float16 scale
 * (format: ggml's `block_q8_0` and `block_q4_0`). Rounding follows ggml's reference, so that the bytes are the same.
 */

import { fromFloat32 } from './dtype.ts'

export const ggufDtypes = ['F32', 'F16', 'Q8_0', 'Q4_0'] as const
export type GgufDtype = (typeof ggufDtypes)[number]

/** Codes of tensor formats (`ggml_type`). */
export const tensorCodes = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 8 } as const satisfies Record<GgufDtype, number>

/** Codes of whole files (`llama_ftype`), by the format of most of their weights. */
export const fileCodes = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7 } as const satisfies Record<GgufDtype, number>

/** Weights per block, which is never split between two rows. */
const block = 32
const blockBytes = { Q8_0: 2 + block, Q4_0: 2 + block / 2 }

/** Bytes of so many weights. */
export function ggufBytes(dtype: GgufDtype, elements: number): number {
  if (dtype === 'F32') return 4 * elements
  return dtype === 'F16' ? 2 * elements : (elements / block) * blockBytes[dtype]
}

/** The format itself where rows of `width` weights hold whole blocks, float16 elsewhere, as llama.cpp does. */
export function fittingDtype(dtype: GgufDtype, width: number): GgufDtype {
  return (dtype === 'Q8_0' || dtype === 'Q4_0') && width % block !== 0 ? 'F16' : dtype
}

/** Weights in `dtype`. Errors: `RangeError` for a partial last block. */
export function toGguf(dtype: GgufDtype, values: Float32Array): Uint8Array {
  if (dtype === 'F32' || dtype === 'F16') return fromFloat32(dtype, values)
  if (values.length % block !== 0) {
    throw new RangeError(`Cannot write ${values.length} weights as ${dtype}, expected a multiple of ${block}`)
  }
  return dtype === 'Q8_0' ? toQ8(values) : toQ4(values)
}

/** d · q with q from −127 to 127, the largest weight at ±127. */
function toQ8(values: Float32Array): Uint8Array {
  const count = values.length / block
  const bytes = new Uint8Array(count * blockBytes.Q8_0)
  const scales = new Float32Array(count)
  for (let b = 0; b < count; b++) {
    let largest = 0
    for (let i = 0; i < block; i++) largest = Math.max(largest, Math.abs(values[b * block + i] ?? 0))
    const scale = Math.fround(largest / 127)
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale)
    scales[b] = scale
    const to = b * blockBytes.Q8_0 + 2
    for (let i = 0; i < block; i++) bytes[to + i] = roundAway(Math.fround((values[b * block + i] ?? 0) * inverse))
  }
  return withScales(bytes, scales)
}

/** d · (q − 8) with q from 0 to 15, the largest weight at −8: its sign goes into d. Low nibbles hold the first 16 weights. */
function toQ4(values: Float32Array): Uint8Array {
  const count = values.length / block
  const half = block / 2
  const bytes = new Uint8Array(count * blockBytes.Q4_0)
  const scales = new Float32Array(count)
  for (let b = 0; b < count; b++) {
    let extreme = 0
    for (let i = 0; i < block; i++) {
      const value = values[b * block + i] ?? 0
      if (Math.abs(value) > Math.abs(extreme)) extreme = value
    }
    const scale = Math.fround(extreme / -8)
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale)
    scales[b] = scale
    const to = b * blockBytes.Q4_0 + 2
    for (let i = 0; i < half; i++) {
      const low = Math.fround(Math.fround((values[b * block + i] ?? 0) * inverse) + 8.5)
      const high = Math.fround(Math.fround((values[b * block + half + i] ?? 0) * inverse) + 8.5)
      bytes[to + i] = Math.min(15, low | 0) | (Math.min(15, high | 0) << 4)
    }
  }
  return withScales(bytes, scales)
}

/** Puts the scales, as float16, at the start of the blocks. */
function withScales(bytes: Uint8Array, scales: Float32Array): Uint8Array {
  const halves = fromFloat32('F16', scales)
  const size = bytes.length / scales.length
  for (let b = 0; b < scales.length; b++) {
    bytes[b * size] = halves[2 * b] ?? 0
    bytes[b * size + 1] = halves[2 * b + 1] ?? 0
  }
  return bytes
}

/** To the nearest whole number, halves away from zero, as C's `roundf`. */
function roundAway(value: number): number {
  return Math.sign(value) * Math.floor(Math.abs(value) + 0.5)
}
