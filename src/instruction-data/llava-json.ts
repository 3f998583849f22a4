/** LLaVA JSON, the format that instruction data of this family is exchanged in: a list of rows, or one row per line. */

import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { isAbsolute, join, normalize } from 'node:path'
import { z } from 'zod'
import { countPictures, fromLlavaConversations } from '../conversation/turns.ts'
import { decodeImage, readImageSize } from '../image/decode.ts'
import { tellWrongFields } from '../wrong-fields.ts'
import { parseJson, unreadable } from './lines.ts'
import type { Sample, SamplePicture, SampleSource } from './sample.ts'

/** A picture's file name, or those of several, in the order in which the conversation shows them. */
export const imageSchema = z.union([z.string(), z.array(z.string()).min(1)])

const rowSchema = z.object({
  id: z.union([z.string(), z.number()]).transform(String),
  image: imageSchema.optional(),
  conversations: z.array(z.object({ from: z.string(), value: z.string() })).min(1),
})

export type LlavaRow = z.infer<typeof rowSchema>

/**
 * Rows of a `.json` (a list) or `.jsonl` file (one row per line).
 * @throws SyntaxError that names the row or line that is not as the format says
 */
export async function readLlavaRows(path: string): Promise<LlavaRow[]> {
  const text = await readFile(path, 'utf8').catch((cause) => Promise.reject(unreadable(path, cause)))
  const lines = path.endsWith('.jsonl')
  const values = lines
    ? text
        .split('\n')
        .flatMap((line, index) => (line.trim() === '' ? [] : [parseJson(line, `${path}, line ${index + 1}`)]))
    : parseJson(text, path)
  if (!Array.isArray(values)) throw new SyntaxError(`Cannot read ${path}: found no list, expected a list of rows`)
  return values.map((value, index) => {
    const row = rowSchema.safeParse(value)
    if (row.success) return row.data
    throw new SyntaxError(`Cannot read ${path}, row ${index + 1}: ${tellWrongFields(row.error, value)}`)
  })
}

/** The rows of a file as samples; pictures are read when asked for, from below the folder `images`. */
export async function llavaJsonSource(path: string, { images }: { images: string }): Promise<SampleSource> {
  const rows = await readLlavaRows(path)
  if (rows.length === 0) throw new RangeError(`Cannot learn from ${path}: found no rows`)
  return {
    size: rows.length,
    measure: (index) => {
      const row = rows[index]
      return { words: row === undefined ? 0 : countWords(row), pictures: picturesOf(row).length }
    },
    sample: async (index) => {
      const row = rows[index]
      if (row === undefined) throw new RangeError(`Cannot read row ${index} of ${path}: it has ${rows.length} rows`)
      return toSample(row, images)
    },
  }
}

/** Words of all turns, as white space divides them. */
function countWords({ conversations }: LlavaRow): number {
  return conversations.reduce((sum, { value }) => sum + value.split(/\s+/).filter(Boolean).length, 0)
}

function toSample(row: LlavaRow, images: string): Sample {
  const turns = fromLlavaConversations(row.conversations)
  const { id } = row
  const names = picturesOf(row)
  const shown = countPictures(turns)
  if (shown !== names.length) {
    const found = shown === 0 ? 'no <image>' : `${shown} times <image>`
    const expected = names.length === 0 ? 'none, because the row has no picture' : `one for ${names.join(', ')}`
    throw new RangeError(`Cannot read sample ${id}: its conversation has ${found}, expected ${expected}`)
  }
  return { id, turns, pictures: names.map((name) => pictureIn(images, { name, id })) }
}

/** File names of a row's pictures, relative to their folder. */
function picturesOf(row: Pick<LlavaRow, 'image'> | undefined): readonly string[] {
  return row?.image === undefined ? [] : [row.image].flat()
}

/** A picture below the folder `images`; errors speak of sample `id`. */
export function pictureIn(images: string, { name, id }: { name: string; id: string }): SamplePicture {
  const inside = normalize(name)
  if (isAbsolute(inside) || inside.startsWith('..')) {
    throw new RangeError(`Cannot read sample ${id}: picture ${name} lies outside of ${images}`)
  }
  const file = join(images, inside)
  return {
    pixels: () => decodeImage(file),
    size: () => readImageSize(file),
    key: async () =>
      createHash('sha256')
        .update(await readFile(file))
        .digest('hex'),
  }
}
