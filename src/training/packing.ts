/** Packing: several samples share one row of length L, and none of them knows of the others. */

import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { add, causalMask, constant, reshape, scaleBy, square, sub, type Tensor } from '../tensor/index.ts'
import type { EncodedSample } from './batches.ts'
import { type GatheringOptions, gatheredInputs } from './gathering.ts'

export type RowLimits = {
  readonly length: number
  readonly pictureTokens: number
  /** Views that a row has room for. */
  readonly views: number
}

/**
 * The first row that still has room for a sample: L tokens, of which L − P may be learned, as in rows of one sample, and its views. Undefined when
 * there is none.
 */
export function findRow(
  rows: readonly (readonly EncodedSample[])[],
  sample: EncodedSample,
  { length, pictureTokens, views }: RowLimits,
): number | undefined {
  const index = rows.findIndex((row) => {
    const all = [...row, sample]
    const tokens = all.reduce((sum, { ids }) => sum + ids.length, 0)
    const learned = all.reduce((sum, { loss }) => sum + countLearned(loss), 0)
    return tokens <= length && learned <= length - pictureTokens && countViews(all) <= views
  })
  return index === -1 ? undefined : index
}

/**
 * Views that a row of L tokens has room for when packed: as many as pictures of one view, each with its P tokens and at least one that is learned, and no
 * fewer than one sample can have.
 */
export function viewsPerRow({ length, pictureTokens, views }: RowLimits): number {
  return Math.max(views, Math.floor(length / (pictureTokens + 1)))
}

function countViews(samples: readonly EncodedSample[]): number {
  return samples.flatMap(({ pictures }) => pictures).reduce((sum, { views }) => sum + views, 0)
}

export function countLearned(loss: Uint8Array): number {
  return loss.reduce((sum, one) => sum + one, 0)
}

/**
 * Inputs of a packed `gatheredAnswerLoss` apart from the views: those of rows that are not packed, and `positions` [B, L], which count from 0 in every
 * sample, and `segments` [B, L], which say which sample of its row a token is of (padding is one of its own).
 */
export function packedInputs(
  rows: readonly (readonly EncodedSample[])[],
  options: GatheringOptions,
): Record<string, ResidentTensor> {
  const { length } = options
  const batch = rows.length
  const positions = new BigInt64Array(batch * length)
  const segments = new Float32Array(batch * length)
  rows.forEach((row, b) => {
    let start = b * length
    row.forEach(({ ids }, segment) => {
      for (let t = 0; t < ids.length; t++) positions[start + t] = BigInt(t)
      segments.fill(segment, start, start + ids.length)
      start += ids.length
    })
    segments.fill(row.length, start, (b + 1) * length)
  })
  return {
    ...gatheredInputs(rows, options),
    positions: residentTensor('int64', [batch, length], { data: positions }),
    segments: residentTensor('float32', [batch, length], { data: segments }),
  }
}

/**
 * Segments [B, L] → what to add to scores, [B, 1, L, L]: 0 for the tokens of the same segment that are not ahead, −10⁹ or less for all others. Written
 * as −10⁹·(difference)², so that B·L numbers enter the graph and not B·L².
 */
export function blockDiagonalMask(
  segments: Tensor,
  { batch: B, length: L }: { batch: number; length: number },
): Tensor {
  const apart = square(sub(reshape(segments, [B, 1, L, 1]), reshape(segments, [B, 1, 1, L]))) // [B, 1, L, L]
  return add(scaleBy(apart, -1e9), constant('float32', [L, L], causalMask(L)))
}
