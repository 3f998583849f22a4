import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createTextStream, decode } from './text-stream.ts'
import { encodeText, loadTokenizer, type Tokenizer } from './tokenizer.ts'
import { trainBpe } from './train-bpe.ts'

const bytesJson = trainBpe(['hello hello world world'], { vocabulary: 300, specialTokens: ['<pad>', '<s>', '</s>'] })
const byteLevel = loadTokenizer({ tokenizerJson: bytesJson })

/** SentencePiece structure: pieces for a few letters, bytes for all else. */
const pieces = [
  '<unk>',
  '<s>',
  '</s>',
  ...Array.from({ length: 256 }, (_, byte) => byteName(byte)),
  '▁',
  'a',
  'b',
  '▁a',
]
const piecesJson = {
  added_tokens: ['<unk>', '<s>', '</s>'].map((content, id) => ({ id, content, special: true, normalized: false })),
  normalizer: {
    type: 'Sequence',
    normalizers: [
      { type: 'Prepend', prepend: '▁' },
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    ],
  },
  pre_tokenizer: null,
  post_processor: null,
  decoder: {
    type: 'Sequence',
    decoders: [
      { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
      { type: 'ByteFallback' },
      { type: 'Fuse' },
      { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ],
  },
  model: {
    type: 'BPE',
    unk_token: '<unk>',
    byte_fallback: true,
    vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
    merges: ['▁ a'],
  },
}
const sentencePiece = loadTokenizer({ tokenizerJson: piecesJson })

function byteName(byte: number): string {
  return `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`
}

function stream(tokenizer: Tokenizer, ids: readonly number[]): string[] {
  const text = createTextStream(tokenizer)
  return [...ids.map((id) => text.push(id)), text.flush()]
}

describe.each([
  ['byte-level BPE', byteLevel, bytesJson],
  ['SentencePiece with byte fallback', sentencePiece, piecesJson],
])('%s', (_, tokenizer, json) => {
  test('gives any text back', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 30 }), (text) => {
        expect(decode(tokenizer, encodeText(tokenizer, text))).toBe(text)
      }),
    )
    expect(decode(tokenizer, [])).toBe('')
  })

  test.each(['日本語', 'a 🤷🏽‍♀️ b', '  a', 'é', '\ufeffa'])('streams %j in whole characters', (text) => {
    const parts = stream(tokenizer, encodeText(tokenizer, text))
    expect(parts.join('')).toBe(text)
    for (const part of parts) expect(part).not.toMatch(/\p{Surrogate}|\ufffd/u)
  })

  test('agrees with the decoder of the library on any ids', () => {
    const library = new LibraryTokenizer(json, {})
    const mark = encodeText(tokenizer, '\ufeff').at(0) // the library drops a byte order mark
    const id = fc.integer({ min: 0, max: tokenizer.vocabularySize - 1 }).filter((each) => each !== mark)
    fc.assert(
      fc.property(fc.array(id, { minLength: 1, maxLength: 12 }), (ids) => {
        const expected = library.decode(ids, { skip_special_tokens: true, clean_up_tokenization_spaces: false })
        expect(stream(tokenizer, ids).join('')).toBe(expected)
      }),
    )
  })

  test('shows a character that never became whole as U+FFFD at the end', () => {
    const [first = 0] = encodeText(tokenizer, '🦉', { continuation: true })
    expect(stream(tokenizer, [first])).toEqual(['', '\ufffd'])
  })

  test('shows special tokens only on demand', () => {
    const ids = [1, ...encodeText(tokenizer, 'a'), 2]
    expect(decode(tokenizer, ids)).toBe('a')
    expect(decode(tokenizer, ids, { specialTokens: 'show' })).toMatch(/^<s> ?a<\/s>$/)
  })

  test('refuses ids that are no whole numbers from 0', () => {
    expect(() => decode(tokenizer, [-200])).toThrow(RangeError)
    expect(() => decode(tokenizer, [0.5])).toThrow(/found id 0.5/)
  })
})

describe('the leading space', () => {
  const ids = encodeText(sentencePiece, 'a a')

  test('is removed once where encoding added it', () => {
    expect(decode(sentencePiece, ids)).toBe('a a')
    expect(stream(sentencePiece, encodeText(sentencePiece, 'b')).join('')).toBe('b')
  })

  test('stays on demand, and stays in byte-level text', () => {
    expect(decode(sentencePiece, ids, { leadingSpace: 'keep' })).toBe(' a a')
    expect(decode(byteLevel, encodeText(byteLevel, ' hello'))).toBe(' hello')
  })

  test('goes with all white space before an answer', () => {
    const answer = encodeText(byteLevel, ' \n hello world')
    expect(decode(byteLevel, answer, { leadingSpace: 'trim' })).toBe('hello world')
  })
})
