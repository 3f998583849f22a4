/** Reads safetensors files: the header at once, each tensor by a ranged read when it is asked for. */

import { type FileHandle, open } from 'node:fs/promises'
import type { Dtype } from './dtype.ts'
import { quote } from './json.ts'
import { readFully } from './ranged-read.ts'
import { parseHeader, parseHeaderLength, type SafetensorsHeader } from './safetensors-header.ts'

export type SafetensorsFile = SafetensorsHeader & {
  path: string
  handle: FileHandle
  dataStart: number // bytes from the start of the file
}

export type StoredTensor = { dtype: Dtype; shape: readonly number[]; data: Uint8Array }

/**
 * Opens a file and checks its header; no tensor is read yet. Close it with `closeSafetensors`.
 * Errors: `SyntaxError` or `RangeError` for a header that breaks the format, the system's error when it cannot be opened.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const handle = await open(path)
  try {
    const { size } = await handle.stat()
    if (size < 8)
      throw new RangeError(`Cannot read ${path}: found ${size} bytes, expected a safetensors file of at least 10`)
    const prefix = await readFully(handle, { begin: 0, end: 8, what: path })
    const headerBytes = parseHeaderLength(prefix, { path, fileBytes: size })
    const dataStart = 8 + headerBytes
    const header = await readFully(handle, { begin: 8, end: dataStart, what: path })
    return { ...parseHeader(header, { path, dataBytes: size - dataStart }), path, handle, dataStart }
  } catch (error) {
    await handle.close()
    throw error
  }
}

/** Reads one tensor as it is stored. Errors: `RangeError` when the file has none of that name. */
export async function readTensor(file: SafetensorsFile, name: string): Promise<StoredTensor> {
  const entry = file.tensors.get(name)
  if (entry === undefined) throw new RangeError(`Cannot read tensor ${quote(name)}: ${file.path} does not contain it`)
  const data = await readFully(file.handle, {
    begin: file.dataStart + entry.begin,
    end: file.dataStart + entry.end,
    what: `tensor ${quote(name)} of ${file.path}`,
  })
  return { dtype: entry.dtype, shape: entry.shape, data }
}

export async function closeSafetensors(file: SafetensorsFile): Promise<void> {
  await file.handle.close()
}
