/**
 * Pictures in words from a table (CSV): a row is a caption of a picture, or a box, or both; rows of one picture may stand anywhere. Columns are found by
 * their names, the mark between them by trying: comma, semicolon, tab or bar.
 */

import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { CsvError, type Options, parse } from 'csv-parse'
import { parse as parseText } from 'csv-parse/sync'
import { type Columns, columnsOf, knownColumns } from './caption-columns.ts'
import { firstBytes, unreadable } from './lines.ts'
import { type OnRecord, openParts, partBytes } from './parts.ts'
import {
  type NamedBox,
  normalizeBox,
  type PictureOrProblem,
  type PictureSize,
  type PixelBox,
} from './symbolic-picture.ts'

export type TableOptions = {
  /** Width and height of a picture's file, where boxes are in pixels and no column has them; RangeError for a picture that cannot be used. */
  readonly sizeOf?: ((image: string) => Promise<PictureSize>) | undefined
  /** Where parts of a large table lie meanwhile. */
  readonly folder?: string | undefined
  /** The folder that pictures are named from, where it is not the one of the pictures. */
  readonly below?: string | undefined
  readonly part?: number
  /** Rows that were read, before the first picture comes. */
  readonly onRecord?: OnRecord
}

export type TableForm = { readonly delimiter: string; readonly header: readonly string[]; readonly columns: Columns }

/** One row: with the picture it belongs to, or the line that names none. */
type Row = {
  readonly of: string
  readonly line: number
  readonly captions: readonly string[]
  readonly box?: { readonly category: string; readonly box: PixelBox }
  readonly size?: PictureSize
  readonly problem?: string
}

const delimiters = { ',': 'commas', ';': 'semicolons', '\t': 'tabs', '|': 'bars' } as const
const headBytes = 1 << 16
const longestRecord = 1 << 20 // bytes: with a quote that nobody closes, a row would be the rest of the file
const replacement = '\uFFFD' // what stands for bytes that are no UTF-8

/** @throws SyntaxError when the first line does not name the columns that are needed */
export async function readTableForm(path: string): Promise<TableForm> {
  const bytes = await firstBytes(path, headBytes)
  const head = bytes.toString(bytes[0] === 0xff && bytes[1] === 0xfe ? 'utf16le' : 'utf8')
  const headers = Object.keys(delimiters).map((delimiter) => ({ delimiter, header: headerOf(head, delimiter) }))
  // The more columns are known the better, and of equally good marks the one that cuts more.
  const [best] = headers.sort(
    (one, other) => knownColumns(other.header) - knownColumns(one.header) || other.header.length - one.header.length,
  )
  if (best === undefined || best.header.length === 0) throw new SyntaxError(`Cannot read ${path}: it is empty`)
  return { ...best, columns: columnsOf(best.header, path) }
}

/** What a table was found to be, in words. */
export function describeTable({ delimiter, header, columns }: TableForm): string {
  const named = (at: number) => JSON.stringify(header[at]?.trim())
  const { picture, captions, box } = columns
  const boxes = box === undefined ? '' : `, boxes in ${box.numbers.map(named).join(', ')} with ${named(box.category)}`
  return `a table with ${delimiters[delimiter as keyof typeof delimiters]}: pictures in ${named(picture)}, captions in ${captions.map(named).join(', ')}${boxes}`
}

/**
 * Every picture of a table once; those that cannot be used come as problems with their line.
 * @throws SyntaxError that names the line, for a quote that is not closed
 */
export async function* readCaptionTable(
  path: string,
  { sizeOf, folder, below = '', part = partBytes, onRecord }: TableOptions = {},
): AsyncGenerator<PictureOrProblem> {
  const form = await readTableForm(path)
  const { size } = await stat(path)
  const parts = await openParts<Row>(Math.ceil(size / part), folder)
  try {
    let count = 0
    for await (const row of rowsOf(path, form)) {
      onRecord?.(++count)
      if (row.of === '') yield { id: `line ${row.line}`, problem: row.problem ?? '' }
      else await parts.put(below === '' ? row : { ...row, of: `${below}/${row.of}` })
    }
    for await (const rows of parts.all()) {
      const pictures = new Map<string, Row[]>()
      for (const row of rows) {
        const found = pictures.get(row.of)
        if (found === undefined) pictures.set(row.of, [row])
        else found.push(row)
      }
      for (const [image, found] of pictures) yield await pictureOf(image, { rows: found, path, sizeOf })
    }
  } finally {
    await parts.close()
  }
}

async function* rowsOf(path: string, { delimiter, header, columns }: TableForm): AsyncGenerator<Row> {
  const stream = createReadStream(path)
  const parser = stream.pipe(parse({ ...tableOptions, delimiter, info: true, skip_empty_lines: true }))
  stream.on('error', (cause) => parser.destroy(unreadable(path, cause)))
  let lastLine = 0
  try {
    for await (const { record, info } of parser as AsyncIterable<{ record: string[]; info: { lines: number } }>) {
      const line = info.lines - record.reduce((sum, cell) => sum + (cell.match(/\n/g)?.length ?? 0), 0)
      if (lastLine > 0) yield rowOf(record, { line, path, header, columns, delimiter })
      lastLine = info.lines
    }
  } catch (error) {
    if (error instanceof CsvError) throw new SyntaxError(`Cannot read ${path}: ${csvProblem(error, lastLine)}`)
    throw error
  } finally {
    stream.destroy()
  }
}

const tableOptions: Options = {
  bom: true,
  relax_column_count: true, // said in our own words, of one row
  relax_quotes: true, // 5" screen
  max_record_size: longestRecord,
}

function csvProblem({ code, message }: CsvError, lastLine: number): string {
  if (code === 'CSV_QUOTE_NOT_CLOSED' || code === 'CSV_MAX_RECORD_SIZE')
    return `a quote that opens after line ${lastLine} is not closed`
  return message
}

function rowOf(
  cells: readonly string[],
  {
    line,
    path,
    header,
    columns,
    delimiter,
  }: Pick<TableForm, 'header' | 'columns' | 'delimiter'> & {
    line: number
    path: string
  },
): Row {
  const cell = (at: number) => (cells[at] ?? '').trim()
  const of = cell(columns.picture).replaceAll('\\', '/')
  const refuse = (problem: string) => ({
    of,
    line,
    captions: [],
    problem: `Cannot use line ${line} of ${path}: ${problem}`,
  })
  // A caption with a comma, without quotes, moves all that follows.
  if (cells.length !== header.length)
    return refuse(
      `found ${cells.length} fields, expected ${header.length} as in the first line; a field with ${JSON.stringify(delimiter)} in it needs quotes`,
    )
  if (of === '') return refuse('it names no picture')
  const captions = columns.captions.map(cell).filter((text) => text !== '')
  if ([of, ...captions].some((text) => text.includes(replacement)))
    return refuse('found bytes that are no UTF-8, expected the table to be saved as UTF-8')
  const numberAt = (at: number) => numberIn(cell(at), delimiter)
  const size = columns.size?.map(numberAt)
  const [width = 0, height = 0] = size ?? []
  const row: Row = { of, line, captions, ...(width > 0 && height > 0 && { size: { width, height } }) }
  if (columns.box === undefined) return row
  const { category, numbers, toBox } = columns.box
  if (numbers.every((at) => cell(at) === '')) return row
  const name = cell(category)
  const found = numbers.map(numberAt) as [number, number, number, number]
  const wrong = numbers.find((_, index) => !Number.isFinite(found[index]))
  if (wrong !== undefined)
    return refuse(`found ${JSON.stringify(cell(wrong))} as ${header[wrong]?.trim()} of a box, expected a number`)
  if (name === '') return refuse('found a box without a name for what it holds')
  return { ...row, box: { category: name, box: toBox(found) } }
}

/** Programs that put semicolons between columns write decimal commas. */
function numberIn(text: string, delimiter: string): number {
  return text === '' ? Number.NaN : Number(delimiter === ';' ? text.replace(',', '.') : text)
}

async function pictureOf(
  image: string,
  { rows, path, sizeOf }: { rows: readonly Row[]; path: string } & Pick<TableOptions, 'sizeOf'>,
): Promise<PictureOrProblem> {
  const broken = rows.find(({ problem }) => problem !== undefined)
  if (broken?.problem !== undefined) return { id: image, problem: broken.problem }
  // Tables with a row for every box repeat the caption, and those with a row for every caption the box.
  const captions = [...new Set(rows.flatMap((row) => row.captions))]
  const lines =
    rows.length === 1
      ? `line ${rows[0]?.line}`
      : `lines ${rows
          .map(({ line }) => line)
          .slice(0, 3)
          .join(', ')}${rows.length > 3 ? ', …' : ''}`
  if (captions.length === 0)
    return { id: image, problem: `Cannot use picture ${image} (${path}, ${lines}): it has no captions` }
  const boxed = rows.flatMap(({ box, line }) => (box === undefined ? [] : [{ ...box, line }]))
  const inPixels = boxed.some(({ box }) => !isInShares(box))
  const boxes = new Map<string, NamedBox>()
  let size = rows.find((row) => row.size !== undefined)?.size
  let place = lines
  try {
    if (inPixels) size ??= await sizeOf?.(image)
    for (const { category, box, line } of boxed) {
      place = `line ${line}`
      const named: NamedBox = { category, box: [...sharesOf(box, { inPixels, size })] }
      boxes.set(JSON.stringify(named), named)
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return { id: image, problem: `Cannot use picture ${image} (${path}, ${place}): ${error.message}` }
  }
  return { picture: { id: image, image, ...size, captions, boxes: [...boxes.values()] } }
}

const rounding = 0.005 // of a share

/** Whether a box may be in shares of the picture: one of pixels would be smaller than a pixel. */
function isInShares([x, y, w, h]: PixelBox): boolean {
  return Math.max(x + w, y + h) <= 1 + rounding
}

function sharesOf(box: PixelBox, { inPixels, size }: { inPixels: boolean; size: PictureSize | undefined }) {
  const [x, y, w, h] = box
  if (!inPixels) {
    if (Math.min(x, y) < -rounding) throw new RangeError(`found the box [${box.join(', ')}] outside of the picture`)
    return normalizeBox(box, { width: 1, height: 1 })
  }
  if (Math.max(x + w, y + h) < 2)
    throw new RangeError(
      `found the box [${box.join(', ')}], expected all boxes of the picture in pixels, or all in shares from 0 to 1`,
    )
  if (size === undefined)
    throw new RangeError(
      'its boxes are in pixels and its size is not known, expected --images with the picture, or columns image_width and image_height',
    )
  return normalizeBox(box, size)
}

/** The cells of the first line; none when they cannot be read with this mark between them. */
function headerOf(head: string, delimiter: string): readonly string[] {
  try {
    const records = parseText(head, { ...tableOptions, delimiter, to: 1, skip_empty_lines: true }) as string[][]
    return records[0] ?? []
  } catch {
    return []
  }
}
