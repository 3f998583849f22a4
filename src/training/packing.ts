/** Packing: several samples share one row of length L, and none of them knows of the others. */

import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { add, causalMask, constant, reshape, scaleBy, square, sub, type Tensor } from '../tensor/index.ts'
import { type EncodedSample, textInputs } from './batches.ts'

type RowLimits = { readonly length: number; readonly pictureTokens: number }

/**
 * The first row that still has room for a sample: L tokens, of which L − P may be learned, as in rows of one sample. Undefined when there is none.
 */
export function findRow(
  rows: readonly (readonly EncodedSample[])[],
  sample: EncodedSample,
  { length, pictureTokens }: RowLimits,
): number | undefined {
  const index = rows.findIndex((row) => {
    const all = [...row, sample]
    const tokens = all.reduce((sum, { ids }) => sum + ids.length, 0)
    const learned = all.reduce((sum, { loss }) => sum + countLearned(loss), 0)
    return tokens <= length && learned <= length - pictureTokens
  })
  return index === -1 ? undefined : index
}

/** The most pictures that rows of L tokens can hold: each has P tokens and at least one that is learned. */
export function picturesPerBatch(batch: number, { length, pictureTokens }: RowLimits): number {
  return batch * Math.max(1, Math.floor(length / (pictureTokens + 1)))
}

export function countLearned(loss: Uint8Array): number {
  return loss.reduce((sum, one) => sum + one, 0)
}

/**
 * Inputs of `packedAnswerLoss` apart from the pictures, which are those of the samples in the order of the rows.
 *
 * `positions` [B, L] count from 0 in every sample, `segments` [B, L] say which sample of its row a token is of (padding is one of its own), and
 * `sources` [B, L] where its embedding comes from: the B·L words, then the visual tokens.
 */
export function packedInputs(
  rows: readonly (readonly EncodedSample[])[],
  { pictureTokens: P, length, tokenCount }: RowLimits & { tokenCount: number },
): Record<string, ResidentTensor> {
  const batch = rows.length
  const positions = new BigInt64Array(batch * length)
  const segments = new Float32Array(batch * length)
  const sources = BigInt64Array.from({ length: batch * length }, (_, index) => BigInt(index))
  const placed: { sample: EncodedSample; start: number }[] = []
  let pictures = 0
  rows.forEach((row, b) => {
    let start = b * length
    row.forEach((sample, segment) => {
      const { ids, pictureStart } = sample
      placed.push({ sample, start })
      for (let t = 0; t < ids.length; t++) positions[start + t] = BigInt(t)
      segments.fill(segment, start, start + ids.length)
      if (pictureStart !== undefined) {
        const first = batch * length + P * pictures++
        for (let p = 0; p < P; p++) sources[start + pictureStart + p] = BigInt(first + p)
      }
      start += ids.length
    })
    segments.fill(row.length, start, (b + 1) * length)
  })
  return {
    ...textInputs(placed, { batch, pictureTokens: P, length, tokenCount }),
    positions: residentTensor('int64', [batch, length], { data: positions }),
    segments: residentTensor('float32', [batch, length], { data: segments }),
    sources: residentTensor('int64', [batch, length], { data: sources }),
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
