/**
 * Ids back to text, whole or one token at a time: bytes are collected until they make a character.
 *
 * Two families are read: byte-level BPE (GPT-2, Qwen, Llama 3) and SentencePiece with byte fallback (LLaMA, Mistral,
 * Yi), where `<0xE2>` is one byte and `▁` a space. Decoding a whole answer is the same code as streaming it.
 */
import { bytesOfPiece } from './byte-alphabet.ts'
import { components } from './tokenizer-file.ts'

/** How the pieces of a vocabulary turn into bytes. */
export type DecodingRule = {
  readonly alphabet: 'byte-level' | 'sentence-piece'
  readonly space: string // what stands for a space in a piece
  readonly dummyPrefix: boolean // whether a text starts with a space that encoding added
}

/** What streaming needs of a tokenizer. */
type Vocabulary = {
  readonly pieces: readonly (string | undefined)[]
  readonly addedTokens: ReadonlyMap<string, { readonly special: boolean }>
  readonly decoding: DecodingRule
}

export type DecodeOptions = {
  /**
   * The space before the first word: `as-encoded` (default) removes the dummy prefix that encoding added, `keep`
   * removes nothing (text that goes on after other text), `trim` removes all white space (an answer).
   */
  leadingSpace?: 'as-encoded' | 'keep' | 'trim'
  /** Whether special tokens appear by their name; by default they give no text. */
  specialTokens?: 'skip' | 'show'
}

export type TextStream = {
  /** Text that became complete with this id, often empty; never half a character. */
  push(id: number): string
  /** The rest: bytes that never became a character, as U+FFFD. */
  flush(): string
}

/**
 * Text of the ids. Ids without a piece (padding rows of a language model's head) give no text.
 *
 * @throws RangeError when an id is negative or no whole number
 */
export function decode(tokenizer: Vocabulary, ids: Iterable<number>, options: DecodeOptions = {}): string {
  const stream = createTextStream(tokenizer, options)
  let text = ''
  for (const id of ids) text += stream.push(id)
  return text + stream.flush()
}

/** A decoder for ids that arrive one by one. The pieces of text it returns add up to `decode` of all ids. */
export function createTextStream(
  { pieces, addedTokens, decoding }: Vocabulary,
  { leadingSpace = 'as-encoded', specialTokens = 'skip' }: DecodeOptions = {},
): TextStream {
  const utf8 = new TextDecoder('utf-8', { ignoreBOM: true })
  let started = false

  function atStart(text: string): string {
    if (started || text === '') return text
    const rest = leadingSpace === 'trim' ? text.trimStart() : text
    started = rest !== ''
    return leadingSpace === 'as-encoded' && decoding.dummyPrefix && rest.startsWith(' ') ? rest.slice(1) : rest
  }

  return {
    push(id) {
      if (!Number.isInteger(id) || id < 0)
        throw new RangeError(`Cannot decode: found id ${id}, expected a whole number`)
      const piece = pieces[id]
      if (piece === undefined) return ''
      const added = addedTokens.get(piece)
      if (added === undefined) return atStart(utf8.decode(bytesOf(piece, decoding), { stream: true }))
      return added.special && specialTokens === 'skip' ? '' : atStart(utf8.decode() + piece)
    },
    flush() {
      return atStart(utf8.decode())
    },
  }
}

/**
 * The rule in the `decoder` field of tokenizer.json.
 *
 * @throws TypeError when it is none of the two families
 */
export function readDecodingRule(decoder: Parameters<typeof components>[0]): DecodingRule {
  const rule = { alphabet: 'sentence-piece' as DecodingRule['alphabet'], space: '▁', dummyPrefix: false }
  const parts = components(decoder)
  for (const part of parts) {
    if (part.type === 'ByteLevel') rule.alphabet = 'byte-level'
    else if (part.type === 'Metaspace') {
      if (typeof part.replacement === 'string') rule.space = part.replacement
      if (part.prepend_scheme !== 'never') rule.dummyPrefix = true
    } else if (part.type === 'Strip' && part.content === ' ') rule.dummyPrefix = part.start === 1
    else if (part.type === 'Replace' && part.content === ' ') rule.space = replaced(part.pattern) ?? rule.space
    else if (part.type !== 'ByteFallback' && part.type !== 'Fuse') return unsupported(part.type)
  }
  return parts.length === 0 ? unsupported('none') : rule
}

function unsupported(type: string): never {
  throw new TypeError(
    `Cannot read the decoder of tokenizer.json: found ${type}, expected ByteLevel or SentencePiece parts`,
  )
}

function replaced(pattern: unknown): string | undefined {
  if (typeof pattern !== 'object' || pattern === null || !('String' in pattern)) return undefined
  return typeof pattern.String === 'string' ? pattern.String : undefined
}

function bytesOf(piece: string, { alphabet, space }: DecodingRule): Uint8Array {
  if (alphabet === 'byte-level') return bytesOfPiece(piece)
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(piece)?.[1]
  if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16))
  return new TextEncoder().encode(piece.replaceAll(space, ' '))
}
