/** Pictures named on the command line: a path, or `-` for standard input. */

import { decodeImage } from '../image/decode.ts'
import type { Pixels } from '../image/pixels.ts'

/** Decoded before a model is opened, which may take long: a wrong path is told at once. */
export async function openPicture(path: string, signal: AbortSignal): Promise<Pixels> {
  return decodeImage(path === '-' ? await readStandardInput() : path, { signal })
}

async function readStandardInput(): Promise<Uint8Array> {
  if (process.stdin.isTTY) {
    throw new Error('Cannot read a picture from standard input: it is a terminal, expected the bytes of a picture')
  }
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(chunk)
  return Buffer.concat(chunks)
}
