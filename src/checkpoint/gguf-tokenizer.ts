/**
 * The tokenizer of a model folder as GGUF metadata. llama.cpp knows two kinds: `llama` (SentencePiece: pieces with scores) and
 * `gpt2` (byte-level pairs: merges, and the name of a known way to split text into words).
 */

import { loadTokenizer, type Tokenizer } from '../conversation/tokenizer.ts'
import { components, hasDummyPrefix, readTokenizerFile, type TokenizerFile } from '../conversation/tokenizer-file.ts'
import { WORD_PATTERN } from '../conversation/train-bpe.ts'
import type { LanguageModelConfig } from '../model/config.ts'
import type { GgufMetadata } from './gguf-writer.ts'
import { quote } from './json.ts'

/** Kinds of tokens (`llama_token_type`). */
const kinds = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

const qwen2Pattern =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/** llama.cpp's names for ways to split text into words, by the pattern in tokenizer.json. */
const splitters: ReadonlyMap<string, string> = new Map([
  // Ours splits digits one by one, gpt-2 does not; without a merge of two digits the pieces are the same.
  [WORD_PATTERN, 'gpt-2'],
  [qwen2Pattern, 'qwen2'],
  [qwen2Pattern.replace('\\p{N}| ?', '\\p{N}{1,3}| ?'), 'llama-bpe'],
])

/**
 * Metadata `tokenizer.*` for a vocabulary that fills all rows of the language model.
 * Errors: `Error` for a tokenizer that llama.cpp cannot follow, those of `loadTokenizer` for broken files.
 */
export function ggufTokenizer({
  tokenizerJson,
  tokenizerConfig,
  language,
  chatTemplate,
}: {
  tokenizerJson: unknown
  tokenizerConfig?: unknown
  language: Pick<LanguageModelConfig, 'vocabulary' | 'eosTokens'>
  chatTemplate?: string | undefined
}): GgufMetadata {
  const file = readTokenizerFile(tokenizerJson)
  const tokenizer = loadTokenizer({ tokenizerJson, ...(tokenizerConfig !== undefined && { tokenizerConfig }) })
  const rows = Array.from({ length: language.vocabulary }, (_, id) => tokenizer.pieces[id])
  const unknown = file.model.unk_token
  const eos = tokenizer.eosId ?? language.eosTokens[0]
  const otherEnd = language.eosTokens.find((id) => id !== eos)
  const id = (name: string, value: number | undefined): GgufMetadata =>
    value === undefined ? {} : { [`tokenizer.ggml.${name}_token_id`]: { uint32: value } }
  return {
    ...(isByteLevel(file) ? pairs(file) : sentencePieces(file, rows)),
    'tokenizer.ggml.tokens': { strings: rows.map((piece, id) => piece ?? `[PAD${id}]`) },
    'tokenizer.ggml.token_type': { int32s: rows.map((piece) => kindOf(piece, { tokenizer, unknown })) },
    ...id('bos', tokenizer.bosId),
    ...id('eos', eos),
    ...id('eot', otherEnd),
    ...id('unknown', typeof unknown === 'string' ? tokenizer.ids.get(unknown) : undefined),
    ...id('padding', tokenizer.padId),
    'tokenizer.ggml.add_bos_token': { bool: tokenizer.addsBos },
    'tokenizer.ggml.add_eos_token': { bool: false },
    ...(chatTemplate !== undefined && { 'tokenizer.chat_template': { string: chatTemplate } }),
  }
}

function kindOf(piece: string | undefined, { tokenizer, unknown }: { tokenizer: Tokenizer; unknown: unknown }): number {
  if (piece === undefined) return kinds.unused
  if (piece === unknown) return kinds.unknown
  const added = tokenizer.addedTokens.get(piece)
  if (added !== undefined) return added.special ? kinds.control : kinds.userDefined
  return /^<0x[0-9A-F]{2}>$/.test(piece) ? kinds.byte : kinds.normal
}

/** `loadTokenizer` knows two kinds as well. */
function isByteLevel(file: TokenizerFile): boolean {
  return components(file.decoder).some(({ type }) => type === 'ByteLevel')
}

function pairs(file: TokenizerFile): GgufMetadata {
  const merges = file.model.merges.map((merge) => (Array.isArray(merge) ? merge.join(' ') : merge))
  return {
    'tokenizer.ggml.model': { string: 'gpt2' },
    'tokenizer.ggml.pre': { string: splitterOf(file) },
    'tokenizer.ggml.merges': { strings: merges },
  }
}

function splitterOf(file: TokenizerFile): string {
  const parts = components(file.pre_tokenizer)
  if (parts.some((part) => part.type === 'Digits' && part.individual_digits === true)) return 'smollm'
  const patterns = parts.filter(({ type }) => type === 'Split').map(({ pattern }) => patternOf(pattern))
  if (patterns.length === 0) return 'gpt-2' // the pattern that comes with byte-level pieces
  const known = patterns.length === 1 ? splitters.get(patterns[0] ?? '') : undefined
  if (known !== undefined) return known
  throw new Error(
    `Cannot export the tokenizer: it splits words by ${quote(patterns.join(' '))}, expected a pattern that llama.cpp has a name for (${[...splitters.values()].join(', ')})`,
  )
}

function patternOf(pattern: unknown): string {
  return typeof pattern === 'object' && pattern !== null && 'Regex' in pattern ? String(pattern.Regex) : ''
}

/**
 * SentencePiece merges the neighbours whose union has the highest score. tokenizer.json lists the same merges in the order of the
 * pieces they make, so a piece's place in that order, negated, is a score that gives the same result.
 */
function sentencePieces(file: TokenizerFile, rows: readonly (string | undefined)[]): GgufMetadata {
  const ranks = new Map<string, number>()
  for (const merge of file.model.merges) {
    const piece = Array.isArray(merge) ? merge.join('') : merge.replace(' ', '')
    if (!ranks.has(piece)) ranks.set(piece, ranks.size)
  }
  return {
    'tokenizer.ggml.model': { string: 'llama' },
    'tokenizer.ggml.pre': { string: 'default' },
    'tokenizer.ggml.scores': { float32s: rows.map((piece) => -(ranks.get(piece ?? '') ?? ranks.size)) },
    'tokenizer.ggml.add_space_prefix': { bool: hasDummyPrefix(file) },
    'tokenizer.ggml.remove_extra_whitespaces': { bool: false },
  }
}
