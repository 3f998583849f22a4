/**
 * Trains a byte-level BPE tokenizer (Sennrich et al. 2016, with the byte alphabet of GPT-2) and writes it as a Hugging
 * Face tokenizer.json: words with their leading space, digits one by one, any Unicode text without loss.
 */
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers'
import { characterOfByte } from './byte-alphabet.ts'

/** A tokenizer.json of the byte-level BPE kind. */
export type TokenizerJson = ReturnType<typeof describe>

/** A word of the corpus as ids of its pieces; merging shortens the list. */
type Word = { pieces: number[]; readonly count: number }

/** How often two pieces stand side by side, and in which words they have ever done so. */
type Pair = { count: number; readonly words: Set<Word> }

/** Words and signs: contractions, letters, one digit, other signs, white space; a space goes to what follows it. */
export const WORD_PATTERN = "'(?:s|t|re|ve|m|ll|d)| ?\\p{L}+| ?\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

const LARGEST_VOCABULARY = 2 ** 20 // keeps two ids in one exact number

/**
 * Tokenizer learned from texts. Special tokens get the first ids, then the 256 bytes, then merges, most frequent
 * first, until `vocabulary` entries are reached or no pair occurs twice; so it may end smaller on a tiny corpus.
 * `<s>`, where it is among the special tokens, starts every encoded text. Equal input gives an equal result.
 *
 * @throws RangeError when the vocabulary cannot hold the special tokens and all bytes
 */
export function trainBpe(
  texts: Iterable<string>,
  { vocabulary, specialTokens }: { vocabulary: number; specialTokens: readonly string[] },
): TokenizerJson {
  const smallest = specialTokens.length + characterOfByte.length
  if (!Number.isInteger(vocabulary) || vocabulary < smallest || vocabulary > LARGEST_VOCABULARY) {
    throw new RangeError(
      `Cannot train a tokenizer of ${vocabulary} entries: expected ${smallest} to ${LARGEST_VOCABULARY}`,
    )
  }
  if (new Set(specialTokens).size !== specialTokens.length || specialTokens.some((token) => token.trim().length < 2)) {
    throw new RangeError(
      'Cannot train a tokenizer: expected special tokens to be different and longer than a character',
    )
  }
  const pieces = [...specialTokens, ...characterOfByte]
  const words = countWords(texts, { specialTokens, pieces })
  const merges = learnMerges(words, { pieces, vocabulary, specialTokens })
  return describe(pieces, { merges, specialTokens })
}

/** The words of the texts as byte ids, with how often each occurs. */
function countWords(
  texts: Iterable<string>,
  { specialTokens, pieces }: { specialTokens: readonly string[]; pieces: readonly string[] },
): Word[] {
  // Words are split by the very pre-tokenizer that will split them later.
  const { pre_tokenizer: splitter } = new LibraryTokenizer(describe(pieces, { merges: [], specialTokens: [] }), {})
  if (splitter === null) throw new TypeError('Cannot train a tokenizer: the library built no pre-tokenizer')
  const counts = new Map<string, number>()
  for (const text of texts) {
    const split: string[] = splitter.pre_tokenize(text)
    for (const word of split) counts.set(word, (counts.get(word) ?? 0) + 1)
  }
  const idOf = new Map(characterOfByte.map((character, byte) => [character, specialTokens.length + byte]))
  return Array.from(counts, ([word, count]) => ({
    pieces: Array.from(word, (character) => idOf.get(character) ?? 0),
    count,
  }))
}

/** Merges the most frequent pair over and over; appends to `pieces`. Ties go to the pair of smaller ids. */
function learnMerges(
  words: readonly Word[],
  { pieces, vocabulary, specialTokens }: { pieces: string[]; vocabulary: number; specialTokens: readonly string[] },
): string[] {
  const forbidden = new Set(specialTokens)
  const idOf = new Map(pieces.map((piece, id) => [piece, id]))
  const pairs = new Map<number, Pair>()
  for (const word of words) countPairs(word, { pairs, sign: 1 })
  const queue: Candidate[] = []
  for (const [key, pair] of pairs) push(queue, { count: pair.count, key })

  const merges: string[] = []
  while (pieces.length < vocabulary) {
    const best = pop(queue)
    if (best === undefined || best.count < 2) break
    const pair = pairs.get(best.key)
    if (pair === undefined || pair.count === 0) continue
    if (pair.count < best.count) {
      push(queue, { count: pair.count, key: best.key })
      continue
    }
    const [left, right] = splitKey(best.key)
    const [leftPiece = '', rightPiece = ''] = [pieces[left], pieces[right]]
    pairs.delete(best.key)
    const piece = leftPiece + rightPiece
    if (forbidden.has(piece)) continue // text must never become a special token
    const merged = idOf.get(piece) ?? pieces.push(piece) - 1 // two ways to the same piece share its id
    idOf.set(piece, merged)
    merges.push(`${leftPiece} ${rightPiece}`)
    const grown = new Set<number>()
    for (const word of pair.words) {
      countPairs(word, { pairs, sign: -1 })
      word.pieces = replacePair(word.pieces, { left, right, merged })
      for (const key of countPairs(word, { pairs, sign: 1 })) grown.add(key)
    }
    for (const key of grown) push(queue, { count: pairs.get(key)?.count ?? 0, key })
  }
  return merges
}

/** Adds or takes away the pairs of a word; returns their keys. */
function countPairs(word: Word, { pairs, sign }: { pairs: Map<number, Pair>; sign: 1 | -1 }): number[] {
  const keys: number[] = []
  for (const [index, left] of word.pieces.entries()) {
    const right = word.pieces[index + 1]
    if (right === undefined) break
    const key = left * LARGEST_VOCABULARY + right
    let pair = pairs.get(key)
    if (pair === undefined) {
      if (sign < 0) continue
      pair = { count: 0, words: new Set() }
      pairs.set(key, pair)
    }
    pair.count += sign * word.count
    if (sign > 0) pair.words.add(word)
    keys.push(key)
  }
  return keys
}

function splitKey(key: number): [left: number, right: number] {
  return [Math.floor(key / LARGEST_VOCABULARY), key % LARGEST_VOCABULARY]
}

function replacePair(
  pieces: readonly number[],
  { left, right, merged }: { left: number; right: number; merged: number },
): number[] {
  const replaced: number[] = []
  for (let index = 0; index < pieces.length; index++) {
    const piece = pieces[index] ?? 0
    const matches = piece === left && pieces[index + 1] === right
    replaced.push(matches ? merged : piece)
    if (matches) index++
  }
  return replaced
}

/** A pair with the count it had when it was queued; a smaller count since then is noticed when it comes out. */
type Candidate = { readonly count: number; readonly key: number }

function before(a: Candidate, b: Candidate): boolean {
  return a.count > b.count || (a.count === b.count && a.key < b.key)
}

/** Adds to a binary heap with the most frequent pair on top. */
function push(heap: Candidate[], added: Candidate): void {
  let index = heap.push(added) - 1
  while (index > 0) {
    const parent = (index - 1) >> 1
    const above = heap[parent]
    if (above === undefined || !before(added, above)) break
    heap[index] = above
    index = parent
  }
  heap[index] = added
}

function pop(heap: Candidate[]): Candidate | undefined {
  const top = heap[0]
  const moved = heap.pop()
  if (moved === undefined || heap.length === 0) return top
  let index = 0
  while (true) {
    const [left, right] = [heap[2 * index + 1], heap[2 * index + 2]]
    const child = left !== undefined && right !== undefined && before(right, left) ? right : left
    if (child === undefined || !before(child, moved)) break
    heap[index] = child
    index = 2 * index + (child === right ? 2 : 1)
  }
  heap[index] = moved
  return top
}

/** The file: special tokens are pieces as well, so that readers in other languages keep their ids. */
function describe(
  pieces: readonly string[],
  { merges, specialTokens }: { merges: readonly string[]; specialTokens: readonly string[] },
) {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false } as const
  const bos = specialTokens.indexOf('<s>')
  const first = { SpecialToken: { id: '<s>', type_id: 0 } }
  const startWithBos = {
    type: 'TemplateProcessing',
    single: [first, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [first, { Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 0 } }],
    special_tokens: { '<s>': { id: '<s>', ids: [bos], tokens: ['<s>'] } },
  } as const
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specialTokens.map((content, id) => ({
      id,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: WORD_PATTERN }, behavior: 'Isolated', invert: false },
        byteLevel,
      ],
    },
    post_processor: bos < 0 ? byteLevel : startWithBos,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])),
      merges: [...merges],
    },
  } as const
}
