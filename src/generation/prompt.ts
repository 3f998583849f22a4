/** A prompt as the language model reads it: ids with one placeholder per visual token, and the pictures that stand there. */

import { createHash } from 'node:crypto'
import { expandPlaceholders, type PictureSpan, type TokenizedConversation } from '../conversation/tokenize.ts'
import { type Arrangement, arrangePicture, type TileGrid } from '../model/arrangement.ts'
import type { LlavaConfig } from '../model/config.ts'

export type Prompt = {
  readonly ids: Int32Array // [L]
  readonly pictures: readonly PromptPicture[] // in order of appearance
}

/** A picture and where its visual tokens stand among the ids. */
export type PromptPicture = PreparedPicture & PictureSpan

export type PreparedPicture = {
  readonly pixels: Float32Array // [J, 3, S, S]
  readonly views: number // J
  /** How its visual tokens follow from those of its views; absent where they are those of its one view. */
  readonly arrangement: Arrangement | undefined
  readonly length: number // M, visual tokens
  readonly key: string // equal for equal pixels in the same arrangement
}

/** A picture as the image processor made it, with the key by which its visual tokens are found again. */
export function preparePicture(
  { data, views, side, grid }: { data: Float32Array; views: number; side: number; grid?: TileGrid | undefined },
  config: LlavaConfig,
): PreparedPicture {
  if (side !== config.vision.imageSide) {
    throw new RangeError(
      `Cannot use the picture: it was prepared with side ${side}, expected the vision encoder's ${config.vision.imageSide}`,
    )
  }
  const arrangement = arrangePicture(config, grid)
  if (arrangement === undefined && views !== 1) {
    throw new RangeError(`Cannot use the picture: it was prepared in ${views} views, expected one`)
  }
  const length = arrangement?.length ?? config.visualTokens
  const hash = createHash('sha256').update(bytesOf(data))
  if (arrangement !== undefined) hash.update(bytesOf(arrangement.sources))
  return { pixels: data, views, arrangement, length, key: hash.digest('base64') }
}

function bytesOf({ buffer, byteOffset, byteLength }: Float32Array | Int32Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength)
}

/**
 * The prompt of a tokenised conversation and its pictures, in order.
 *
 * @throws RangeError when there are not as many pictures as placeholders
 */
export function makePrompt(
  { ids, loss }: TokenizedConversation,
  { pictures, config }: { pictures: readonly PreparedPicture[]; config: LlavaConfig },
): Prompt {
  const visualTokens = pictures.map(({ length }) => length)
  const expanded = expandPlaceholders(ids, loss, { imageToken: config.imageToken, visualTokens })
  const placed = pictures.map((picture, index) => ({ ...picture, start: expanded.pictures[index]?.start ?? 0 }))
  return { ids: expanded.ids, pictures: placed }
}

/** Visual tokens of all pictures together. */
export function countVisualTokens(pictures: readonly PictureSpan[]): number {
  return pictures.reduce((sum, { length }) => sum + length, 0)
}

/** Positions of all visual tokens, picture after picture: where `merge` puts them. */
export function placesOf(pictures: readonly PictureSpan[]): BigInt64Array {
  const places = pictures.flatMap(({ start, length }) => Array.from({ length }, (_, i) => BigInt(start + i)))
  return BigInt64Array.from(places)
}

/** Tokens `from` to `to` (exclusive) and the visual tokens [.., D] that stand among them, counted from the first of the part. */
export function partOf<T extends PictureSpan & { readonly visualTokens: Float32Array }>(
  { ids, pictures }: { ids: Int32Array; pictures: readonly T[] },
  { from, to }: { from: number; to: number },
): { ids: Int32Array; pictures: (PictureSpan & { visualTokens: Float32Array })[] } {
  const inside = pictures.flatMap(({ start, length, visualTokens }) => {
    const [first, end] = [Math.max(start, from), Math.min(start + length, to)]
    if (first >= end) return []
    const width = visualTokens.length / length
    const rows = visualTokens.subarray((first - start) * width, (end - start) * width)
    return [{ start: first - from, length: end - first, visualTokens: rows }]
  })
  return { ids: ids.subarray(from, to), pictures: inside }
}

/**
 * How many tokens of `wanted` are already read, given what was: the longest common beginning, pictures whole and
 * compared by their pixels, and at least one token short of all, because the last one's logits are wanted.
 */
export function commonPrefix(
  read: { readonly ids: ArrayLike<number>; readonly pictures: readonly PromptPicture[] },
  wanted: Prompt,
): number {
  const longest = Math.min(read.ids.length, wanted.ids.length - 1)
  let length = 0
  while (length < longest && read.ids[length] === wanted.ids[length]) length++
  const isRead = ({ start, length: tokens, key }: PromptPicture) =>
    start + tokens <= length && read.pictures.some((picture) => picture.start === start && picture.key === key)
  const strange = wanted.pictures.find((picture) => !isRead(picture))
  // A placeholder id that was generated is a token, not a picture.
  const gone = read.pictures.find(({ start }) => !wanted.pictures.some((picture) => picture.start === start))
  return Math.max(0, Math.min(length, strange?.start ?? length, gone?.start ?? length))
}
