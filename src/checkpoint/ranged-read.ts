/** Reads an exact range of bytes of an open file. */

import { constants } from 'node:buffer'
import type { FileHandle } from 'node:fs/promises'

const chunk = 64 * 1024 * 1024 // one system call reads at most 2 GiB; smaller ones keep other work going

/**
 * Bytes `begin` to `end` in a fresh buffer (aligned for every number format).
 * Errors: `RangeError` when the range cannot be held in one buffer, `Error` when the file ends early.
 */
export async function readFully(
  handle: FileHandle,
  { begin, end, what }: { begin: number; end: number; what: string },
): Promise<Uint8Array> {
  const length = end - begin
  if (length > constants.MAX_LENGTH) {
    throw new RangeError(`Cannot read ${what}: found ${length} bytes, expected at most ${constants.MAX_LENGTH}`)
  }
  const bytes = new Uint8Array(length)
  let filled = 0
  while (filled < length) {
    const { bytesRead } = await handle.read(bytes, filled, Math.min(chunk, length - filled), begin + filled)
    if (bytesRead === 0) {
      throw new Error(`Cannot read ${what}: the file ends at byte ${begin + filled}, expected at least ${end} bytes`)
    }
    filled += bytesRead
  }
  return bytes
}
