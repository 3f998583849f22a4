/** Loads a CLIP or SigLIP checkpoint (CLIPModel, SiglipModel) under our names and as float32. */

import type { ClipConfig } from '../model/clip-config.ts'
import { expectedClipTensors, isClipConstant, toCanonicalClip } from './clip-layouts.ts'
import { closeCheckpoint, openCheckpoint } from './folder.ts'
import { readRenamed, type Weights } from './load.ts'
import type { Rename } from './places.ts'

/** How CLIPModel, SiglipModel and their vision encoders name tensors. */
export const renameClip: Rename = (foreign) => {
  if (isClipConstant(foreign)) return 'ignored'
  const ours = toCanonicalClip(foreign)
  return ours === undefined ? 'unknown' : { ours }
}

/** Loads every tensor that `config` expects. Errors: those of `loadWeights`. */
export async function loadClipWeights(folder: string, config: ClipConfig): Promise<Weights> {
  const checkpoint = await openCheckpoint(folder)
  try {
    return await readRenamed(checkpoint, {
      expected: expectedClipTensors(config),
      optional: new Set(),
      rename: renameClip,
    })
  } finally {
    await closeCheckpoint(checkpoint)
  }
}
