/**
 * Pictures in words from a file with one of them a row, JSON lines or a list: `{"id", "image", "captions": [...], "boxes": [{"category", "box": [x1, y1,
 * x2, y2]}]}`. The names that other data sets use for these fields are understood as well.
 */

import { tellWrongFields } from '../wrong-fields.ts'
import { jsonElements, wholeFile } from './json-elements.ts'
import { readJsonLines } from './lines.ts'
import { type PictureOrProblem, symbolicPictureSchema } from './symbolic-picture.ts'

/** By our name: what Hugging Face's picture folders, img2dataset and others call it. */
const otherNames = {
  image: ['file_name', 'filename', 'file', 'path', 'image_path', 'picture'],
  captions: ['caption', 'text', 'description'],
} as const

/**
 * Every row of the file once; rows that cannot be used come as problems with their line. A row without an id has that of its picture.
 * @param options.below the folder that pictures are named from, where it is not the one of the pictures
 * @throws SyntaxError when a line is no JSON, or has the id of an earlier one
 */
export async function* readPictureRows(
  path: string,
  { list = false, below = '' }: { list?: boolean; below?: string } = {},
): AsyncGenerator<PictureOrProblem> {
  const lines = new Map<string, number>()
  for await (const { line, value } of list ? jsonElements(path, [wholeFile]) : readJsonLines(path)) {
    const row = symbolicPictureSchema.safeParse(inOurNames(value, { below }))
    if (!row.success) {
      yield { id: `line ${line}`, problem: `Cannot use line ${line} of ${path}: ${tellWrongFields(row.error, value)}` }
      continue
    }
    const { id, captions } = row.data
    const earlier = lines.get(id)
    if (earlier !== undefined) {
      throw new SyntaxError(
        `Cannot read ${path}: line ${line} has the id ${id} of line ${earlier}, expected ids that differ`,
      )
    }
    lines.set(id, line)
    if (captions.length > 0) yield { picture: row.data }
    else yield { id, problem: `Cannot use line ${line} of ${path}: picture ${id} has no captions` }
  }
}

/** The same row with the fields of a symbolic picture; anything else than an object is left as it is. */
export function inOurNames(value: unknown, { below = '' }: { below?: string } = {}): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  const row: Record<string, unknown> = { ...value }
  const named = (name: keyof typeof otherNames) => [name, ...otherNames[name]].map((one) => row[one]).find(isGiven)
  const [image, captions] = [named('image'), named('captions')]
  const place = typeof image === 'string' && below !== '' ? `${below}/${image}` : image
  return {
    ...row,
    id: isGiven(row.id) ? (below === '' ? row.id : `${below}/${row.id}`) : place,
    image: place,
    captions: typeof captions === 'string' ? [captions].filter((text) => text.trim() !== '') : captions,
  }
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null
}
