/**
 * A mixture of data sets, declared in a file: which rows of which source, and by which line each source asks for its form of answers
 * ("Improved Baselines with Visual Instruction Tuning", §3.2 and table 7).
 */

import { z } from 'zod'
import { jsonElements, wholeFile } from './json-elements.ts'
import { checked, readJsonLines } from './lines.ts'
import { imageSchema } from './llava-json.ts'
import { shareOf } from './requests.ts'

/** What LLaVA-1.5 appends to a question, word for word, so that a short answer is given only where one is asked for. */
const formatPrompts = {
  none: '',
  'short-answer': 'Answer the question using a single word or phrase.',
  'choice-letter': "Answer with the option's letter from the given choices directly.",
  'one-sentence-caption': 'Provide a one-sentence caption for the provided image.',
  'region-description': 'Provide a short description for this region.',
  'region-box': 'Provide the bounding box coordinate of the region this sentence describes.',
} as const
export type FormatPrompt = keyof typeof formatPrompts

const sourceSchema = z.strictObject({
  file: z.string().min(1), // relative to the mixture file
  /** Goes before the file names of pictures: where this source's pictures lie below the common folder. */
  images: z.string().optional(),
  /** All rows, so many, or a share such as `10%`; always the same ones for a seed. */
  take: z.union([z.literal('all'), z.number().int().positive(), z.string().regex(/^\d+(\.\d+)?%$/)]).default('all'),
  prompt: z.enum(Object.keys(formatPrompts) as [FormatPrompt, ...FormatPrompt[]]).default('none'),
  license: z.string().optional(),
})
export const mixtureSchema = z.strictObject({
  seed: z.number().int().min(0).default(0),
  sources: z.record(z.string().min(1), sourceSchema),
})
export type MixtureFile = z.infer<typeof mixtureSchema>
export type MixtureSource = z.infer<typeof sourceSchema>

const rowSchema = z.looseObject({
  id: z.union([z.string(), z.number()]),
  image: imageSchema.optional(),
  conversations: z.array(z.looseObject({ from: z.string(), value: z.string() })).min(1),
})
export type MixedRow = z.infer<typeof rowSchema> & { source: string }

export type MixOptions = {
  /** The path of a source's file. */
  readonly resolve: (file: string) => string
  /** Part of all rows, by a hash of source and row: every row is in exactly one of the parts 1 to `of`. */
  readonly shard?: { readonly part: number; readonly of: number } | undefined
}

/**
 * The rows of a mixture, source by source, in the order of their files; trainers shuffle. Memory: eight bytes a row of a source of which a number is taken.
 * @throws SyntaxError that names source, file and row
 */
export async function* mixRows(
  { seed, sources }: MixtureFile,
  { resolve, shard }: MixOptions,
): AsyncGenerator<MixedRow> {
  for (const [name, source] of Object.entries(sources)) {
    const path = resolve(source.file)
    const isTaken = await takenRows(path, { name, source, seed })
    let index = 0
    for await (const { line, value } of rowsOf(path)) {
      const place = `${name} ${index++}`
      if (!isTaken(shareOf(`${seed} take ${place}`))) continue
      if (shard !== undefined && Math.floor(shareOf(`shard ${place}`) * shard.of) !== shard.part - 1) continue
      yield mixedRow(checked(rowSchema, { value, where: `${path}, line ${line}` }), { name, source })
    }
  }
}

/** Whether a row is taken, by its place between 0 and 1. */
async function takenRows(
  path: string,
  { name, source: { take }, seed }: { name: string; source: MixtureSource; seed: number },
): Promise<(place: number) => boolean> {
  if (take === 'all') return () => true
  if (typeof take === 'string') return (place) => place < Number.parseFloat(take) / 100
  const places: number[] = []
  for await (const _ of rowsOf(path)) places.push(shareOf(`${seed} take ${name} ${places.length}`))
  if (places.length < take) {
    throw new RangeError(`Cannot take ${take} rows of ${name}: found ${places.length} in ${path}`)
  }
  const last = Float64Array.from(places).sort()[take - 1] ?? 1
  return (place) => place <= last
}

function mixedRow(
  row: z.infer<typeof rowSchema>,
  { name, source: { images, prompt } }: { name: string; source: MixtureSource },
): MixedRow {
  const asked = formatPrompts[prompt]
  const first = row.conversations.findIndex(({ from }) => from === 'human')
  const conversations = row.conversations.map((turn, index) => {
    return index === first && asked !== '' && !turn.value.includes(asked)
      ? { ...turn, value: withLine(turn.value, asked) }
      : turn
  })
  const below = (name: string) => (images === undefined ? name : `${images.replace(/\/$/, '')}/${name}`)
  const image = Array.isArray(row.image) ? row.image.map(below) : row.image && below(row.image)
  return { ...row, ...(image !== undefined && { image }), conversations, source: name }
}

/** A line at the end of a question; a picture that stands at the end stays there. */
function withLine(question: string, line: string): string {
  const mark = /\s*<image>\s*$/.exec(question)?.[0] ?? ''
  return mark === '' ? `${question}\n${line}` : `${question.slice(0, -mark.length)}\n${line}\n<image>`
}

function rowsOf(path: string): AsyncIterable<{ line: number; value: unknown }> {
  return path.endsWith('.jsonl') ? readJsonLines(path) : jsonElements(path, [wholeFile])
}
