/**
 * Patch features on disk. The encoder is frozen in both of the paper's stages, so what it sees in a picture is the same on every pass and in every
 * run: it is computed once and read back, to the bit.
 *
 * A folder per encoder and preprocessing, a safetensors file per picture: P·C·4 bytes, 2.4 MB for CLIP ViT-L/14 at 336 px.
 */

import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { closeSafetensors, openSafetensors, readTensor } from '../checkpoint/safetensors.ts'
import { writeSafetensors } from '../checkpoint/safetensors-writer.ts'

export type FeatureCache = {
  /** Features [P, C] of the picture that `key` stands for; undefined when there are none, or what is there is damaged. */
  readonly read: (key: string) => Promise<Float32Array | undefined>
  /** Keeps features. The first write that fails is the last one tried: it becomes a notice, and nothing is thrown. */
  readonly write: (key: string, features: Float32Array) => Promise<void>
  /** What a person should know since the last call, a sentence each. */
  readonly takeNotices: () => string[]
}

/**
 * The cache below `folder` for features of one kind: `fingerprint` stands for everything that they depend on besides the picture. Keys are hashes in
 * hexadecimal digits. Nothing is written before the first features are.
 */
export function openFeatureCache(
  folder: string,
  { fingerprint, shape }: { fingerprint: string; shape: readonly [number, number] },
): FeatureCache {
  const own = join(folder, fingerprint.slice(0, 32))
  const place = (key: string) => join(own, key.slice(0, 2)) // few enough entries per folder
  const path = (key: string) => join(place(key), `${key}.safetensors`)
  let notices: string[] = []
  let writing = true
  return {
    read: (key) => readFeatures(path(key), shape).catch(() => undefined), // absent or damaged: computed again
    write: async (key, features) => {
      if (!writing) return
      try {
        await mkdir(place(key), { recursive: true })
        const metadata = { sha256: hashOf(features) }
        await writeSafetensors(path(key), { features: { shape, data: features } }, { metadata })
      } catch (error) {
        if (!writing) return // another write has told already
        writing = false
        const reason = error instanceof Error ? error.message : String(error)
        notices.push(`Training goes on without keeping more features in ${folder}: ${reason}`)
      }
    },
    takeNotices: () => {
      const taken = notices
      notices = []
      return taken
    },
  }
}

async function readFeatures(path: string, shape: readonly number[]): Promise<Float32Array | undefined> {
  const file = await openSafetensors(path)
  try {
    const { dtype, shape: found, data } = await readTensor(file, 'features')
    if (dtype !== 'F32' || String(found) !== String(shape)) return undefined
    const features = new Float32Array(data.slice().buffer)
    return file.metadata.get('sha256') === hashOf(features) ? features : undefined
  } finally {
    await closeSafetensors(file)
  }
}

/** SHA-256 of the bytes of an array, in hexadecimal digits. */
export function hashOf(values: Float32Array | Uint8Array): string {
  const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength)
  return createHash('sha256').update(bytes).digest('hex')
}
