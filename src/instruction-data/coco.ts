/**
 * Pictures in words from COCO's files (cocodataset.org, Data format): captions of one file and boxes of another, put together by the picture's id.
 *
 * What belongs to one picture stands far apart in these files, so it is dealt into parts before it is put together.
 */

import { stat } from 'node:fs/promises'
import { z } from 'zod'
import { jsonElements } from './json-elements.ts'
import { checked, unreadable } from './lines.ts'
import { type OnRecord, openParts, partBytes } from './parts.ts'
import {
  type NamedBox,
  normalizeBox,
  type PictureOrProblem,
  type PixelBox,
  type SymbolicPicture,
} from './symbolic-picture.ts'

export type CocoFiles = { readonly captions: string; readonly instances?: string | undefined }

const idSchema = z.union([z.number(), z.string().min(1)]).transform(String)
const imageSchema = z.object({
  id: idSchema,
  file_name: z.string().min(1),
  width: z.number().int().positive(),
  height: z.number().int().positive(),
  license: z.number().exactOptional(),
  licenses: z.array(z.number()).exactOptional(), // several, as the picturebook has
})
const captionSchema = z.object({ image_id: idSchema, caption: z.string() })
const boxSchema = z.object({
  image_id: idSchema,
  category_id: z.number(),
  bbox: z.tuple([z.number(), z.number(), z.number(), z.number()]),
  iscrowd: z.union([z.literal(0), z.literal(1)]).exactOptional(),
})
const categorySchema = z.object({ id: z.number(), name: z.string().min(1) })
const licenseSchema = z.object({ id: z.number(), name: z.string() })

/** What is dealt into parts: one record of either file, with the id of its picture. */
type CocoRecord =
  | { readonly of: string; readonly kind: 'image'; readonly image: z.infer<typeof imageSchema> }
  | { readonly of: string; readonly kind: 'caption'; readonly caption: string }
  | {
      readonly of: string
      readonly kind: 'box'
      readonly category: number
      readonly bbox: PixelBox
      readonly crowd: boolean
    }

/** Names that the records refer to by number. */
type Names = { readonly categories: Map<number, string>; readonly licenses: Map<number, string> }

/**
 * Every picture of the files once, in words. Pictures that cannot be used come as problems.
 * @param options.folder where the parts lie meanwhile, emptied before and removed after; a temporary folder unless told
 * @param options.onRecord told how many entries were read, before the first picture comes
 * @throws SyntaxError when a file is not COCO JSON or lists a picture twice
 */
export async function* readCoco(
  files: CocoFiles,
  { part = partBytes, folder, onRecord }: { part?: number; folder?: string | undefined; onRecord?: OnRecord } = {},
): AsyncGenerator<PictureOrProblem> {
  const paths = [files.captions, ...(files.instances === undefined ? [] : [files.instances])]
  const sizes = await Promise.all(
    paths.map((path) => stat(path).catch((cause) => Promise.reject(unreadable(path, cause)))),
  )
  const parts = await openParts<CocoRecord>(Math.ceil(sizes.reduce((sum, { size }) => sum + size, 0) / part), folder)
  try {
    const names: Names = { categories: new Map(), licenses: new Map() }
    const listed = new Map<string, number>() // pictures per file
    let count = 0
    for (const [file, path] of paths.entries()) {
      for await (const record of recordsOf(path, names)) {
        if (record.kind === 'image') listed.set(path, (listed.get(path) ?? 0) + 1)
        if (record.kind === 'image' && file > 0) continue // the boxes' file lists the same pictures again
        await parts.put(record)
        onRecord?.(++count)
      }
    }
    if (!listed.has(files.captions))
      throw new SyntaxError(`Cannot read ${files.captions}: found no pictures under "images", expected COCO captions`)
    for await (const records of parts.all()) yield* putTogether(records, { names, files })
  } finally {
    await parts.close()
  }
}

async function* recordsOf(path: string, { categories, licenses }: Names): AsyncGenerator<CocoRecord> {
  for await (const { list, index, value } of jsonElements(path, ['images', 'annotations', 'categories', 'licenses'])) {
    const where = `${path}, ${list}[${index}]`
    if (list === 'licenses') {
      const { id, name } = checked(licenseSchema, { value, where })
      licenses.set(id, name)
    } else if (list === 'categories') {
      const { id, name } = checked(categorySchema, { value, where })
      categories.set(id, name)
    } else if (list === 'images') {
      const image = checked(imageSchema, { value, where })
      yield { of: image.id, kind: 'image', image }
    } else if (typeof value === 'object' && value !== null && 'caption' in value) {
      const { image_id, caption } = checked(captionSchema, { value, where })
      yield { of: image_id, kind: 'caption', caption: caption.trim() }
    } else {
      const { image_id, category_id, bbox, iscrowd } = checked(boxSchema, { value, where })
      yield { of: image_id, kind: 'box', category: category_id, bbox, crowd: iscrowd === 1 }
    }
  }
}

function* putTogether(
  records: Iterable<CocoRecord>,
  { names, files }: { names: Names; files: CocoFiles },
): Generator<PictureOrProblem> {
  type Gathered = { images: z.infer<typeof imageSchema>[]; captions: string[]; boxes: (CocoRecord & { kind: 'box' })[] }
  const pictures = new Map<string, Gathered>()
  for (const record of records) {
    const gathered = pictures.get(record.of) ?? { images: [], captions: [], boxes: [] }
    pictures.set(record.of, gathered)
    if (record.kind === 'image') gathered.images.push(record.image)
    else if (record.kind === 'caption') gathered.captions.push(record.caption)
    else gathered.boxes.push(record)
  }
  for (const [id, { images, captions, boxes }] of pictures) {
    const [image, twice] = images
    if (twice !== undefined)
      throw new SyntaxError(
        `Cannot read ${files.captions}: found picture ${id} twice under "images", expected ids that differ`,
      )
    if (image === undefined) {
      const what = captions.length > 0 ? `${captions.length} captions` : `${boxes.length} boxes`
      yield { id, problem: `Cannot use the ${what} of picture ${id}: found no picture of this id in ${files.captions}` }
      continue
    }
    try {
      yield { picture: pictureOf(image, { captions, boxes, names }) }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error
      yield { id, problem: `Cannot use picture ${id}: ${error.message}` }
    }
  }
}

function pictureOf(
  image: z.infer<typeof imageSchema>,
  { captions, boxes, names }: { captions: string[]; boxes: (CocoRecord & { kind: 'box' })[]; names: Names },
): SymbolicPicture {
  const said = captions.filter((caption) => caption !== '')
  if (said.length === 0) throw new RangeError('it has no captions')
  const named = boxes.map(({ category, bbox, crowd }): NamedBox => {
    const name = names.categories.get(category)
    if (name === undefined) throw new RangeError(`found a box of category ${category}, which the file does not name`)
    return { category: name, box: [...normalizeBox(bbox, image)], ...(crowd && { crowd }) }
  })
  const licenses = [...(image.licenses ?? []), ...(image.license === undefined ? [] : [image.license])]
  return {
    id: image.id,
    image: image.file_name,
    width: image.width,
    height: image.height,
    captions: said,
    boxes: named,
    ...(licenses.length > 0 && {
      licenses: licenses.map((license) => names.licenses.get(license) ?? `license ${license}`),
    }),
  }
}
