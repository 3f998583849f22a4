/**
 * Texts as CLIP and SigLIP read them: words between a start and an end token, padded as each model was trained.
 *
 * CLIP's byte pairs end words with `</w>` and texts with their own token, so that padding is never looked at. SigLIP's texts always fill its whole
 * context, and padding is part of what it reads. Which tokens stand around a text is what tokenizer.json says.
 */

import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers'
import { z } from 'zod'
import { encodeText, loadTokenizer } from './tokenizer.ts'
import { check, components, readTokenizerConfig, type TokenizerFile } from './tokenizer-file.ts'

export type ClipTokenizer = {
  /** The ids of a text alone; names of special tokens in it are text. */
  readonly encode: (text: string) => number[]
  readonly start: readonly number[]
  readonly end: readonly number[]
  readonly pad: number
  readonly vocabularySize: number // largest id + 1
  /** Tokens of the longest text, start and end included. */
  readonly context: number
  /** Whether every text is padded to `context`, or only to the longest of those read together. */
  readonly fills: boolean
}

export type ClipTokenizerFiles = { readonly tokenizerJson: unknown; readonly tokenizerConfig?: unknown }

/**
 * The tokenizer of a CLIP or SigLIP folder: byte pairs (CLIP, SigLIP 2) or SentencePiece's unigrams (SigLIP).
 * @throws TypeError when a file has not the expected fields, RangeError when it names no token to pad with
 */
export function loadClipTokenizer(
  files: ClipTokenizerFiles,
  { kind, context }: { kind: 'clip' | 'siglip'; context: number },
): ClipTokenizer {
  const { file, encode, ids } = isUnigram(files.tokenizerJson) ? openUnigrams(files) : openBytePairs(files)
  const config = readTokenizerConfig(files.tokenizerConfig)
  const { start, end } = surroundings(file.post_processor)
  const named = [config.pad_token, config.eos_token].map((name) => ids.get(name ?? ''))
  const pad = named.find((id) => id !== undefined) ?? end.at(-1)
  if (pad === undefined) throw new RangeError('Cannot load the tokenizer: found no pad_token and no eos_token')
  if (end.length === 0) throw new RangeError('Cannot load the tokenizer: its texts have no end token, expected one')
  // SigLIP learned from lower case throughout; SigLIP 2's file leaves that to whoever reads it (transformers: Siglip2Tokenizer).
  const prepare = (text: string) => (kind === 'siglip' ? text.toLowerCase() : text)
  const vocabularySize = [...ids.values()].reduce((largest, id) => Math.max(largest, id), 0) + 1
  return { encode: (text) => encode(prepare(text)), start, end, pad, vocabularySize, context, fills: kind === 'siglip' }
}

/**
 * Ids of texts, all of one length.
 * @param options.truncate cuts texts that are too long at their end, instead of refusing them
 * @throws RangeError for a text of more tokens than the model reads
 */
export function encodeClipTexts(
  tokenizer: ClipTokenizer,
  texts: readonly string[],
  { truncate = false }: { truncate?: boolean } = {},
): number[][] {
  const { encode, start, end, pad, context, fills } = tokenizer
  const room = context - start.length - end.length
  const encoded = texts.map((text) => {
    const ids = encode(text)
    if (ids.length <= room || truncate) return [...start, ...ids.slice(0, room), ...end]
    const found = `${ids.length + start.length + end.length} tokens`
    throw new RangeError(`Cannot read the text ${shortened(text)}: found ${found}, expected at most ${context}`)
  })
  const length = fills ? context : Math.max(0, ...encoded.map((ids) => ids.length))
  return encoded.map((ids) => [...ids, ...Array<number>(length - ids.length).fill(pad)])
}

type Opened = {
  readonly file: Pick<TokenizerFile, 'post_processor'>
  readonly encode: (text: string) => number[]
  readonly ids: ReadonlyMap<string, number>
}

function openBytePairs(files: ClipTokenizerFiles): Opened {
  const tokenizer = loadTokenizer(files)
  const file = check(bytePairFile, files.tokenizerJson, fileName)
  return { file, encode: (text) => encodeText(tokenizer, text), ids: tokenizer.ids }
}

const fileName = 'tokenizer.json'
const component = z.looseObject({ type: z.string() })
const bytePairFile = z.looseObject({ post_processor: component.nullable().default(null) })
const unigramFile = z.looseObject({
  added_tokens: z.array(z.looseObject({ id: z.int().nonnegative(), content: z.string().min(1) })).default([]),
  post_processor: component.nullable().default(null),
  model: z.looseObject({
    type: z.literal('Unigram').default('Unigram'),
    unk_id: z.int().nonnegative().nullish(),
    vocab: z.array(z.tuple([z.string(), z.number()])).min(1),
  }),
})

function isUnigram(json: unknown): boolean {
  return z.looseObject({ model: z.looseObject({ vocab: z.array(z.unknown()) }) }).safeParse(json).success
}

/** Pieces keep their places, which are their ids; those that are names of special tokens get a name that no text has. */
function openUnigrams({ tokenizerJson, tokenizerConfig }: ClipTokenizerFiles): Opened {
  const file = check(unigramFile, tokenizerJson, fileName)
  const { eos_token } = readTokenizerConfig(tokenizerConfig)
  const ids = new Map(file.model.vocab.map(([piece], id) => [piece, id]))
  for (const { content, id } of file.added_tokens) ids.set(content, id)
  const special = new Set(file.added_tokens.map(({ content }) => content))
  const vocab = file.model.vocab.map(([piece, score], id) =>
    special.has(piece) && id !== file.model.unk_id ? [`\u{f0000}${id}`, score] : [piece, score],
  )
  const model = { ...file.model, type: 'Unigram', vocab }
  const library = new LibraryTokenizer({ ...file, added_tokens: [], model }, { eos_token: eos_token ?? '' })
  return { file, encode: (text) => library.encode(text, { add_special_tokens: false }).ids, ids }
}

const pair = z.tuple([z.string(), z.int().nonnegative()])
const roberta = z.looseObject({ cls: pair, sep: pair })
const template = z.looseObject({
  single: z.array(z.looseObject({ SpecialToken: z.looseObject({ id: z.string() }).optional() })),
  special_tokens: z.record(z.string(), z.looseObject({ ids: z.array(z.int().nonnegative()) })),
})

/** The tokens that the post-processor puts before and after a text. */
function surroundings(processor: TokenizerFile['post_processor']): { start: number[]; end: number[] } {
  const found = { start: [] as number[], end: [] as number[] }
  for (const part of components(processor)) {
    if (part.type === 'RobertaProcessing' || part.type === 'BertProcessing') {
      const { cls, sep } = check(roberta, part, fileName)
      found.start.push(cls[1])
      found.end.push(sep[1])
    }
    if (part.type !== 'TemplateProcessing') continue
    const { single, special_tokens } = check(template, part, fileName)
    const text = single.findIndex(({ SpecialToken }) => SpecialToken === undefined)
    for (const [index, { SpecialToken }] of single.entries()) {
      if (SpecialToken === undefined) continue
      found[index < text ? 'start' : 'end'].push(...(special_tokens[SpecialToken.id]?.ids ?? []))
    }
  }
  return found
}

function shortened(text: string): string {
  return JSON.stringify(text.length > 40 ? `${text.slice(0, 40)}…` : text)
}
