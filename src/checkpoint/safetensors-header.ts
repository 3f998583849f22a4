/**
 * The header of a safetensors file: JSON that maps each tensor name to its number format, shape and place in the data.
 *
 * Format (huggingface/safetensors): 8 bytes little-endian header length, the header, then the data. Every byte of the
 * data belongs to exactly one tensor. The header comes from strangers, so each of these rules is checked.
 */

import { z } from 'zod'
import { tellWrongFields } from '../wrong-fields.ts'
import { type Dtype, dtypeBytes } from './dtype.ts'
import { parseStrictJson, quote } from './json.ts'

/** Longest accepted header in bytes, the limit of the reference implementation. */
export const longestHeader = 100_000_000

export type TensorEntry = {
  dtype: Dtype
  shape: readonly number[]
  begin: number // bytes from the start of the data
  end: number
}

export type SafetensorsHeader = {
  tensors: ReadonlyMap<string, TensorEntry> // in the order of the header
  metadata: ReadonlyMap<string, string>
}

const entrySchema = z.object({
  dtype: z.enum(Object.keys(dtypeBytes) as [Dtype, ...Dtype[]]),
  shape: z.array(z.int().min(0)).max(16),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
})
const metadataSchema = z.record(z.string(), z.string())

/**
 * Length of the header, from the first 8 bytes of a file of `fileBytes` bytes.
 * Errors: `RangeError` for a length of 0, above `longestHeader` or beyond the end of the file.
 */
export function parseHeaderLength(
  prefix: Uint8Array,
  { path, fileBytes }: { path: string; fileBytes: number },
): number {
  if (new TextDecoder().decode(prefix) === 'version ') {
    throw new Error(
      `Cannot read ${path}: found a Git LFS pointer instead of the file, expected the weights; fetch them with "git lfs pull"`,
    )
  }
  if (new TextDecoder().decode(prefix.subarray(0, 4)) === 'GGUF') {
    throw new Error(
      `Cannot read ${path}: found a GGUF file of llama.cpp's, expected safetensors; use the checkpoint that it was made from`,
    )
  }
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true)
  if (length > longestHeader) {
    throw new RangeError(`Cannot read ${path}: found a header length of ${length}, expected at most ${longestHeader}`)
  }
  if (length < 2n || length > fileBytes - 8) {
    throw new RangeError(
      `Cannot read ${path}: found a header length of ${length} in a file of ${fileBytes} bytes, expected between 2 and ${fileBytes - 8}`,
    )
  }
  return Number(length)
}

/**
 * Parses and checks a whole header; `dataBytes` is what follows it in the file.
 * Errors: `SyntaxError` for what is not the expected JSON, `RangeError` for tensors that do not tile the data exactly.
 */
export function parseHeader(
  header: Uint8Array,
  { path, dataBytes }: { path: string; dataBytes: number },
): SafetensorsHeader {
  const what = `the header of ${path}`
  if (header[0] !== 0x7b) throw new SyntaxError(`Cannot parse ${what}: the first byte is not "{"`)
  const json = parseStrictJson(header, what) as Record<string, unknown>
  const tensors = new Map<string, TensorEntry>()
  let metadata: ReadonlyMap<string, string> = new Map()
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') metadata = parseMetadata(value, what)
    else tensors.set(name, parseEntry(value, `tensor ${quote(name)} in ${what}`))
  }
  checkTiling(tensors, { path, dataBytes })
  return { tensors, metadata }
}

function parseMetadata(value: unknown, what: string): ReadonlyMap<string, string> {
  const result = metadataSchema.safeParse(value)
  if (!result.success) throw new SyntaxError(`Cannot parse ${what}: __metadata__ is not an object of strings`)
  return new Map(Object.entries(result.data))
}

function parseEntry(value: unknown, what: string): TensorEntry {
  const result = entrySchema.safeParse(value)
  if (!result.success) {
    throw new SyntaxError(`Cannot parse ${what}: ${tellWrongFields(result.error, value)}`)
  }
  const { dtype, shape, data_offsets } = result.data
  const [begin, end] = data_offsets
  let bytes: number = dtypeBytes[dtype]
  for (const size of shape) {
    bytes *= size
    if (!Number.isSafeInteger(bytes)) throw new RangeError(`Cannot parse ${what}: shape [${shape}] overflows`)
  }
  if (end - begin !== bytes) {
    throw new RangeError(
      `Cannot parse ${what}: ${dtype} [${shape}] takes ${bytes} bytes, found offsets [${begin}, ${end}]`,
    )
  }
  return { dtype, shape, begin, end }
}

function checkTiling(
  tensors: ReadonlyMap<string, TensorEntry>,
  { path, dataBytes }: { path: string; dataBytes: number },
): void {
  const sorted = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end)
  let covered = 0
  for (const [name, { begin, end }] of sorted) {
    if (begin !== covered) {
      const fault = begin < covered ? 'overlaps another tensor' : 'leaves a hole before it'
      throw new RangeError(
        `Cannot read ${path}: tensor ${quote(name)} ${fault}, found offset ${begin}, expected ${covered}`,
      )
    }
    covered = end
  }
  if (covered !== dataBytes) {
    const fault = covered > dataBytes ? 'the file is cut short' : 'there are trailing bytes'
    throw new RangeError(`Cannot read ${path}: ${fault}, found ${dataBytes} bytes of data, expected ${covered}`)
  }
}
