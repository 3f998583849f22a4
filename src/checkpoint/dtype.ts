/** Number formats of safetensors files and their conversion from and to float32 (little-endian, as every Node platform we run on). */

/** Bytes per element. The F8 formats can be listed and copied, not converted. */
export const dtypeBytes = {
  F64: 8,
  I64: 8,
  U64: 8,
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
} as const

export type Dtype = keyof typeof dtypeBytes

/** Formats in which weights are written. */
export type WeightDtype = 'F32' | 'F16' | 'BF16'

/** Whether `toFloat32` can read the format. */
export function isFloat(dtype: Dtype): dtype is WeightDtype | 'F64' {
  return dtype === 'F32' || dtype === 'F16' || dtype === 'BF16' || dtype === 'F64'
}

/**
 * Reads stored numbers as float32; F64 is rounded. For F32 the result shares memory with `bytes` where alignment allows.
 * Errors: `TypeError` for a format that holds no floating point weights, `RangeError` for a partial last element.
 */
export function toFloat32(dtype: Dtype, bytes: Uint8Array): Float32Array {
  if (!isFloat(dtype)) throw new TypeError(`Cannot convert ${dtype} to float32, expected F64, F32, F16 or BF16`)
  const size = dtypeBytes[dtype]
  if (bytes.byteLength % size !== 0) {
    throw new RangeError(`Cannot convert ${bytes.byteLength} bytes of ${dtype}, expected a multiple of ${size}`)
  }
  const aligned = bytes.byteOffset % size === 0 ? bytes : bytes.slice()
  const { buffer, byteOffset } = aligned
  const length = bytes.byteLength / size
  switch (dtype) {
    case 'F32':
      return new Float32Array(buffer, byteOffset, length)
    case 'F64':
      return new Float32Array(new Float64Array(buffer, byteOffset, length))
    case 'F16':
      return halfToFloat32(new Uint16Array(buffer, byteOffset, length))
    case 'BF16':
      return brainToFloat32(new Uint16Array(buffer, byteOffset, length))
  }
}

/** Writes float32 numbers in `dtype`, rounding to the nearest, ties to even. F32 shares memory with `values`. */
export function fromFloat32(dtype: WeightDtype, values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
  switch (dtype) {
    case 'F32':
      return new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
    case 'F16':
      return mapBits(bits, halfBits)
    case 'BF16':
      return mapBits(bits, brainBits)
  }
}

function mapBits(bits: Uint32Array, shorten: (bits: number) => number): Uint8Array {
  const words = new Uint16Array(bits.length)
  for (let i = 0; i < bits.length; i++) words[i] = shorten(bits[i] ?? 0)
  return new Uint8Array(words.buffer)
}

function brainToFloat32(words: Uint16Array): Float32Array {
  const bits = new Uint32Array(words.length)
  for (let i = 0; i < words.length; i++) bits[i] = (words[i] ?? 0) << 16
  return new Float32Array(bits.buffer)
}

// A table of all 65,536 halves (256 KiB) is simpler than bit arithmetic per weight, and fast.
let halfTable: Float32Array | undefined

function halfToFloat32(words: Uint16Array): Float32Array {
  halfTable ??= Float32Array.from({ length: 65_536 }, (_, bits) => decodeHalf(bits))
  const table = halfTable
  const values = new Float32Array(words.length)
  for (let i = 0; i < words.length; i++) values[i] = table[words[i] ?? 0] ?? 0
  return values
}

/** IEEE 754 binary16: 1 sign, 5 exponent and 10 fraction bits. */
function decodeHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0x1f) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN
  if (exponent === 0) return sign * fraction * 2 ** -24
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

function halfBits(bits: number): number {
  const sign = (bits >>> 16) & 0x8000
  const magnitude = bits & 0x7fff_ffff
  if (magnitude > 0x7f80_0000) return sign | 0x7e00 // NaN stays NaN
  if (magnitude >= 0x4780_0000) return sign | 0x7c00 // 65,536 and beyond: infinity
  if (magnitude < 0x3300_0000) return sign // below half of the smallest half
  const exponent = (magnitude >>> 23) - 127
  if (exponent >= -14) {
    const rebased = magnitude - ((127 - 15) << 23)
    return sign | (roundShift(rebased, 13) & 0x7fff) // a carry runs into the exponent, up to infinity
  }
  const fraction = (magnitude & 0x7f_ffff) | 0x80_0000
  return sign | roundShift(fraction, -exponent - 1)
}

function brainBits(bits: number): number {
  if ((bits & 0x7fff_ffff) > 0x7f80_0000) return ((bits >>> 16) & 0x8000) | 0x7fc0
  return roundShift(bits, 16) & 0xffff
}

/** Drops the low bits of an unsigned number, rounding to the nearest, ties to even. */
function roundShift(value: number, shift: number): number {
  const unsigned = value >>> 0
  const kept = unsigned >>> shift
  const rest = unsigned - kept * 2 ** shift
  const half = 2 ** (shift - 1)
  return rest > half || (rest === half && kept % 2 === 1) ? kept + 1 : kept
}
