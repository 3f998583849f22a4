import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readCoco } from './coco.ts'
import { collect } from './collect.fixture.ts'
import { readPictureRows } from './picture-rows.ts'
import { renderContext } from './symbolic-picture.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'coco-test-'))
})
afterAll(() => rm(folder, { recursive: true }))

const images = [
  { id: 9, file_name: 'COCO_train2014_000000000009.jpg', width: 640, height: 480, license: 3 },
  { id: 25, file_name: 'COCO_train2014_000000000025.jpg', width: 200, height: 100, license: 1 },
]
const licenses = [
  { id: 1, name: 'CC BY 2.0', url: '' },
  { id: 3, name: 'CC BY-NC-ND 2.0', url: '' },
]
const captionRows = [
  { id: 1, image_id: 25, caption: ' A giraffe \n by a tree. ' },
  { id: 2, image_id: 9, caption: 'Lunch in boxes.' },
  { id: 3, image_id: 25, caption: 'Two giraffes eat.' },
]
const boxRows = [
  { id: 1, image_id: 25, category_id: 25, bbox: [20, 10, 100, 50], area: 1, iscrowd: 0, segmentation: [[1, 2]] },
  { id: 2, image_id: 25, category_id: 25, bbox: [0, 0, 200.9, 100], area: 1, iscrowd: 1 },
]
const categories = [{ id: 25, name: 'giraffe', supercategory: 'animal' }]

async function read(changes: { images?: unknown[]; captions?: unknown[]; boxes?: unknown[]; part?: number } = {}) {
  const files = { captions: join(folder, 'captions.json'), instances: join(folder, 'instances.json') }
  const shown = changes.images ?? images
  const captionFile = { info: {}, images: shown, licenses, annotations: changes.captions ?? captionRows }
  await writeFile(files.captions, JSON.stringify(captionFile))
  await writeFile(files.instances, JSON.stringify({ images: shown, annotations: changes.boxes ?? boxRows, categories }))
  return collect(readCoco(files, changes.part === undefined ? {} : { part: changes.part }))
}

describe('readCoco', () => {
  test('puts captions and boxes together, boxes as shares of the picture', async () => {
    expect(await read()).toEqual([
      {
        picture: {
          id: '9',
          image: 'COCO_train2014_000000000009.jpg',
          width: 640,
          height: 480,
          captions: ['Lunch in boxes.'],
          boxes: [],
          licenses: ['CC BY-NC-ND 2.0'],
        },
      },
      {
        picture: {
          id: '25',
          image: 'COCO_train2014_000000000025.jpg',
          width: 200,
          height: 100,
          captions: ['A giraffe \n by a tree.', 'Two giraffes eat.'],
          boxes: [
            { category: 'giraffe', box: [0.1, 0.1, 0.6, 0.6] },
            { category: 'giraffe', box: [0, 0, 1, 1], crowd: true },
          ],
          licenses: ['CC BY 2.0'],
        },
      },
    ])
  })

  test('gives the same pictures when they do not fit into memory, and leaves nothing behind', async () => {
    const left = async () => (await readdir(tmpdir())).filter((name) => name.startsWith('llava-parts-')).length
    const before = await left()
    const inParts = await read({ part: 100 })
    const byId = (one: (typeof inParts)[number]) => ('picture' in one ? one.picture.id : one.id)
    expect(inParts.toSorted((one, other) => byId(one).localeCompare(byId(other)))).toEqual((await read()).toReversed())
    expect(await left()).toBe(before)
  })

  test.each([
    [
      'captions of no picture',
      { captions: [...captionRows, { id: 4, image_id: 77, caption: 'Lost.' }] },
      'Cannot use the 1 captions of picture 77: found no picture of this id in ',
    ],
    [
      'a box with a negative width',
      { boxes: [{ image_id: 25, category_id: 25, bbox: [30, 1, -20, 5] }] },
      'Cannot use picture 25: Cannot use the box [30, 1, -20, 5]: found a negative width or height',
    ],
    [
      'a box outside',
      { boxes: [{ image_id: 25, category_id: 25, bbox: [150, 0, 60, 5] }] },
      'found a box outside of the picture of 200 x 100 pixels',
    ],
    [
      'an unknown category',
      { boxes: [{ image_id: 25, category_id: 3, bbox: [1, 1, 2, 2] }] },
      'found a box of category 3, which the file does not name',
    ],
    ['no captions', { captions: captionRows.slice(0, 2) }, undefined],
    [
      'empty captions',
      { captions: [{ image_id: 25, caption: ' ' }, captionRows[1]] },
      'Cannot use picture 25: it has no captions',
    ],
  ])('%s is a problem of that picture alone', async (_, changes, problem) => {
    const all = await read(changes)
    const problems = all.flatMap((one) => ('problem' in one ? [one.problem] : []))
    expect(problems.length).toBe(problem === undefined ? 0 : 1)
    if (problem !== undefined) expect(problems[0]).toContain(problem)
    expect(all.some((one) => 'picture' in one)).toBe(true)
  })

  test.each([
    [
      'a picture twice',
      { images: [...images, images[0]] },
      'found picture 9 twice under "images", expected ids that differ',
    ],
    ['no pictures', { images: [] }, 'found no pictures under "images"'],
    ['a picture without a size', { images: [{ id: 1, file_name: 'a.jpg' }] }, 'images[0]: width'],
    ['another annotation', { boxes: [{ id: 3 }] }, 'instances.json, annotations[0]: image_id'],
  ])('%s is refused', async (_, changes, reason) => {
    await expect(read(changes)).rejects.toThrow(SyntaxError)
    await expect(read(changes)).rejects.toThrow(reason)
  })

  test('says that a file is not there', async () => {
    const files = { captions: join(folder, 'none.json') }
    await expect(readCoco(files).next()).rejects.toThrow('none.json: no such file')
  })
})

describe('readPictureRows', () => {
  const rows = async (...values: unknown[]) => {
    const path = join(folder, 'rows.jsonl')
    await writeFile(path, values.map((value) => `${JSON.stringify(value)}\n`).join('\n'))
    return collect(readPictureRows(path))
  }
  const row = { id: 1, image: 'a.jpg', captions: ['A cat.'], boxes: [{ category: 'cat', box: [0, 0.1, 0.2, 0.3] }] }

  test('reads captions with and without boxes', async () => {
    const all = await rows(row, { id: 'b', image: 'b.jpg', captions: ['A dog.'] })
    expect(all).toEqual([
      { picture: { ...row, id: '1' } },
      { picture: { id: 'b', image: 'b.jpg', captions: ['A dog.'], boxes: [] } },
    ])
  })

  test('names the line and the field of what it cannot use', async () => {
    const all = await rows({ ...row, boxes: [{ category: 'cat', box: [0, 0, 2, 1] }] }, row)
    expect(all[0]).toMatchObject({
      problem: expect.stringMatching(/^Cannot use line 1 of .*rows.jsonl: boxes.0.box.2 is 2, expected at most 1$/),
    })
    expect(all[1]).toHaveProperty('picture')
    const reversed = await rows({ ...row, boxes: [{ category: 'cat', box: [0.5, 0, 0.4, 1] }] })
    expect(reversed[0]).toMatchObject({ problem: expect.stringContaining('expected [x1, y1, x2, y2]') })
  })

  test('refuses an id that comes twice', async () => {
    await expect(rows(row, row)).rejects.toThrow('line 3 has the id 1 of line 1, expected ids that differ')
  })
})

describe('renderContext', () => {
  const picture = {
    captions: ['A giraffe \n by a tree.', 'Two giraffes eat.'],
    boxes: [{ category: 'giraffe', box: [0.1, 0, 0.6, 1] as [number, number, number, number] }],
  }

  test('lists captions, and boxes with three decimals', () => {
    expect(renderContext(picture, 'captions')).toBe('A giraffe by a tree.\nTwo giraffes eat.')
    expect(renderContext(picture, 'captions-and-boxes')).toBe(
      'A giraffe by a tree.\nTwo giraffes eat.\n\ngiraffe: [0.100, 0.000, 0.600, 1.000]',
    )
  })
})
