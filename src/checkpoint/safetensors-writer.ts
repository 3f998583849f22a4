/** Writes safetensors files (format: see safetensors-header.ts), one tensor in memory at a time beyond the given ones. */

import type { FileHandle } from 'node:fs/promises'
import { writeFileAtomically } from './atomic-file.ts'
import { type Dtype, dtypeBytes, fromFloat32, type WeightDtype } from './dtype.ts'
import { quote } from './json.ts'
import { longestHeader } from './safetensors-header.ts'

/** Float32 values, stored in the format asked for (given, or read when their turn comes), or bytes that are stored as they are. */
export type TensorToWrite =
  | { shape: readonly number[]; data: Float32Array }
  | { shape: readonly number[]; read: () => Promise<Float32Array> }
  | { shape: readonly number[]; data: Uint8Array; dtype: Dtype }

export type SafetensorsOptions = {
  metadata?: Record<string, string>
  dtype?: WeightDtype // for float32 values, default F32
  signal?: AbortSignal | undefined
}

/**
 * Writes a file atomically: on any error the old file is still there and nothing else.
 * Errors: `RangeError` for data that does not fill its shape, `Error` for a name given twice or reserved.
 */
export async function writeSafetensors(
  path: string,
  tensors: Iterable<readonly [string, TensorToWrite]> | Record<string, TensorToWrite>,
  { metadata = {}, dtype = 'F32', signal }: SafetensorsOptions = {},
): Promise<void> {
  const list = Symbol.iterator in tensors ? [...tensors] : Object.entries(tensors)
  const planned = list.map(([name, tensor]) => plan({ name, tensor, dtype }))
  // Widest numbers first, as the reference implementation does: then every tensor is aligned to its number format.
  planned.sort((a, b) => dtypeBytes[b.dtype] - dtypeBytes[a.dtype])
  const header = encodeHeader(planned, metadata)
  await writeFileAtomically(path, async (handle) => {
    await writeFully(handle, header)
    for (const { load } of planned) {
      signal?.throwIfAborted()
      await writeFully(handle, await load())
    }
  })
}

type PlannedTensor = {
  name: string
  shape: readonly number[]
  dtype: Dtype
  size: number // bytes
  load: () => Promise<Uint8Array>
}

function plan({ name, tensor, dtype }: { name: string; tensor: TensorToWrite; dtype: WeightDtype }): PlannedTensor {
  if (['__metadata__', '__proto__', 'constructor', 'prototype'].includes(name)) {
    throw new Error(`Cannot write a tensor named ${quote(name)}, expected a name that is not reserved`)
  }
  const { shape } = tensor
  const stored = 'dtype' in tensor ? tensor.dtype : dtype
  const elements = shape.reduce((product, size) => product * size, 1)
  const expectElements = (given: number) => {
    if (shape.every((size) => Number.isSafeInteger(size) && size >= 0) && given === elements) return
    throw new RangeError(
      `Cannot write tensor ${quote(name)}: found ${given} elements of ${stored} for shape [${shape}], expected ${elements}`,
    )
  }
  expectElements(
    'read' in tensor ? elements : 'dtype' in tensor ? tensor.data.byteLength / dtypeBytes[stored] : tensor.data.length,
  )
  const load = async () => {
    if ('dtype' in tensor) return tensor.data
    const data = 'read' in tensor ? await tensor.read() : tensor.data
    expectElements(data.length)
    return fromFloat32(dtype, data)
  }
  return { name, shape, dtype: stored, size: elements * dtypeBytes[stored], load }
}

function encodeHeader(planned: readonly PlannedTensor[], metadata: Record<string, string>): Uint8Array {
  const entries = new Map<string, unknown>()
  if (Object.keys(metadata).length > 0) entries.set('__metadata__', metadata)
  let offset = 0
  for (const { name, shape, dtype, size } of planned) {
    if (entries.has(name))
      throw new Error(`Cannot write tensor ${quote(name)}: found it twice, expected one of each name`)
    entries.set(name, { dtype, shape, data_offsets: [offset, offset + size] })
    offset += size
  }
  const json = new TextEncoder().encode(JSON.stringify(Object.fromEntries(entries)))
  const length = Math.ceil(json.byteLength / 8) * 8 // the data then starts at a multiple of 8
  if (length > longestHeader) {
    throw new RangeError(`Cannot write a safetensors header of ${length} bytes, expected at most ${longestHeader}`)
  }
  const bytes = new Uint8Array(8 + length).fill(0x20) // spaces
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true)
  bytes.set(json, 8)
  return bytes
}

/** Writes all bytes at the end of what was written before. */
export async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  const chunk = 64 * 1024 * 1024
  let written = 0
  while (written < bytes.byteLength) {
    const { bytesWritten } = await handle.write(bytes, written, Math.min(chunk, bytes.byteLength - written))
    written += bytesWritten
  }
}
