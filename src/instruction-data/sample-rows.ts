/** Rows of a data set for a page: as many as wanted, spread over the whole file, with what is known of them beside it. */

import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { decodeImage } from '../image/decode.ts'
import { encodeThumbnail } from '../image/encode.ts'
import type { GalleryReject, GalleryRow } from './gallery-page.ts'
import { jsonElements, wholeFile } from './json-elements.ts'
import { checked, readJsonLines, readRecords } from './lines.ts'
import { imageSchema } from './llava-json.ts'
import { pictureProblem } from './picture-file.ts'
import { shareOf } from './requests.ts'
import { symbolicPictureSchema } from './symbolic-picture.ts'

const rowSchema = z.object({
  id: z.union([z.string(), z.number()]).transform(String),
  image: imageSchema.optional(),
  conversations: z.array(z.object({ from: z.string(), value: z.string() })),
  type: z.string().optional(),
  verdicts: z.array(z.object({ validator: z.string(), problem: z.string() })).default([]),
})
const provenanceSchema = symbolicPictureSchema.pick({ captions: true, boxes: true }).extend({ id: z.string() })
const rejectSchema = z.object({
  id: z.string(),
  type: z.string().optional(),
  reason: z.string(),
  text: z.string().optional(),
})
const thumbnailSide = 480

/** So many rows drawn at random, the same for a seed, in the order of the file. */
export async function sampleRows(
  path: string,
  { count, seed, images }: { count: number; seed: number; images: string | undefined },
): Promise<{ rows: GalleryRow[]; total: number }> {
  const values = path.endsWith('.jsonl') ? readJsonLines(path) : jsonElements(path, [wholeFile])
  const { drawn, total } = await drawFrom(values, { count, seed })
  const rows = drawn.map(({ line, value }) => checked(rowSchema, { value, where: `${path}, line ${line}` }))
  const told = await toldAbout(join(dirname(path), 'provenance.jsonl'), new Set(rows.map(({ id }) => id)))
  const shown: GalleryRow[] = []
  for (const { id, image, conversations, type, verdicts } of rows) {
    const names = image === undefined ? [] : [image].flat()
    const [first] = names // of several pictures a page shows the first, and names them all
    const found = first === undefined ? undefined : await thumbnail(first, images)
    const { captions = [], boxes = [] } = told.get(id) ?? {}
    const picture = found instanceof Uint8Array ? { jpeg: found } : undefined
    shown.push({
      id,
      image: image && names.join(', '),
      picture,
      trouble: typeof found === 'string' ? found : undefined,
      turns: conversations,
      type,
      verdicts,
      captions,
      boxes,
    })
  }
  return { rows: shown, total }
}

/** The same of what was rejected, from the file beside the rows; none when there is no such file. */
export async function sampleRejects(
  path: string,
  { count, seed }: { count: number; seed: number },
): Promise<{ rejects: GalleryReject[]; total: number }> {
  if (!(await isFile(path))) return { rejects: [], total: 0 }
  const { drawn, total } = await drawFrom(readJsonLines(path), { count, seed })
  return {
    rejects: drawn.map(({ line, value }) => checked(rejectSchema, { value, where: `${path}, line ${line}` })),
    total,
  }
}

type Numbered = { readonly line: number; readonly value: unknown }

/** Reservoir sampling: one pass, and no more than `count` values in memory. */
async function drawFrom(
  values: AsyncIterable<Numbered>,
  { count, seed }: { count: number; seed: number },
): Promise<{ drawn: Numbered[]; total: number }> {
  const drawn: Numbered[] = []
  let total = 0
  for await (const { line, value } of values) {
    const place = total < count ? total : Math.floor(shareOf(`${seed} sample ${total}`) * (total + 1))
    if (place < count) drawn[place] = { line, value }
    total += 1
  }
  return { drawn: drawn.sort((one, other) => one.line - other.line), total }
}

async function toldAbout(
  path: string,
  ids: ReadonlySet<string>,
): Promise<Map<string, z.infer<typeof provenanceSchema>>> {
  const found = new Map<string, z.infer<typeof provenanceSchema>>()
  if (!(await isFile(path))) return found
  for await (const record of readRecords(path, provenanceSchema)) if (ids.has(record.id)) found.set(record.id, record)
  return found
}

/** JPEG bytes, or why there are none. */
async function thumbnail(image: string, images: string | undefined): Promise<Uint8Array | string> {
  if (images === undefined) return `${image}: not looked for`
  const problem = await pictureProblem(image, images)
  if (problem !== undefined) return problem
  try {
    return await encodeThumbnail(await decodeImage(join(images, image)), thumbnailSide)
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

async function isFile(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isFile() ?? false
}
