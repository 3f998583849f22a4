import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { decode } from './text-stream.ts'
import { encodeText, loadTokenizer, tokenId } from './tokenizer.ts'
import { trainBpe } from './train-bpe.ts'

const specialTokens = ['<pad>', '<s>', '</s>', '<image>']
const corpus = Array.from({ length: 200 }, (_, index) => {
  const animal = ['cat', 'dog', 'owl', 'penguin'][index % 4]
  return `There are ${index} small ${animal}s beside the umbrella, don't they? </s><image>`
})

const file = trainBpe(corpus, { vocabulary: 600, specialTokens })
const tokenizer = loadTokenizer({ tokenizerJson: JSON.parse(JSON.stringify(file)) })

describe('a trained tokenizer', () => {
  test('has special tokens first, then the bytes, and stops at the wanted size', () => {
    expect(specialTokens.map((token) => tokenId(tokenizer, token))).toEqual([0, 1, 2, 3])
    expect(trainBpe(corpus, { vocabulary: 280, specialTokens }).model.merges).toHaveLength(280 - 260)
    expect(tokenizer).toMatchObject({ bosId: 1, eosId: 2, padId: 0, addsBos: true })
    expect(tokenizer.vocabularySize).toBe(260 + new Set(file.model.merges.map((merge) => merge.replace(' ', ''))).size)
  })

  test('makes every frequent word one token with its leading space', () => {
    for (const word of ['There', ' are', ' small', ' penguins', ' beside', ' umbrella', "'t", ' </']) {
      expect(encodeText(tokenizer, word), word).toHaveLength(1)
    }
  })

  test('splits numbers into digits', () => {
    const pieces = encodeText(tokenizer, ' 1987').map((id) => tokenizer.pieces[id])
    expect(pieces).toEqual(['Ġ1', '9', '8', '7'])
  })

  test('never learns a special token from text, however often it occurs', () => {
    const ids = encodeText(tokenizer, 'beside</s><image>')
    expect(ids.every((id) => id >= specialTokens.length)).toBe(true)
    const letters = trainBpe(['ab ab ab ab ab ab'], { vocabulary: 400, specialTokens: ['ab', 'Ġab'] })
    expect(letters.model.merges.map((merge) => merge.replace(' ', ''))).not.toContain('ab')
  })

  test('keeps any Unicode text without loss', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), (text) => {
        expect(decode(tokenizer, encodeText(tokenizer, text))).toBe(text)
      }),
      { numRuns: 300 },
    )
  })

  test('is the same for the same words in another order', () => {
    const again = trainBpe([...corpus].reverse(), { vocabulary: 600, specialTokens })
    expect(JSON.stringify(again)).toBe(JSON.stringify(file))
  })

  test('encodes by the merges that a plain count gives', () => {
    // "aab" three times and "ab" twice: "ab" occurs five times and wins over "aa" with three, then "a"+"ab".
    const { model } = trainBpe(['aab', 'aab', 'aab', 'ab', 'ab'], { vocabulary: 300, specialTokens: [] })
    expect(model.merges).toEqual(['a b', 'a ab'])
  })
})

test('refuses a vocabulary that cannot hold the bytes, and doubled special tokens', () => {
  expect(() => trainBpe([], { vocabulary: 100, specialTokens })).toThrow(/expected 260 to/)
  expect(() => trainBpe([], { vocabulary: 300, specialTokens: ['<s>', '<s>'] })).toThrow(RangeError)
})
