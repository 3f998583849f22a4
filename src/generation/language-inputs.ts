/** What the language graph is given besides its cache: token ids, visual tokens and how far each row reaches. */

import type { LlavaConfig } from '../model/config.ts'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { joined } from './joined.ts'
import { type PromptPicture, placesOf } from './prompt.ts'

/** A picture's visual tokens [M, D] and where they stand. */
export type EncodedPicture = Pick<PromptPicture, 'start' | 'length'> & { readonly visualTokens: Float32Array }

/** Tokens of one row that follow `past` others. */
export function promptInputs(
  config: LlavaConfig,
  { ids, pictures, past }: { ids: Int32Array; pictures: readonly EncodedPicture[]; past: number },
): Record<string, ResidentTensor> {
  return {
    ...sequenceInputs(config, { ids, pictures }),
    lastRows: residentTensor('int64', [1], { data: BigInt64Array.of(BigInt(ids.length - 1)) }),
    ...reach([past + ids.length]),
  }
}

/** Tokens of one row that follow `past` others, each with logits after it. */
export function severalInputs(
  config: LlavaConfig,
  { ids, past }: { ids: readonly number[]; past: number },
): Record<string, ResidentTensor> {
  return {
    ...sequenceInputs(config, { ids: Int32Array.from(ids), pictures: [] }),
    lastRows: residentTensor('int64', [ids.length], { data: BigInt64Array.from(ids, (_, row) => BigInt(row)) }),
    ...reach([past + ids.length]),
  }
}

/** One token more per row: `ids` [B] follow `past` [B] others. */
export function stepInputs(
  config: LlavaConfig,
  { ids, past }: { ids: readonly number[]; past: readonly number[] },
): Record<string, ResidentTensor> {
  return {
    ids: residentTensor('int64', [ids.length, 1], { data: BigInt64Array.from(ids, BigInt) }),
    visualTokens: residentTensor('float32', [0, config.language.width]),
    places: residentTensor('int64', [0]),
    lastRows: residentTensor('int64', [ids.length], { data: BigInt64Array.from(ids, (_, row) => BigInt(row)) }),
    ...reach(past.map((length) => length + 1)),
  }
}

/** A sequence [1, L] and the visual tokens [M, D] of its pictures, as `mergedSequence` takes them. */
export function sequenceInputs(
  { language }: LlavaConfig,
  { ids, pictures }: { ids: Int32Array; pictures: readonly EncodedPicture[] },
): Record<'ids' | 'visualTokens' | 'places', ResidentTensor> {
  const tokens = joined(pictures.map(({ visualTokens }) => visualTokens)) // [M, D]
  const places = placesOf(pictures)
  return {
    // A placeholder need not be a token of the vocabulary: what is looked up for it gives way to the picture.
    ids: residentTensor('int64', [1, ids.length], { data: BigInt64Array.from(ids, (id) => BigInt(Math.max(0, id))) }),
    visualTokens: residentTensor('float32', [places.length, language.width], { data: tokens }),
    places: residentTensor('int64', [places.length], { data: places }),
  }
}

/** How far each row reaches after a call, as `cachedAttention` wants to be told. */
function reach(lengths: readonly number[]): Record<'lastIndex' | 'total', ResidentTensor> {
  return {
    lastIndex: residentTensor('int32', [lengths.length], { data: Int32Array.from(lengths, (length) => length - 1) }),
    total: residentTensor('int32', [], { data: Int32Array.of(Math.max(...lengths)) }),
  }
}
