/** A prompt as the language model reads it: ids with one placeholder per visual token, and the pictures that stand there. */

import { createHash } from 'node:crypto'
import { expandPlaceholders, type TokenizedConversation } from '../conversation/tokenize.ts'
import type { LlavaConfig } from '../model/config.ts'

export type Prompt = {
  readonly ids: Int32Array // [L]
  readonly pictures: readonly PromptPicture[] // in order of appearance
}

export type PromptPicture = PreparedPicture & {
  readonly start: number // position of its first visual token
}

export type PreparedPicture = {
  readonly pixels: Float32Array // [3, S, S]
  readonly key: string // equal for equal pixels
}

/** A picture with the key by which its visual tokens are found again. */
export function preparePicture(pixels: Float32Array, { vision }: LlavaConfig): PreparedPicture {
  const expected = 3 * vision.imageSide ** 2
  if (pixels.length !== expected) {
    const side = Math.sqrt(pixels.length / 3)
    throw new RangeError(
      `Cannot use the picture: it was prepared with side ${side}, expected the vision encoder's ${vision.imageSide}`,
    )
  }
  const bytes = new Uint8Array(pixels.buffer, pixels.byteOffset, pixels.byteLength)
  return { pixels, key: createHash('sha256').update(bytes).digest('base64') }
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
  const { imageToken, visualTokens: P } = config
  const expanded = expandPlaceholders(ids, loss, { imageToken, visualTokens: pictures.map(() => P) })
  const placed = pictures.map((picture, index) => ({ ...picture, start: expanded.pictures[index]?.start ?? 0 }))
  return { ids: expanded.ids, pictures: placed }
}

/**
 * How many tokens of `wanted` are already read, given what was: the longest common beginning, pictures whole and
 * compared by their pixels, and at least one token short of all, because the last one's logits are wanted.
 */
export function commonPrefix(
  read: { readonly ids: ArrayLike<number>; readonly pictures: readonly PromptPicture[] },
  wanted: Prompt,
  { visualTokens: P }: LlavaConfig,
): number {
  const longest = Math.min(read.ids.length, wanted.ids.length - 1)
  let length = 0
  while (length < longest && read.ids[length] === wanted.ids[length]) length++
  const isRead = ({ start, key }: PromptPicture) =>
    start + P <= length && read.pictures.some((picture) => picture.start === start && picture.key === key)
  const strange = wanted.pictures.find((picture) => !isRead(picture))
  // A placeholder id that was generated is a token, not a picture.
  const gone = read.pictures.find(({ start }) => !wanted.pictures.some((picture) => picture.start === start))
  return Math.max(0, Math.min(length, strange?.start ?? length, gone?.start ?? length))
}
