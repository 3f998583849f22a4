/**
 * The tokenizer of a checkpoint: text to ids over `@huggingface/tokenizers`, in which text is only ever text.
 *
 * Ids of special and added tokens (`</s>`, `<image>`, `<|im_start|>`) come from `tokenId` alone. `encodeText` uses
 * instances of the library that were built without them, so the same characters typed by a person stay characters.
 */
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers'
import { type DecodingRule, readDecodingRule } from './text-stream.ts'
import {
  hasDummyPrefix,
  leadingToken,
  readTokenizerConfig,
  readTokenizerFile,
  type TokenizerFile,
  withoutAddedTokens,
  withoutDummyPrefix,
} from './tokenizer-file.ts'

export type AddedToken = { readonly id: number; readonly special: boolean }

/** Ids of a text; undefined where the vocabulary has no piece. */
type Encode = (text: string) => (number | undefined)[]

export type Tokenizer = {
  readonly encodeFresh: Encode // text at the start of a string
  readonly encodeContinuing: Encode // the same without the dummy prefix of SentencePiece
  readonly ids: ReadonlyMap<string, number> // of every piece and added token
  readonly pieces: readonly (string | undefined)[] // by id
  readonly addedTokens: ReadonlyMap<string, AddedToken> // by name; text never becomes one of them
  readonly decoding: DecodingRule
  readonly vocabularySize: number // largest id + 1; a model may have padding rows beyond
  readonly bosId: number | undefined
  readonly eosId: number | undefined
  readonly padId: number | undefined
  readonly addsBos: boolean // whether a prompt starts with the token of `bosId`
  readonly legacy: boolean // whether text after a special token gets a dummy prefix of its own (HF flag `legacy`)
}

/** Most ids a vocabulary may reach; larger values are taken for damage rather than allocated. */
const LARGEST_VOCABULARY = 2 ** 22

/**
 * Tokenizer from the parsed `tokenizer.json` and `tokenizer_config.json` of a checkpoint (byte-pair encodings).
 *
 * Without a config the names `<s>`, `</s>` and `<pad>` are looked up among the added tokens.
 *
 * @throws TypeError when a file has not the expected fields, RangeError when an id is out of range
 */
export function loadTokenizer({
  tokenizerJson,
  tokenizerConfig,
}: {
  tokenizerJson: unknown
  tokenizerConfig?: unknown
}): Tokenizer {
  const file = readTokenizerFile(tokenizerJson)
  const config = readTokenizerConfig(tokenizerConfig)
  const ids = readIds(file)
  const pieces: (string | undefined)[] = []
  for (const [piece, id] of ids) pieces[id] = piece
  const added = new Map(
    file.added_tokens
      .filter((token) => token.content.trim() !== '')
      .map((token) => [token.content, { id: token.id, special: token.special === true }]),
  )

  const first = leadingToken(file)
  const conventional = (name: string) => (tokenizerConfig === undefined && added.has(name) ? name : undefined)
  const bosId = ids.get(config.bos_token ?? first ?? conventional('<s>') ?? '')
  const addsBos = config.add_bos_token ?? first !== undefined
  if (addsBos && bosId === undefined) {
    throw new RangeError(`Cannot load the tokenizer: found no token ${config.bos_token ?? first ?? 'bos_token'}`)
  }
  return {
    ...buildEncoders(withoutAddedTokens(file)),
    ids,
    pieces,
    addedTokens: added,
    decoding: readDecodingRule(file.decoder),
    vocabularySize: pieces.length,
    bosId,
    eosId: ids.get(config.eos_token ?? conventional('</s>') ?? ''),
    padId: ids.get(config.pad_token ?? conventional('<pad>') ?? ''),
    addsBos,
    legacy: config.legacy === true,
  }
}

/**
 * Ids of a text, in which names of special tokens stay ordinary characters.
 *
 * @param options.bos puts the token of `bosId` first
 * @param options.continuation the text goes on after other tokens, so no dummy prefix is added
 */
export function encodeText(
  tokenizer: Tokenizer,
  text: string,
  { bos = false, continuation = false }: { bos?: boolean; continuation?: boolean } = {},
): number[] {
  const ids = (continuation ? tokenizer.encodeContinuing(text) : tokenizer.encodeFresh(text)).map((id) => {
    if (id !== undefined) return id
    throw new RangeError(`Cannot encode ${JSON.stringify(text.slice(0, 40))}: found no piece for a part of it`)
  })
  if (!bos) return ids
  if (tokenizer.bosId === undefined) throw new RangeError('Cannot start with a bos token: the tokenizer names none')
  return [tokenizer.bosId, ...ids]
}

/**
 * Id of a token by its exact name, for example `</s>`.
 *
 * @throws RangeError when the vocabulary has no such token
 */
export function tokenId(tokenizer: Tokenizer, name: string): number {
  const id = tokenizer.ids.get(name)
  if (id === undefined) throw new RangeError(`Cannot find the token ${name}: the vocabulary of this tokenizer lacks it`)
  return id
}

/** Two encoders over one set of merges: at the start of a string, and going on after other tokens. */
function buildEncoders(file: TokenizerFile): { encodeFresh: Encode; encodeContinuing: Encode } {
  // Without an unknown token the library would drop characters it has no piece for; an empty name has no id instead.
  const model = { ...file.model, unk_token: file.model.unk_token ?? '' }
  // The config only steers cleaning of decoded text and old BERT options in the library: neither is wanted here.
  const fresh = new LibraryTokenizer({ ...file, model }, {})
  const encodeFresh = remembering((text) => fresh.encode(text, { add_special_tokens: false }).ids)
  if (!hasDummyPrefix(file)) return { encodeFresh, encodeContinuing: encodeFresh }
  const empty = { ...file, model: { ...file.model, vocab: {}, merges: [] } }
  const continuing = new LibraryTokenizer(withoutDummyPrefix(empty), {})
  continuing.model = fresh.model
  return {
    encodeFresh,
    encodeContinuing: remembering((text) => continuing.encode(text, { add_special_tokens: false }).ids),
  }
}

/** What is remembered of encoded texts: templates, questions and answers come back by the thousand in training. */
const mostRemembered = 20_000
const longestRemembered = 200

function remembering(encode: Encode): Encode {
  const known = new Map<string, ReturnType<Encode>>()
  return (text) => {
    const before = known.get(text)
    if (before !== undefined) return before
    const ids = encode(text)
    if (known.size >= mostRemembered) known.clear()
    if (text.length <= longestRemembered) known.set(text, ids)
    return ids
  }
}

function readIds(file: TokenizerFile): Map<string, number> {
  const ids = new Map<string, number>()
  const entries: [string, number][] = Object.entries(file.model.vocab)
  for (const token of file.added_tokens) entries.push([token.content, token.id])
  for (const [piece, id] of entries) {
    if (!Number.isInteger(id) || id < 0 || id >= LARGEST_VOCABULARY) {
      throw new RangeError(
        `Cannot load the tokenizer: found id ${id} for ${JSON.stringify(piece)}, expected a whole number`,
      )
    }
    ids.set(piece, id)
  }
  return ids
}
