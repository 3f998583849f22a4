/**
 * Inputs for rows whose pictures differ in number and arrangement, while the graph has one shape: where the embedding at each position comes from is
 * said in numbers (`gatheredSequence` in model/llava.ts).
 */

import { mostSources } from '../model/arrangement.ts'
import type { LlavaConfig } from '../model/config.ts'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { type EncodedSample, type PlacedSample, textInputs } from './batches.ts'

export type GatheringOptions = {
  config: LlavaConfig
  /** Tokens of a picture, or of a view of it. */
  pictureTokens: number
  length: number
  /** Views that the whole batch has room for. */
  views: number
  tokenCount: number
}

/**
 * Inputs of `gatheredAnswerLoss` apart from the views, which are those of the samples' pictures in the order of the rows.
 *
 * `sources` [K, B, L] say of which rows of [B·L words; visual tokens of all views; newline] an embedding is the sum, `shares` [K, B, L, 1] how much of
 * each. Where K is 1 there are no shares, and `sources` are [B, L].
 */
export function gatheredInputs(
  rows: readonly (readonly EncodedSample[])[],
  { config, pictureTokens, length, views, tokenCount }: GatheringOptions,
): Record<string, ResidentTensor> {
  const batch = rows.length
  const placed = placeSamples(rows, { length })
  const K = mostSources(config)
  const words = batch * length
  const newline = words + views * pictureTokens
  const sources = new BigInt64Array(K * words)
  const shares = new Float32Array(K * words)
  for (let at = 0; at < words; at++) sources[at] = BigInt(at) // a word is itself, once
  shares.fill(1, 0, words)
  let first = words // row of the first visual token of the next picture's first view
  for (const { sample, start } of placed) {
    for (const { start: inside, length: M, views: J, arrangement } of sample.pictures) {
      const rowOf = (source: number) => (source === J * pictureTokens ? newline : first + source)
      for (let t = 0; t < M; t++) {
        for (let k = 0; k < K; k++) {
          const at = k * words + start + inside + t
          const known = k * M + t
          sources[at] = BigInt(rowOf(arrangement === undefined ? t : (arrangement.sources[known] ?? 0)))
          shares[at] = arrangement === undefined ? Number(k === 0) : (arrangement.shares[known] ?? 0)
        }
      }
      first += J * pictureTokens
    }
  }
  return {
    ...textInputs(placed, { batch, pictureTokens, length, tokenCount }),
    sources: residentTensor('int64', K === 1 ? [batch, length] : [K, batch, length], { data: sources }),
    ...(K > 1 && { shares: residentTensor('float32', [K, batch, length, 1], { data: shares }) }),
  }
}

/** Samples one after the other in their rows. */
function placeSamples(
  rows: readonly (readonly EncodedSample[])[],
  { length }: { length: number },
): readonly PlacedSample[] {
  return rows.flatMap((row, b) => {
    let start = b * length
    return row.map((sample) => {
      const placed = { sample, start }
      start += sample.ids.length
      return placed
    })
  })
}
