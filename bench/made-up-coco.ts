/** COCO files of any size with made-up captions and boxes, the same ones every time: what a large data set weighs, without one. */

import { createWriteStream } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

export const categories = [
  'person', 'bicycle', 'car', 'bus', 'train', 'boat', 'bench', 'bird', 'cat', 'dog', 'horse', 'sheep', 'cow', 'elephant', 'umbrella', 'kite', 'bottle', 'cup',
  'bowl', 'banana', 'chair', 'couch', 'bed', 'laptop', 'book', 'clock', 'vase', 'teddy bear',
] // biome-ignore format: a table

const places = [
  'on a beach',
  'in a kitchen',
  'on a busy street',
  'in front of a red brick house',
  'under a tree',
  'at the edge of a lake',
]
const manners = ['A photo of', 'There is', 'We see', 'A close view of', 'Early in the morning,']
const [width, height] = [640, 480]
const [captionsEach, boxesEach] = [5, 4]

export function cocoPaths(folder: string) {
  return { captions: join(folder, 'captions.json'), instances: join(folder, 'instances.json') }
}

/** Writes captions and instances of so many pictures, five captions and four boxes each, in COCO's order: all pictures, then all annotations. */
export async function writeMadeUpCoco(folder: string, pictures: number): Promise<void> {
  const { captions, instances } = cocoPaths(folder)
  const images = () =>
    listed(pictures, (id) => [{ id, file_name: `${String(id).padStart(12, '0')}.jpg`, width, height, license: 1 }])
  await pipeline(
    Readable.from(
      joined([
        '{"info": {}, "licenses": [{"id": 1, "name": "made up", "url": ""}], "images": [',
        images(),
        '], "annotations": [',
        listed(pictures, captionsOf),
        ']}\n',
      ]),
    ),
    createWriteStream(captions),
  )
  const named = categories.map((name, id) => ({ id, name, supercategory: 'thing' }))
  await pipeline(
    Readable.from(
      joined([
        '{"images": [',
        images(),
        '], "annotations": [',
        listed(pictures, boxesOf),
        `], "categories": ${JSON.stringify(named)}}\n`,
      ]),
    ),
    createWriteStream(instances),
  )
}

/** The things of a picture, by their categories. */
function thingsOf(id: number): number[] {
  return Array.from({ length: boxesEach }, (_, index) => mixed(id, index) % categories.length)
}

function captionsOf(id: number): object[] {
  const [one = '', other = '', third = ''] = thingsOf(id).map((thing) => categories[thing])
  return Array.from({ length: captionsEach }, (_, index) => {
    const manner = manners[index % manners.length]
    const place = places[mixed(id, 10 + index) % places.length]
    const caption = `${manner} a ${one} and a ${other} ${place}${index % 2 === 0 ? `, with a ${third} nearby` : ''}.`
    return { id: id * captionsEach + index, image_id: id, caption }
  })
}

function boxesOf(id: number): object[] {
  return thingsOf(id).map((thing, index) => {
    const [w, h] = [40 + (mixed(id, 20 + index) % 200), 40 + (mixed(id, 30 + index) % 200)]
    const [x, y] = [mixed(id, 40 + index) % (width - w), mixed(id, 50 + index) % (height - h)]
    const bbox = [x + 0.25, y + 0.5, w - 0.5, h - 0.5]
    // The outline is what makes COCO's files large.
    const outline = [x, y, x + w, y, x + w, y + h, x, y + h].map((value) => value + 0.37)
    return {
      id: id * boxesEach + index,
      image_id: id,
      category_id: thing,
      bbox,
      segmentation: [outline],
      area: w * h,
      iscrowd: 0,
    }
  })
}

/** A number that looks random and depends on both alone. */
function mixed(one: number, other: number): number {
  let bits = Math.imul(one + 1, 2_654_435_761) ^ Math.imul(other + 1, 2_246_822_519)
  bits = Math.imul(bits ^ (bits >>> 15), 2_246_822_519)
  return (bits ^ (bits >>> 13)) >>> 0
}

/** JSON of the entries for ids from 1, in pieces of many pictures. */
function* listed(pictures: number, entriesOf: (id: number) => object[]): Generator<string> {
  const atOnce = 1000
  for (let from = 1; from <= pictures; from += atOnce) {
    const entries: string[] = []
    for (let id = from; id < Math.min(from + atOnce, pictures + 1); id++)
      for (const entry of entriesOf(id)) entries.push(JSON.stringify(entry))
    yield `${from === 1 ? '' : ', '}${entries.join(', ')}`
  }
}

function* joined(parts: readonly (string | Iterable<string>)[]): Generator<string> {
  for (const part of parts) {
    if (typeof part === 'string') yield part
    else yield* part
  }
}
