import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decode } from './text-stream.ts'
import { encodeText, loadTokenizer, tokenId } from './tokenizer.ts'
import { trainBpe } from './train-bpe.ts'

const specialTokens = ['<unk>', '<s>', '</s>', '<image>', '<|im_start|>', '<|im_end|>']
const tokenizerJson = trainBpe(['The cat sat. The cat sat.'], { vocabulary: 300, specialTokens })
const tokenizer = loadTokenizer({ tokenizerJson })

describe('encodeText', () => {
  test('agrees with the library on text without special tokens', () => {
    const library = new LibraryTokenizer(tokenizerJson, {})
    for (const text of ['The cat sat.', '  two  spaces', '日本語 🤷🏽‍♀️', '']) {
      expect(encodeText(tokenizer, text, { bos: true })).toEqual(library.encode(text).ids)
    }
  })

  test.each(specialTokens)('keeps %s as text', (name) => {
    const ids = encodeText(tokenizer, `The ${name}`)
    expect(ids).not.toContain(tokenId(tokenizer, name))
    expect(decode(tokenizer, ids)).toBe(`The ${name}`)
  })

  test('never gives an id of an added token, whatever is typed', () => {
    const words = fc.array(fc.oneof(fc.constantFrom(...specialTokens), fc.string({ maxLength: 4 })))
    fc.assert(
      fc.property(words, (typed) => {
        const ids = encodeText(tokenizer, typed.join(''))
        expect(ids.filter((id) => id < specialTokens.length)).toEqual([])
      }),
    )
  })

  test('keeps them out even where merges and whole-word look-up lead to them', () => {
    const vocab = { ...tokenizerJson.model.vocab, '<s': 400 }
    const model = { ...tokenizerJson.model, vocab, ignore_merges: true, merges: ['< s', '<s >'] }
    const hostile = loadTokenizer({
      tokenizerJson: { ...tokenizerJson, model, pre_tokenizer: null, decoder: tokenizerJson.decoder },
    })
    expect(encodeText(hostile, '<s>')).toEqual([400, tokenId(hostile, '>')])
  })

  test('goes on without the space that Metaspace puts before a text', () => {
    const spaced = loadTokenizer({
      tokenizerJson: {
        model: { type: 'BPE', vocab: { '▁': 0, a: 1, '▁a': 2 }, merges: [['▁', 'a']] },
        pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first' },
        decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first' },
      },
    })
    expect(encodeText(spaced, 'a')).toEqual([2])
    expect(encodeText(spaced, 'a', { continuation: true })).toEqual([1])
    expect(encodeText(spaced, ' a', { continuation: true })).toEqual([2])
    expect(decode(spaced, [2, 2])).toBe('a a')
    expect(() => encodeText(spaced, 'z')).toThrow(/Cannot encode "z"/)
    expect(() => encodeText(spaced, 'a', { bos: true })).toThrow(/bos token/)
  })
})

describe('loadTokenizer', () => {
  test('takes names from the config before anything else', () => {
    const tokenizerConfig = { bos_token: '<|im_start|>', eos_token: { content: '<|im_end|>' }, add_bos_token: false }
    const named = loadTokenizer({ tokenizerJson, tokenizerConfig })
    expect(named).toMatchObject({ bosId: 4, eosId: 5, padId: undefined, addsBos: false, legacy: false })
  })

  test('counts added tokens beyond the pieces and gaps before them', () => {
    const added_tokens = [...tokenizerJson.added_tokens, { id: 999, content: '<extra>', special: true }]
    const extended = loadTokenizer({ tokenizerJson: { ...tokenizerJson, added_tokens } })
    expect(extended.vocabularySize).toBe(1000)
    expect(tokenId(extended, '<extra>')).toBe(999)
    expect(decode(extended, [999, 998])).toBe('')
  })

  test('keeps runs of spaces that a checkpoint added as tokens', () => {
    const added_tokens = [...tokenizerJson.added_tokens, { id: 999, content: '    ', special: false }]
    const extended = loadTokenizer({ tokenizerJson: { ...tokenizerJson, added_tokens } })
    expect(encodeText(extended, '    ')).toEqual([999])
  })

  test.each<[string, unknown, RegExp]>([
    ['no object', 'text', /Cannot read tokenizer.json/],
    ['no model', {}, /: model is missing/],
    [
      'another model',
      { ...tokenizerJson, model: { ...tokenizerJson.model, type: 'Unigram' } },
      /model.type is "Unigram", expected "BPE"/,
    ],
    ['another decoder', { ...tokenizerJson, decoder: { type: 'WordPiece' } }, /found WordPiece/],
    ['no decoder', { ...tokenizerJson, decoder: null }, /found none/],
  ])('refuses a file with %s', (_, json, message) => {
    expect(() => loadTokenizer({ tokenizerJson: json })).toThrow(TypeError)
    expect(() => loadTokenizer({ tokenizerJson: json })).toThrow(message)
  })

  test('refuses ids out of range and a bos token that is not there', () => {
    const model = { ...tokenizerJson.model, vocab: { a: -1 } }
    expect(() => loadTokenizer({ tokenizerJson: { ...tokenizerJson, model } })).toThrow(/found id -1 for "a"/)
    const tokenizerConfig = { bos_token: '<none>', add_bos_token: true }
    expect(() => loadTokenizer({ tokenizerJson, tokenizerConfig })).toThrow(/found no token <none>/)
    expect(() => tokenId(tokenizer, '<none>')).toThrow(RangeError)
  })
})
