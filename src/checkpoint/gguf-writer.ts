/**
 * Writes GGUF files, the format of llama.cpp (version 3, little-endian): metadata by name, then tensors, one in memory at a time.
 *
 *     "GGUF" · version · number of tensors · number of metadata · metadata … · tensor descriptions … · tensor data …
 *
 * Every tensor starts at a multiple of 32 bytes. Shapes are written innermost size first.
 */

import { writeFileAtomically } from './atomic-file.ts'
import { type GgufDtype, ggufBytes, tensorCodes, toGguf } from './gguf-numbers.ts'
import { quote } from './json.ts'
import { writeFully } from './safetensors-writer.ts'

/** A number of the named kind, a truth value, a text, or a list of one kind. */
export type GgufValue =
  | { readonly uint32: number }
  | { readonly float32: number }
  | { readonly bool: boolean }
  | { readonly string: string }
  | { readonly int32s: readonly number[] }
  | { readonly float32s: readonly number[] }
  | { readonly strings: readonly string[] }

export type GgufMetadata = Readonly<Record<string, GgufValue>>

export type GgufTensor = {
  readonly name: string
  readonly shape: readonly number[] // outermost size first, as everywhere here
  readonly dtype: GgufDtype
  readonly read: () => Promise<Float32Array>
}

const alignment = 32
const longestName = 63 // bytes; llama.cpp refuses longer names of tensors

/**
 * Writes the file beside and renames it. Tensors are read in order, each when its turn comes; `onTensor` is told after each.
 * Errors: `RangeError` for a tensor that does not fill its shape, `Error` for a name that is too long or comes twice.
 */
export async function writeGguf(
  path: string,
  {
    metadata,
    tensors,
    signal,
    onTensor,
  }: {
    metadata: GgufMetadata
    tensors: readonly GgufTensor[]
    signal?: AbortSignal | undefined
    onTensor?: ((bytes: number) => void) | undefined
  },
): Promise<void> {
  const header = encodeHeader(metadata, tensors)
  await writeFileAtomically(path, async (handle) => {
    await writeFully(handle, header)
    for (const { name, shape, dtype, read } of tensors) {
      signal?.throwIfAborted()
      const values = await read()
      const elements = productOf(shape)
      if (values.length !== elements) {
        throw new RangeError(
          `Cannot write tensor ${quote(name)}: found ${values.length} elements for shape [${shape}], expected ${elements}`,
        )
      }
      const bytes = toGguf(dtype, values)
      await writeFully(handle, bytes)
      await writeFully(handle, new Uint8Array(padded(bytes.byteLength) - bytes.byteLength))
      onTensor?.(bytes.byteLength)
    }
  })
}

function encodeHeader(metadata: GgufMetadata, tensors: readonly GgufTensor[]): Uint8Array {
  const entries = Object.entries(metadata)
  const writer = byteWriter()
  writer.bytes(new TextEncoder().encode('GGUF'))
  writer.uint32(3)
  writer.uint64(tensors.length)
  writer.uint64(entries.length)
  for (const [key, value] of entries) {
    writer.string(key)
    writeValue(writer, value)
  }
  const seen = new Set<string>()
  let offset = 0
  for (const { name, shape, dtype } of tensors) {
    if (seen.has(name)) throw new Error(`Cannot write tensor ${quote(name)}: found it twice, expected one of each name`)
    if (new TextEncoder().encode(name).length > longestName) {
      throw new Error(`Cannot write tensor ${quote(name)}: its name is longer than ${longestName} bytes`)
    }
    seen.add(name)
    writer.string(name)
    writer.uint32(shape.length)
    for (const size of shape.toReversed()) writer.uint64(size)
    writer.uint32(tensorCodes[dtype])
    writer.uint64(offset)
    offset += padded(ggufBytes(dtype, productOf(shape)))
  }
  const header = writer.finish()
  const aligned = new Uint8Array(padded(header.length))
  aligned.set(header)
  return aligned
}

const valueCodes = { uint32: 4, int32: 5, float32: 6, bool: 7, string: 8, array: 9 } as const

function writeValue(writer: ByteWriter, value: GgufValue): void {
  if ('uint32' in value) {
    writer.uint32(valueCodes.uint32)
    writer.uint32(value.uint32)
  } else if ('float32' in value) {
    writer.uint32(valueCodes.float32)
    writer.float32(value.float32)
  } else if ('bool' in value) {
    writer.uint32(valueCodes.bool)
    writer.bytes(Uint8Array.of(value.bool ? 1 : 0))
  } else if ('string' in value) {
    writer.uint32(valueCodes.string)
    writer.string(value.string)
  } else if ('int32s' in value) {
    writeList(writer, value.int32s, { code: valueCodes.int32, write: writer.int32 })
  } else if ('float32s' in value) {
    writeList(writer, value.float32s, { code: valueCodes.float32, write: writer.float32 })
  } else {
    writeList(writer, value.strings, { code: valueCodes.string, write: writer.string })
  }
}

function writeList<T>(
  writer: ByteWriter,
  list: readonly T[],
  { code, write }: { code: number; write: (item: T) => void },
): void {
  writer.uint32(valueCodes.array)
  writer.uint32(code)
  writer.uint64(list.length)
  for (const item of list) write(item)
}

type ByteWriter = ReturnType<typeof byteWriter>

/** Appends numbers and texts to a buffer that grows. */
function byteWriter() {
  let buffer = new Uint8Array(1 << 16)
  let length = 0
  const room = (bytes: number): DataView => {
    if (length + bytes > buffer.length) {
      const larger = new Uint8Array(Math.max(2 * buffer.length, length + bytes))
      larger.set(buffer)
      buffer = larger
    }
    const view = new DataView(buffer.buffer, length, bytes)
    length += bytes
    return view
  }
  const bytes = (given: Uint8Array) => {
    room(given.length)
    buffer.set(given, length - given.length)
  }
  const uint64 = (value: number) => room(8).setBigUint64(0, BigInt(value), true)
  return {
    bytes,
    uint64,
    uint32: (value: number) => room(4).setUint32(0, value, true),
    int32: (value: number) => room(4).setInt32(0, value, true),
    float32: (value: number) => room(4).setFloat32(0, value, true),
    string(text: string) {
      const encoded = new TextEncoder().encode(text)
      uint64(encoded.length)
      bytes(encoded)
    },
    finish: () => buffer.subarray(0, length),
  }
}

function padded(bytes: number): number {
  return Math.ceil(bytes / alignment) * alignment
}

function productOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}
