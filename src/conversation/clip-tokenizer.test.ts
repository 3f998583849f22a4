import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { encodeClipTexts, loadClipTokenizer } from './clip-tokenizer.ts'

const read = (kind: string, name: string) =>
  JSON.parse(readFileSync(new URL(`../../fixtures/parity/${kind}/${name}`, import.meta.url), 'utf8'))

describe.each(['clip', 'siglip'] as const)('the tokenizer of %s', (kind) => {
  const files = { tokenizerJson: read(kind, 'tokenizer.json'), tokenizerConfig: read(kind, 'tokenizer_config.json') }
  const tokenizer = loadClipTokenizer(files, { kind, context: 24 })

  test('names of special tokens in a text are text', () => {
    for (const name of ['<|endoftext|>', '<|startoftext|>', '</s>', '<pad>']) {
      const [ids] = encodeClipTexts({ ...tokenizer, fills: false }, [`a ${name} cat`])
      const inside = ids!.slice(tokenizer.start.length, -tokenizer.end.length)
      for (const special of [...tokenizer.start, ...tokenizer.end]) expect(inside).not.toContain(special)
    }
  })

  test('capitals are not told apart', () => {
    expect(tokenizer.encode('A CAT')).toEqual(tokenizer.encode('a cat'))
  })

  test('all texts have one length: the longest of them, or the whole context', () => {
    const lengths = encodeClipTexts(tokenizer, ['a cat', 'a photo of two dogs']).map(({ length }) => length)
    expect(lengths[0]).toBe(lengths[1])
    expect(lengths[0] === 24).toBe(kind === 'siglip')
  })

  test('a file without an end token is refused', () => {
    const tokenizerJson = { ...files.tokenizerJson, post_processor: null }
    expect(() => loadClipTokenizer({ ...files, tokenizerJson }, { kind, context: 24 })).toThrow(/no end token/)
  })
})

test('SigLIP 2 keeps capitals in its file and is read in lower case all the same', () => {
  const tokenizerJson = read('clip', 'tokenizer.json') // byte pairs, as SigLIP 2 has
  const capitals = { ...tokenizerJson, normalizer: null }
  const { encode } = loadClipTokenizer({ tokenizerJson: capitals }, { kind: 'siglip', context: 64 })
  expect(encode('A Photo')).toEqual(encode('a photo'))
})
