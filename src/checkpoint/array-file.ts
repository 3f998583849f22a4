/** One float32 array in a safetensors file of its own, with its hash: what was cut short or damaged counts as absent and is computed again. */

import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { closeSafetensors, openSafetensors, readTensor } from './safetensors.ts'
import { writeSafetensors } from './safetensors-writer.ts'

type Described = { readonly name: string; readonly shape: readonly number[] }

/** The array, to the bit; undefined when there is none of this name and shape, or when it is damaged. */
export async function readArray(path: string, { name, shape }: Described): Promise<Float32Array | undefined> {
  try {
    const file = await openSafetensors(path)
    try {
      const { dtype, shape: found, data } = await readTensor(file, name)
      if (dtype !== 'F32' || String(found) !== String(shape)) return undefined
      const values = new Float32Array(data.slice().buffer)
      return file.metadata.get('sha256') === hashOf(values) ? values : undefined
    } finally {
      await closeSafetensors(file)
    }
  } catch {
    return undefined // not there, or no such file any more
  }
}

/** Writes beside and renames; makes the folder where it is missing. */
export async function writeArray(
  path: string,
  { name, shape, data }: Described & { data: Float32Array },
): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  await writeSafetensors(path, { [name]: { shape, data } }, { metadata: { sha256: hashOf(data) } })
}

/** SHA-256 of the bytes of an array or a text, in hexadecimal digits. */
export function hashOf(values: Float32Array | Uint8Array | string): string {
  const bytes =
    typeof values === 'string' ? values : new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  return createHash('sha256').update(bytes).digest('hex')
}
