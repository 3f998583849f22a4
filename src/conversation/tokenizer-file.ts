/** Reading tokenizer.json and tokenizer_config.json of Hugging Face: unknown JSON in, checked facts out. */

import { z } from 'zod'
import { tellWrongFields } from '../wrong-fields.ts'

const component = z.looseObject({ type: z.string() })

const tokenizerFile = z.looseObject({
  added_tokens: z
    .array(z.looseObject({ id: z.int().nonnegative(), content: z.string().min(1), special: z.boolean().optional() }))
    .default([]),
  normalizer: component.nullable().default(null),
  pre_tokenizer: component.nullable().default(null),
  post_processor: component.nullable().default(null),
  decoder: component.nullable().default(null),
  model: z.looseObject({
    type: z.literal('BPE').default('BPE'),
    vocab: z.custom<Record<string, number>>((value) => isRecord(value), 'an object'),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
  }),
})

const namedToken = z.union([z.string(), z.looseObject({ content: z.string() }).transform((token) => token.content)])

const configFile = z.looseObject({
  bos_token: namedToken.nullish(),
  eos_token: namedToken.nullish(),
  pad_token: namedToken.nullish(),
  unk_token: namedToken.nullish(),
  add_bos_token: z.boolean().nullish(),
  legacy: z.boolean().nullish(),
})

export type TokenizerFile = z.infer<typeof tokenizerFile>
export type TokenizerConfigFile = z.infer<typeof configFile>
type Component = z.infer<typeof component>

/** @throws TypeError naming the first field of tokenizer.json that is missing or wrong */
export function readTokenizerFile(json: unknown): TokenizerFile {
  return check(tokenizerFile, json, 'tokenizer.json')
}

/** @throws TypeError naming the first field of tokenizer_config.json that is wrong */
export function readTokenizerConfig(json: unknown): TokenizerConfigFile {
  return check(configFile, json ?? {}, 'tokenizer_config.json')
}

/**
 * The file without its added tokens, so that text typed by a person can never become one of their ids.
 *
 * Names go from `added_tokens` and, because LLaMA lists `</s>` there too, from the pieces and merges. Added tokens
 * that are nothing but white space (phi-2 has runs of spaces) are ordinary text and stay.
 */
export function withoutAddedTokens(file: TokenizerFile): TokenizerFile {
  const { model } = file
  const names = new Set(file.added_tokens.map((token) => token.content).filter((content) => content.trim() !== ''))
  const pieces = Object.entries(model.vocab).filter(([piece]) => !names.has(piece) || piece === model.unk_token)
  const merges = model.merges.filter(
    (merge) => !names.has(Array.isArray(merge) ? merge.join('') : merge.replace(' ', '')),
  )
  return {
    ...file,
    added_tokens: file.added_tokens.filter((token) => !names.has(token.content)),
    model: { ...model, vocab: Object.fromEntries(pieces), merges },
  }
}

/** Whether the file puts a space before the first word of a text (the dummy prefix of SentencePiece). */
export function hasDummyPrefix(file: TokenizerFile): boolean {
  return (
    components(file.normalizer).some((part) => part.type === 'Prepend') || components(file.pre_tokenizer).some(adds)
  )
}

/** The file with no space put before the first word, for text that goes on after other tokens. */
export function withoutDummyPrefix(file: TokenizerFile): TokenizerFile {
  const normalizers = components(file.normalizer).filter((part) => part.type !== 'Prepend')
  const pretokenizers = components(file.pre_tokenizer).map((part) => {
    if (!adds(part)) return part
    return part.type === 'Metaspace' ? { ...part, prepend_scheme: 'never' } : { ...part, add_prefix_space: false }
  })
  return {
    ...file,
    normalizer: normalizers.length === 0 ? null : { type: 'Sequence', normalizers },
    pre_tokenizer: pretokenizers.length === 0 ? null : { type: 'Sequence', pretokenizers },
  }
}

/** Name of the token that the post-processor puts first (`<s> $A`), if it does so. */
export function leadingToken(file: TokenizerFile): string | undefined {
  for (const part of components(file.post_processor)) {
    if (part.type !== 'TemplateProcessing') continue
    const single = z
      .array(z.looseObject({ SpecialToken: z.looseObject({ id: z.string() }).optional() }))
      .safeParse(part.single)
    return single.data?.[0]?.SpecialToken?.id
  }
  return undefined
}

/** The parts of a normalizer, pre-tokenizer, post-processor or decoder, with sequences flattened. */
export function components(part: Component | null): Component[] {
  if (part === null) return []
  if (part.type !== 'Sequence') return [part]
  const inner = part.normalizers ?? part.pretokenizers ?? part.processors ?? part.decoders
  return check(z.array(component), inner, 'tokenizer.json').flatMap((each) => components(each))
}

function adds(part: Component): boolean {
  if (part.type === 'Metaspace') return part.prepend_scheme !== 'never'
  return part.type === 'ByteLevel' && part.add_prefix_space === true
}

/** @throws TypeError naming the fields of file `name` that are missing or wrong */
export function check<T extends z.ZodType>(schema: T, json: unknown, name: string): z.infer<T> {
  const result = schema.safeParse(json)
  if (result.success) return result.data
  throw new TypeError(`Cannot read ${name}: ${tellWrongFields(result.error, json)}`)
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
