/**
 * Pictures in words from a folder of captioned pictures, subfolders included: `a.jpg` with `a.txt` (one caption a line), `a.caption` or `a.json` beside it, as
 * trainers and img2dataset have them, or `metadata.jsonl` or `metadata.csv` as Hugging Face's picture folders have it.
 */

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { tellWrongFields } from '../wrong-fields.ts'
import { readCaptionTable, type TableOptions } from './caption-table.ts'
import { unreadable } from './lines.ts'
import { inOurNames, readPictureRows } from './picture-rows.ts'
import { type PictureOrProblem, symbolicPictureSchema } from './symbolic-picture.ts'

const pictureEndings = ['.jpg', '.jpeg', '.png', '.webp', '.gif', '.tif', '.tiff', '.avif', '.bmp']
const captionEndings = ['.txt', '.caption', '.json']
/** Files that name pictures and captions of their folder and those below it. */
const listings = ['metadata.jsonl', 'metadata.csv']

/** One folder on the way: its place below the first one, and the files in it that matter. */
type Place = {
  readonly below: string // '' for the first one
  readonly listing: string | undefined
  readonly pictures: readonly string[]
  readonly captions: ReadonlySet<string>
  readonly others: readonly string[]
}

/** @throws Error when there are no pictures with captions in the folder, with what is there */
export async function describeCaptionFolder(folder: string): Promise<string> {
  const endings = new Set<string>()
  for await (const { below, listing, pictures, captions, others } of placesIn(folder)) {
    const where = below === '' ? '' : `${below}/`
    if (listing !== undefined) return `a folder with ${where}${listing}`
    const first = pictures.find((picture) => besides(picture, captions).length > 0)
    if (first !== undefined)
      return `a folder of pictures with captions beside them, such as ${where}${first} with ${besides(first, captions).join(' and ')}`
    for (const name of [...pictures, ...captions, ...others]) endings.add(extname(name) || name)
  }
  const found = endings.size === 0 ? 'no files' : `files of the kinds ${[...endings].sort().slice(0, 8).join(', ')}`
  throw new Error(
    `Cannot read ${folder}: found ${found}, expected pictures with captions of the same name beside them (a.jpg with a.txt), ${listings.join(' or ')}`,
  )
}

/** A hash of all that captions are read from: the names of the pictures, and what stands in the other files. */
export async function hashCaptionFolder(folder: string): Promise<string> {
  const hash = createHash('sha256')
  for await (const { below, listing, pictures, captions } of placesIn(folder)) {
    hash.update(JSON.stringify([below, listing, pictures]))
    for (const name of listing === undefined ? captions : [listing]) {
      hash.update(JSON.stringify([name]))
      for await (const piece of createReadStream(join(folder, below, name))) hash.update(piece)
    }
  }
  return hash.digest('hex')
}

/** Every picture of the folder once; those without captions, and captions without a picture, come as problems. */
export async function* readCaptionFolder(folder: string, options: TableOptions = {}): AsyncGenerator<PictureOrProblem> {
  for await (const place of placesIn(folder)) {
    const { below, listing } = place
    if (listing === undefined) yield* readPlace(folder, place)
    else if (listing.endsWith('.csv')) yield* readCaptionTable(join(folder, below, listing), { ...options, below })
    else yield* readPictureRows(join(folder, below, listing), { below })
  }
}

async function* readPlace(folder: string, { below, pictures, captions }: Place): AsyncGenerator<PictureOrProblem> {
  const used = new Set<string>()
  for (const name of pictures) {
    const image = below === '' ? name : `${below}/${name}`
    const files = besides(name, captions)
    for (const file of files) used.add(file)
    yield await pictureOf(image, { folder, files: files.map((file) => (below === '' ? file : `${below}/${file}`)) })
  }
  for (const name of captions) {
    const place = below === '' ? name : `${below}/${name}`
    // Other texts lie about as well: a list of files, a licence.
    if (!used.has(name) && extname(name) !== '.json' && pictures.length > 0)
      yield { id: place, problem: `Cannot use ${join(folder, place)}: found no picture of this name beside it` }
  }
}

async function pictureOf(
  image: string,
  { folder, files }: { folder: string; files: readonly string[] },
): Promise<PictureOrProblem> {
  const refuse = (problem: string) => ({ id: image, problem: `Cannot use picture ${image}: ${problem}` })
  if (files.length === 0)
    return refuse(`found no captions beside it, expected ${withoutEnding(image)}.txt, .caption or .json`)
  let [captions, rest]: [string[], object] = [[], {}]
  for (const file of files) {
    const text = await readText(join(folder, file))
    if (text.includes('\uFFFD')) return refuse(`found bytes that are no UTF-8 in ${file}`)
    if (!file.endsWith('.json')) {
      captions.push(...text.split(/\r?\n/).map((line) => line.trim()))
      continue
    }
    const found = readFields(text, image)
    if (typeof found === 'string') return refuse(`found ${file} ${found}`)
    const { captions: said = [], ...others } = found
    captions.push(...said.map((caption) => caption.trim()))
    rest = others
  }
  captions = [...new Set(captions)].filter((caption) => caption !== '')
  if (captions.length === 0) return refuse(`found no captions in ${files.join(' and ')}`)
  return { picture: { boxes: [], ...rest, id: image, image, captions } }
}

const fieldsSchema = symbolicPictureSchema.partial({ captions: true })

/** Captions, and boxes where there are some, of the JSON file beside a picture; or what is wrong with it. */
function readFields(text: string, image: string) {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    return `that is no JSON (${error instanceof Error ? error.message : error})`
  }
  if (typeof value !== 'object' || value === null) return 'without an object in it'
  const { captions, boxes, width, height } = inOurNames(value) as Record<string, unknown>
  const given = Object.entries({ captions, boxes, width, height }).filter(
    ([, one]) => one !== undefined && one !== null,
  )
  const row = { ...Object.fromEntries(given), id: image, image }
  const fields = fieldsSchema.safeParse(row)
  return fields.success ? fields.data : `in which ${tellWrongFields(fields.error, row)}`
}

/** Folder by folder, in the order of their names; one with a listing speaks for those below it. */
async function* placesIn(folder: string, below = ''): AsyncGenerator<Place> {
  const entries = await readdir(join(folder, below), { withFileTypes: true }).catch((cause) => {
    throw unreadable(join(folder, below), cause)
  })
  const visible = entries
    .filter(({ name }) => !name.startsWith('.'))
    .sort((one, other) => (one.name < other.name ? -1 : 1))
  const files = visible.filter((entry) => !entry.isDirectory()).map(({ name }) => name)
  const listing = listings.find((name) => files.includes(name))
  const endsWith = (endings: readonly string[]) => (name: string) => endings.includes(extname(name).toLowerCase())
  const [isPicture, isCaption] = [endsWith(pictureEndings), endsWith(captionEndings)]
  yield {
    below,
    listing,
    pictures: files.filter(isPicture),
    captions: new Set(files.filter(isCaption)),
    others: files.filter((name) => !isPicture(name) && !isCaption(name)),
  }
  if (listing !== undefined) return
  for (const { name } of visible.filter((entry) => entry.isDirectory()))
    yield* placesIn(folder, below === '' ? name : `${below}/${name}`)
}

/** The files with captions of a picture: `a.txt` or `a.jpg.txt` for `a.jpg`. */
function besides(picture: string, captions: ReadonlySet<string>): string[] {
  const stems = [withoutEnding(picture), picture]
  return captionEndings.flatMap((ending) => stems.map((stem) => stem + ending)).filter((name) => captions.has(name))
}

function withoutEnding(name: string): string {
  return name.slice(0, name.length - extname(name).length)
}

async function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch((cause) => Promise.reject(unreadable(path, cause)))
}
