/**
 * Numbers as codes of few bits, and back. All of it goes row by row of a weight [Out, In], so a large weight can be done in pieces.
 *
 * Round to nearest. The scale of a block is searched: for given codes q the best scale of numbers w is Σwq / Σq², which leaves the error
 * Σw² − (Σwq)² / Σq², so candidates are compared by (Σwq)² / Σq² alone. Which form means what: tensor/quantized.ts.
 */

/** Codes of the rows of a weight, from −`most` to `most`, with one scale per row: [rows, width] int8 and [rows]. */
export function quantizeRows(
  numbers: Float32Array,
  width: number,
  { most = 127 }: { most?: number } = {},
): { values: Int8Array; scales: Float32Array } {
  const rows = numbers.length / width
  const values = new Int8Array(numbers.length)
  const scales = new Float32Array(rows)
  for (let row = 0; row < rows; row++) {
    const start = row * width
    let largest = 0
    for (let i = start; i < start + width; i++) largest = Math.max(largest, Math.abs(numbers[i] ?? 0))
    const scale = Math.fround(largest / most)
    const inverse = scale === 0 ? 0 : 1 / scale
    scales[row] = scale
    for (let i = start; i < start + width; i++) values[i] = rounded((numbers[i] ?? 0) * inverse)
  }
  return { values, scales }
}

/** The numbers that `quantizeRows` stands for. */
export function restoreRows({ values, scales }: { values: Int8Array; scales: Float32Array }): Float32Array {
  const width = values.length / scales.length
  return Float32Array.from(values, (code, i) => code * (scales[Math.floor(i / width)] ?? 0))
}

export type BlockFormat = { readonly bits: 4 | 8; readonly block: number }

export type Blocks = {
  readonly values: Uint8Array // [rows, blocks, block · bits / 8]
  readonly scales: Float32Array // [rows, blocks]
}

/** Codes of the rows of a weight, with one scale per block of a row; the last block of a row is filled up with zeros. */
export function quantizeBlocks(numbers: Float32Array, { width, bits, block }: BlockFormat & { width: number }): Blocks {
  const rows = numbers.length / width
  const perRow = Math.ceil(width / block)
  const bytes = (block * bits) / 8
  const middle = bits === 4 ? 8 : 128
  const values = new Uint8Array(rows * perRow * bytes).fill(bits === 4 ? 0x88 : middle)
  const scales = new Float32Array(rows * perRow)
  for (let row = 0; row < rows; row++) {
    for (let at = 0; at < perRow; at++) {
      const start = row * width + at * block
      const end = Math.min(start + block, (row + 1) * width)
      const index = row * perRow + at
      const { step, scale } = bestStep(numbers, { start, end, middle })
      scales[index] = scale
      if (step === 0) continue
      for (let i = start; i < end; i++) {
        const code = clamp(rounded((numbers[i] ?? 0) * step), middle) + middle
        const place = i - start
        if (bits === 8) values[index * bytes + place] = code
        else {
          const byte = index * bytes + (place >> 1)
          const other = values[byte] ?? 0
          values[byte] = place % 2 === 0 ? (other & 0xf0) | code : (other & 0x0f) | (code << 4)
        }
      }
    }
  }
  return { values, scales }
}

/** The numbers [rows, width] that `quantizeBlocks` stands for. */
export function restoreBlocks(
  { values, scales }: Blocks,
  { width, bits, block }: BlockFormat & { width: number },
): Float32Array {
  const perRow = Math.ceil(width / block)
  const middle = bits === 4 ? 8 : 128
  return Float32Array.from({ length: (scales.length / perRow) * width }, (_, i) => {
    const index = Math.floor(i / width) * perRow + Math.floor((i % width) / block)
    const place = index * block + ((i % width) % block)
    const code = bits === 8 ? values[place] : ((values[place >> 1] ?? 0) >> (place % 2 === 0 ? 0 : 4)) & 15
    return ((code ?? 0) - middle) * (scales[index] ?? 0)
  })
}

/** How far the codes may reach beyond or short of the largest number, in codes. 8 bits are fine enough without. */
const stretches = [0, -0.5, 0.4, 0.9, 1.6]

/** The number of codes per unit that leaves the least error, and the scale that then fits best. */
function bestStep(
  numbers: Float32Array,
  { start, end, middle }: { start: number; end: number; middle: number },
): { step: number; scale: number } {
  let extreme = 0
  for (let i = start; i < end; i++) {
    const value = numbers[i] ?? 0
    if (Math.abs(value) > Math.abs(extreme)) extreme = value
  }
  if (extreme === 0) return { step: 0, scale: 0 }
  let best = { step: 0, scale: 0, gain: -1 }
  const low = -middle
  const high = middle - 1
  // The lowest code has no opposite: the number of largest size becomes that one.
  for (const stretch of middle === 8 ? stretches : [-1]) {
    const step = -(middle + stretch) / extreme
    let products = 0
    let squares = 0
    for (let i = start; i < end; i++) {
      const value = numbers[i] as number
      let code = value * step + magic - magic
      if (code > high) code = high
      else if (code < low) code = low
      products += value * code
      squares += code * code
    }
    const gain = squares === 0 ? 0 : (products * products) / squares
    if (gain > best.gain) best = { step, scale: products / squares, gain }
  }
  return Number.isFinite(best.scale) ? best : { step: 0, scale: 0 }
}

/** Added and taken away again, it leaves a number at the nearest integer, ties to even: beyond 2^52 a double has no room for a fraction. */
const magic = 6755399441055744

/** Several times faster than Math.round. */
function rounded(value: number): number {
  return value + magic - magic
}

function clamp(code: number, middle: number): number {
  return code < -middle ? -middle : code >= middle ? middle - 1 : code
}
