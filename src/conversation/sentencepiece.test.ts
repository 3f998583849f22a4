import { readFileSync } from 'node:fs'
import { BinaryWriter } from '@bufbuild/protobuf/wire'
import { describe, expect, test } from 'vitest'
import { readSentencePiece } from './sentencepiece.ts'
import { decode } from './text-stream.ts'
import { encodeText, loadTokenizer } from './tokenizer.ts'

const folder = new URL('../../fixtures/sentencepiece/', import.meta.url)
const bytes = readFileSync(new URL('tokenizer.model', folder))
const { pieces, cases }: { pieces: number; cases: { text: string; ids: number[] }[] } = JSON.parse(
  readFileSync(new URL('references.json', folder), 'utf8'),
)

describe('a tokenizer.model gives the ids that SentencePiece gives', () => {
  const tokenizer = loadTokenizer({ tokenizerJson: readSentencePiece(bytes) })

  test('has every piece, and the sentence marks of LLaMA', () => {
    const { vocabularySize, bosId, eosId, addsBos, addedTokens } = tokenizer
    expect({ vocabularySize, bosId, eosId, addsBos }).toEqual({
      vocabularySize: pieces,
      bosId: 1,
      eosId: 2,
      addsBos: true,
    })
    expect([...addedTokens.keys()]).toEqual(['<unk>', '<s>', '</s>'])
  })

  test.each(cases)('$text', ({ text, ids }) => {
    expect(encodeText(tokenizer, text)).toEqual(ids)
  })

  test('knows the tokens that the config adds, and that no text becomes', () => {
    const tokenizerConfig = {
      added_tokens_decoder: { 2: { content: '</s>' }, 283: { content: '▁tree' }, 400: { content: '<image>' } },
    }
    const tokenizer = loadTokenizer({ tokenizerJson: readSentencePiece(bytes, { tokenizerConfig }), tokenizerConfig })
    expect([...tokenizer.addedTokens.keys()]).toEqual(['<unk>', '<s>', '</s>', '▁tree', '<image>'])
    expect(tokenizer.vocabularySize).toBe(401)
    expect(encodeText(tokenizer, 'the tree')).not.toContain(283)
  })

  test('and gives the text back', () => {
    const { text, ids } = cases.find(({ text }) => text.includes('☃'))!
    expect(decode(tokenizer, ids)).toBe(text)
  })
})

describe('refuses', () => {
  /** A model of one piece and of a kind: 1 is unigram, 2 byte pairs. */
  const model = (kind: number) => {
    const piece = new BinaryWriter().tag(1, 2).string('<0x00>').finish()
    const trainer = new BinaryWriter().tag(3, 0).int32(kind).finish()
    return new BinaryWriter().tag(1, 2).bytes(piece).tag(2, 2).bytes(trainer).finish()
  }

  test('another kind of model', () => {
    expect(readSentencePiece(model(2))).toBeTypeOf('object')
    expect(() => readSentencePiece(model(1))).toThrow(/found another kind of model, expected byte pairs/)
  })

  test.each([
    ['nothing', Buffer.alloc(0), /found no pieces/],
    ['a Git LFS pointer', Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0'), /damaged/],
    ['half a file', bytes.subarray(0, 2003), /damaged/],
  ])('%s', (_, content, expected) => {
    expect(() => readSentencePiece(content)).toThrow(expected)
    expect(() => readSentencePiece(content)).toThrow(SyntaxError)
  })
})
