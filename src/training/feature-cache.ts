/**
 * Patch features on disk. The encoder is frozen in both of the paper's stages, so what it sees in a picture is the same on every pass and in every
 * run: it is computed once and read back, to the bit.
 *
 * A folder per encoder and preprocessing, a safetensors file per picture: P·C·4 bytes, 2.4 MB for CLIP ViT-L/14 at 336 px.
 */

import { join } from 'node:path'
import { readArray, writeArray } from '../checkpoint/array-file.ts'

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
  const path = (key: string) => join(own, key.slice(0, 2), `${key}.safetensors`) // few enough entries per folder
  const name = 'features'
  let notices: string[] = []
  let writing = true
  return {
    read: (key) => readArray(path(key), { name, shape }),
    write: async (key, features) => {
      if (!writing) return
      try {
        await writeArray(path(key), { name, shape, data: features })
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
