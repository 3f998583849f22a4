/**
 * The forms in which a weight can be kept: which parameters of a graph they are, how numbers become them, and what model code gets to see.
 */

import { fromFloat32 } from '../checkpoint/dtype.ts'
import type { WeightSource } from '../model/weights.ts'
import { type ElementType, elementFormat } from '../runtime/element-type.ts'
import { quantizeBlocks, quantizeRows } from '../runtime/quantize.ts'
import { fromBlocks, fromChannels, parameter, widen } from '../tensor/index.ts'

/**
 * `int8`, `uint8` and `int7`: a scale per output channel. On processors whose integer sums overflow (integer-sums.ts), `int8` would be wrong, `uint8`
 * is exact and slower, and `int7`, with codes from −64 to 64, is exact and as fast. With a number: a scale for each block of so many numbers of a row.
 */
export type WeightForm = 'float32' | 'float16' | ChannelForm | 'int8-128' | 'int4-32' | 'int4-128'

type ChannelForm = 'int8' | 'uint8' | 'int7'

type StoredType = Extract<ElementType, 'float32' | 'float16' | 'int8' | 'uint8'>

/** One parameter of a graph: a weight, or its codes or scales. */
export type WeightPart = { readonly name: string; readonly dtype: StoredType; readonly shape: readonly number[] }

type NamedShape = { readonly name: string; readonly shape: readonly number[] }

/** The parameters that stand for a weight in a form: the numbers or codes, then the scales if there are any. */
export function partsOf({ name, shape }: NamedShape, form: WeightForm): readonly WeightPart[] {
  if (form === 'float32') return [{ name, dtype: 'float32', shape }]
  if (form === 'float16') return [{ name: `${name}@float16`, dtype: 'float16', shape }]
  const [out = 1, width = 1] = shape
  const scales = `${name}@${form}.scales`
  if (isChannelForm(form)) {
    return [
      { name: `${name}@${form}`, dtype: form === 'uint8' ? 'uint8' : 'int8', shape: [width, out] },
      { name: scales, dtype: 'float32', shape: [out] },
    ]
  }
  const { bits, block } = blockFormats[form]
  const blocks = Math.ceil(width / block)
  return [
    { name: `${name}@${form}`, dtype: 'uint8', shape: [out, blocks, (block * bits) / 8] },
    { name: scales, dtype: 'float32', shape: [out, blocks] },
  ]
}

/** Whether a parameter of a graph holds the codes of a weight in a channel form. */
export function isCodesOfChannels(parameter: string): boolean {
  return /@(int8|uint8|int7)$/.test(parameter)
}

function isChannelForm(form: WeightForm): form is ChannelForm {
  return form === 'int8' || form === 'uint8' || form === 'int7'
}

const blockFormats = {
  'int8-128': { bits: 8, block: 128 },
  'int4-32': { bits: 4, block: 32 },
  'int4-128': { bits: 4, block: 128 },
} as const

/** Hands out each weight in the form that `choose` wants for it. */
export function weightsIn(choose: (weight: NamedShape) => WeightForm): WeightSource {
  return (name, shape) => {
    const form = choose({ name, shape })
    const [values, scales] = partsOf({ name, shape }, form).map((part) => parameter(part.name, part.shape, part.dtype))
    if (values === undefined) throw new Error(`Weight ${name} has no parts`)
    if (form === 'float32') return values
    if (form === 'float16') return widen(values)
    if (scales === undefined) throw new Error(`Weight ${name} has no scales`)
    if (isChannelForm(form)) return fromChannels({ values, scales })
    return fromBlocks({ values, scales }, { bits: blockFormats[form].bits, width: shape[1] ?? 1 })
  }
}

export function bytesOfPart({ dtype, shape }: WeightPart): number {
  return shape.reduce((product, size) => product * size, elementFormat(dtype).bytes)
}

export function bytesOfParts(parts: readonly WeightPart[]): number {
  return parts.reduce((sum, part) => sum + bytesOfPart(part), 0)
}

/** Bytes to put into a part, from its start counted in bytes. */
export type PartBytes = { readonly part: WeightPart; readonly at: number; readonly bytes: Uint8Array }

/**
 * Turns the rows of a weight into a form, a few rows at a time: `rows` takes the next ones and gives back what is finished,
 * `end` the rest.
 */
export type FormWriter = { rows(numbers: Float32Array): PartBytes[]; end(): PartBytes[] }

export function formWriter(weight: NamedShape, form: WeightForm): FormWriter {
  const [values, scales] = partsOf(weight, form)
  if (values === undefined) throw new Error(`Weight ${weight.name} has no parts`)
  const written = new Map<WeightPart, number>()
  const next = (part: WeightPart, bytes: Uint8Array): PartBytes => {
    const at = written.get(part) ?? 0
    written.set(part, at + bytes.byteLength)
    return { part, at, bytes }
  }
  if (form === 'float32') return { rows: (numbers) => [next(values, bytesOf(numbers))], end: () => [] }
  if (form === 'float16') return { rows: (numbers) => [next(values, fromFloat32('F16', numbers))], end: () => [] }
  if (scales === undefined) throw new Error(`Weight ${weight.name} has no scales`)
  const [out = 1, width = 1] = weight.shape
  if (isChannelForm(form)) {
    // Channels are columns of the stored matrix, so it is only complete at the end.
    const turned = new Int8Array(out * width)
    let column = 0
    return {
      rows(numbers) {
        const codes = quantizeRows(numbers, width, { most: form === 'int7' ? 64 : 127 })
        transposeInto(turned, codes.values, { width, out, column })
        column += codes.scales.length
        return [next(scales, bytesOf(codes.scales))]
      },
      end() {
        const bytes = bytesOf(turned)
        if (form === 'uint8') for (let i = 0; i < bytes.length; i++) bytes[i] = (bytes[i] ?? 0) ^ 0x80 // adds 128
        return [next(values, bytes)]
      },
    }
  }
  return {
    rows(numbers) {
      const codes = quantizeBlocks(numbers, { ...blockFormats[form], width })
      return [next(values, codes.values), next(scales, bytesOf(codes.scales))]
    },
    end: () => [],
  }
}

/** Rows [n, width] as columns `column` to `column` + n of a matrix [width, out], square by square: whole rows would leave the processor's cache. */
function transposeInto(
  target: Int8Array,
  rows: Int8Array,
  { width, out, column }: { width: number; out: number; column: number },
): void {
  const count = rows.length / width
  const side = 64
  for (let row0 = 0; row0 < count; row0 += side) {
    for (let i0 = 0; i0 < width; i0 += side) {
      const [rowEnd, iEnd] = [Math.min(row0 + side, count), Math.min(i0 + side, width)]
      for (let i = i0; i < iEnd; i++) {
        for (let row = row0; row < rowEnd; row++) target[i * out + column + row] = rows[row * width + i] ?? 0
      }
    }
  }
}

function bytesOf({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength)
}
