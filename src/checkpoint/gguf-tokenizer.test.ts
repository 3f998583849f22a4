import { describe, expect, test } from 'vitest'
import { trainBpe } from '../conversation/train-bpe.ts'
import { ggufTokenizer } from './gguf-tokenizer.ts'

const language = { vocabulary: 300, eosTokens: [2, 7] }
const bytePairs = trainBpe(['the cat and the hat'], {
  vocabulary: 262,
  specialTokens: ['<pad>', '<s>', '</s>', '<image>'],
})

describe('ggufTokenizer', () => {
  test('fills the rows of the model, tells kinds apart and names what ends an answer', () => {
    const metadata = ggufTokenizer({
      tokenizerJson: {
        ...bytePairs,
        added_tokens: [...bytePairs.added_tokens, { id: 262, content: '[note]', special: false }],
      },
      tokenizerConfig: { bos_token: '<s>', eos_token: '</s>' },
      language,
    })
    const list = (key: string) => Object.values(metadata[`tokenizer.ggml.${key}`]!)[0] as unknown[]
    expect(list('tokens').length).toBe(300)
    expect(list('tokens').slice(0, 4)).toEqual(['<pad>', '<s>', '</s>', '<image>'])
    expect(list('tokens').at(-1)).toBe('[PAD299]')
    expect([3, 4, 262, 299].map((id) => list('token_type')[id])).toEqual([3, 1, 4, 5])
    expect(metadata).toMatchObject({
      'tokenizer.ggml.eos_token_id': { uint32: 2 },
      'tokenizer.ggml.eot_token_id': { uint32: 7 },
      'tokenizer.ggml.add_bos_token': { bool: true },
    })
  })

  test('scores of SentencePiece follow the order of the merges', () => {
    const vocab = Object.fromEntries(
      ['<unk>', '<0x0A>', '▁', 'a', 'b', '▁a', 'ab', '▁ab'].map((piece, id) => [piece, id]),
    )
    const merges = [
      ['▁', 'a'],
      ['a', 'b'],
      ['▁a', 'b'],
      ['▁', 'ab'],
    ]
    const metadata = ggufTokenizer({
      tokenizerJson: {
        decoder: { type: 'ByteFallback' },
        model: { type: 'BPE', vocab, merges, unk_token: '<unk>', byte_fallback: true },
      },
      language: { vocabulary: 8, eosTokens: [2] },
    })
    expect(metadata['tokenizer.ggml.scores']).toEqual({ float32s: [-3, -3, -3, -3, -3, -0, -1, -2] })
    expect(metadata['tokenizer.ggml.token_type']).toEqual({ int32s: [2, 6, 1, 1, 1, 1, 1, 1] })
  })

  test('a way to split words that llama.cpp has no name for is refused', () => {
    const strange = { type: 'Split', pattern: { Regex: '[aeiou]+' }, behavior: 'Isolated', invert: false }
    const tokenizerJson = {
      ...bytePairs,
      pre_tokenizer: { type: 'Sequence', pretokenizers: [strange, { type: 'ByteLevel' }] },
    }
    expect(() => ggufTokenizer({ tokenizerJson, language })).toThrow(
      'Cannot export the tokenizer: it splits words by "[aeiou]+", expected a pattern that llama.cpp has a name for (gpt-2, qwen2, llama-bpe)',
    )
  })
})
