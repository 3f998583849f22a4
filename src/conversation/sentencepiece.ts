/**
 * `tokenizer.model` of SentencePiece as the `tokenizer.json` that says the same: original LLaVA releases carry only the former.
 *
 * Only byte-pair encodings with byte fallback, as LLaMA, Mistral and Yi have them. SentencePiece merges the pair whose merged piece has the best score; the
 * list of merges is that order, written down.
 */
import { BinaryReader, type WireType } from '@bufbuild/protobuf/wire'
import { z } from 'zod'

type Piece = { readonly text: string; readonly score: number; readonly kind: number }

type SentencePieceModel = {
  readonly pieces: readonly Piece[]
  readonly bytePairs: boolean
  readonly dummyPrefix: boolean
}

/** Values of the piece's `type` and of the trainer's `model_type` in sentencepiece_model.proto. */
const kinds = { normal: 1, unknown: 2, control: 3, userDefined: 4 } as const
const bytePairModel = 2

/** Where tokenizer_config.json names tokens that were added to the pieces, or made special, by their ids. */
const addedTokens = z.looseObject({
  added_tokens_decoder: z
    .record(z.string().regex(/^\d{1,7}$/), z.looseObject({ content: z.string().min(1) }))
    .nullish(),
})

/**
 * The content of `tokenizer.json` for the bytes of a `tokenizer.model`, with the tokens that `tokenizerConfig` adds.
 *
 * @throws SyntaxError for what is no SentencePiece model, RangeError for one that is no byte-pair encoding with byte fallback
 */
export function readSentencePiece(bytes: Uint8Array, { tokenizerConfig }: { tokenizerConfig?: unknown } = {}): unknown {
  const { pieces, bytePairs, dummyPrefix } = parseModel(bytes)
  const vocab = new Map(pieces.map(({ text }, id) => [text, id]))
  if (!bytePairs || !vocab.has('<0x00>')) {
    throw new RangeError(
      'Cannot read tokenizer.model: found another kind of model, expected byte pairs with byte fallback',
    )
  }
  const unknown = pieces.find(({ kind }) => kind === kinds.unknown)?.text
  const special = pieces.flatMap(({ text, kind }, id) =>
    kind === kinds.unknown || kind === kinds.control || kind === kinds.userDefined
      ? [{ id, content: text, special: kind !== kinds.userDefined }]
      : [],
  )
  const added = Object.entries(addedTokens.safeParse(tokenizerConfig ?? {}).data?.added_tokens_decoder ?? {})
    .map(([id, { content }]) => ({ id: Number(id), content, special: true }))
    .filter(({ content }) => !special.some((token) => token.content === content))
  const bos = pieces.find(({ kind }) => kind === kinds.control)?.text
  return {
    version: '1.0',
    added_tokens: [...special, ...added],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        ...(dummyPrefix ? [{ type: 'Prepend', prepend: '▁' }] : []),
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor:
      bos === undefined
        ? null
        : { type: 'TemplateProcessing', single: [{ SpecialToken: { id: bos } }, { Sequence: { id: 'A' } }] },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(dummyPrefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: 'BPE',
      unk_token: unknown ?? null,
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(vocab),
      merges: mergesOf(pieces, vocab),
    },
  }
}

/** Every way to put a piece together from two others: the best piece first, and of one piece the way with the longest beginning, as transformers has it. */
function mergesOf(pieces: readonly Piece[], vocab: ReadonlyMap<string, number>): [string, string][] {
  const merges: { left: string; right: string; score: number; at: number }[] = []
  for (const { text, score, kind } of pieces) {
    if (kind !== kinds.normal && kind !== kinds.userDefined) continue
    const characters = Array.from(text)
    for (let at = 1; at < characters.length; at++) {
      const left = characters.slice(0, at).join('')
      const right = characters.slice(at).join('')
      if (vocab.has(left) && vocab.has(right)) merges.push({ left, right, score, at })
    }
  }
  return merges.sort((a, b) => b.score - a.score || b.at - a.at).map(({ left, right }) => [left, right])
}

function parseModel(bytes: Uint8Array): SentencePieceModel {
  const pieces: Piece[] = []
  let [bytePairs, dummyPrefix] = [false, true]
  try {
    eachField(bytes, {
      1: (reader) => pieces.push(parsePiece(reader.bytes())),
      2: (reader) => eachField(reader.bytes(), { 3: (trainer) => (bytePairs = trainer.int32() === bytePairModel) }),
      3: (reader) => eachField(reader.bytes(), { 3: (normalizer) => (dummyPrefix = normalizer.bool()) }),
    })
  } catch (cause) {
    throw new SyntaxError('Cannot read tokenizer.model: it is damaged or no SentencePiece model', { cause })
  }
  if (pieces.length === 0) throw new SyntaxError('Cannot read tokenizer.model: found no pieces, expected a vocabulary')
  return { pieces, bytePairs, dummyPrefix }
}

function parsePiece(bytes: Uint8Array): Piece {
  let [text, score, kind]: [string, number, number] = ['', 0, kinds.normal]
  eachField(bytes, {
    1: (reader) => (text = reader.string()),
    2: (reader) => (score = reader.float()),
    3: (reader) => (kind = reader.int32()),
  })
  return { text, score, kind }
}

/** Reads the fields of a protobuf message that are asked for, and passes over the rest. */
function eachField(bytes: Uint8Array, read: Readonly<Record<number, (reader: BinaryReader) => unknown>>): void {
  const reader = new BinaryReader(bytes)
  while (reader.pos < reader.len) {
    const [field, wire]: [number, WireType] = reader.tag()
    const own = read[field]
    if (own === undefined) reader.skip(wire, field)
    else own(reader)
  }
  if (reader.pos > reader.len) throw new RangeError('a field goes on behind the end of its message')
}
