/**
 * From segments to ids: the loss mask is built while tokenising, and pictures are spliced between finished ids.
 *
 * Text is tokenised as the reference does it: a chunk at the start and after each picture is read as if a string began
 * there (SentencePiece puts its dummy space), text after a special token goes on without one unless the checkpoint
 * asks for it (`legacy`). No string with a placeholder in it is ever tokenised.
 */
import { type ChatTemplate, renderChatTemplate } from './chat-template.ts'
import { type RenderOptions, renderTurns, type Segment } from './render.ts'
import type { Template } from './templates.ts'
import { encodeText, type Tokenizer, tokenId } from './tokenizer.ts'
import type { Turn } from './turns.ts'

export type TokenizedConversation = {
  readonly ids: Int32Array // [T], the id of the image token once per picture
  readonly loss: Uint8Array // [T], 1 where the token is learned
}

export type ExpandedConversation = {
  readonly ids: Int32Array // [L]
  readonly loss: Uint8Array // [L]
  readonly pictures: readonly PictureSpan[] // in order of appearance
}

/** Where the visual tokens of a picture lie in the merged sequence. */
export type PictureSpan = { readonly start: number; readonly length: number }

/**
 * Ids and loss mask of a conversation.
 *
 * @param options.imageToken id that stands for a picture: `image_token_index` of the checkpoint, or -200 as the
 *   reference uses
 * @throws RangeError when the turns do not fit the template, or the tokenizer lacks one of its special tokens
 */
export function tokenizeConversation(
  turns: readonly Turn[],
  {
    template,
    tokenizer,
    imageToken,
    generationPrompt = false,
  }: RenderOptions & { template: Template | ChatTemplate; tokenizer: Tokenizer; imageToken: number },
): TokenizedConversation {
  const segments =
    template.style === 'jinja'
      ? renderChatTemplate(template, turns, { tokenizer, generationPrompt })
      : renderTurns(template, turns, { generationPrompt })
  return tokenizeSegments(segments, { tokenizer, imageToken })
}

/** Ids and loss mask of rendered segments; a leading `<s>` is added where the tokenizer adds one and none is there. */
export function tokenizeSegments(
  segments: readonly Segment[],
  { tokenizer, imageToken }: { tokenizer: Tokenizer; imageToken: number },
): TokenizedConversation {
  if (!Number.isInteger(imageToken)) {
    throw new TypeError(`Cannot tokenise: found image token ${imageToken}, expected a whole number`)
  }
  const ids: number[] = [] // [T]
  const loss: number[] = [] // [T]
  const append = (added: readonly number[], learned: boolean) => {
    for (const id of added) {
      ids.push(id)
      loss.push(learned ? 1 : 0)
    }
  }
  let continuation = false
  const merged = mergeTexts(segments)
  const first = merged[0]
  const bos = tokenizer.addsBos ? tokenizer.bosId : undefined
  if (bos !== undefined && !(first !== undefined && 'token' in first && tokenId(tokenizer, first.token) === bos)) {
    append([bos], false)
  }
  for (const segment of merged) {
    if ('image' in segment) {
      append([imageToken], false)
      continuation = false
    } else if ('token' in segment) {
      const id = tokenId(tokenizer, segment.token)
      append([id], segment.loss)
      continuation = !tokenizer.legacy && !(id === tokenizer.bosId && ids.length === 1)
    } else {
      append(encodeText(tokenizer, segment.text, { continuation }), segment.loss)
      continuation = true
    }
  }
  return { ids: Int32Array.from(ids), loss: Uint8Array.from(loss) }
}

/**
 * The sequence with each placeholder repeated once per visual token of its picture.
 *
 * @param options.visualTokens how many visual tokens each picture has, in order
 * @throws RangeError when there are not as many pictures as placeholders
 */
export function expandPlaceholders(
  ids: Int32Array, // [T]
  loss: Uint8Array, // [T]
  { imageToken, visualTokens }: { imageToken: number; visualTokens: readonly number[] },
): ExpandedConversation {
  if (ids.length !== loss.length) {
    throw new RangeError(`Cannot expand placeholders: found ${ids.length} ids and a loss mask of ${loss.length}`)
  }
  const placeholders = ids.reduce((count, id) => count + (id === imageToken ? 1 : 0), 0)
  if (placeholders !== visualTokens.length) {
    throw new RangeError(
      `Cannot expand placeholders: found ${placeholders} in the prompt, expected one for each of ${visualTokens.length} pictures`,
    )
  }
  const bad = visualTokens.find((count) => !Number.isInteger(count) || count < 1)
  if (bad !== undefined) {
    throw new RangeError(`Cannot expand placeholders: found a picture of ${bad} visual tokens, expected at least one`)
  }
  const length = ids.length - placeholders + visualTokens.reduce((sum, count) => sum + count, 0)
  const merged = { ids: new Int32Array(length), loss: new Uint8Array(length), pictures: [] as PictureSpan[] } // [L]
  let position = 0
  for (const [index, id] of ids.entries()) {
    const count = id === imageToken ? (visualTokens[merged.pictures.length] ?? 0) : 1
    if (id === imageToken) merged.pictures.push({ start: position, length: count })
    merged.ids.fill(id, position, position + count)
    merged.loss.fill(loss[index] ?? 0, position, position + count)
    position += count
  }
  return merged
}

/** Neighbouring texts of the same loss become one, so that pieces form across their border as in the whole string. */
function mergeTexts(segments: readonly Segment[]): Segment[] {
  const merged: Segment[] = []
  for (const segment of segments) {
    const last = merged.at(-1)
    if ('text' in segment && last !== undefined && 'text' in last && last.loss === segment.loss) {
      merged[merged.length - 1] = { text: last.text + segment.text, loss: last.loss }
    } else if (!('text' in segment) || segment.text !== '') merged.push(segment)
  }
  return merged
}
