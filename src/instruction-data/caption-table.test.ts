import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { describeTable, readCaptionTable, readTableForm, type TableOptions } from './caption-table.ts'
import { collect } from './collect.fixture.ts'

let folder = ''
let path = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'table-test-'))
  path = join(folder, 'table.csv')
})
afterAll(() => rm(folder, { recursive: true }))

async function read(text: string | Buffer, options: TableOptions = {}) {
  await writeFile(path, text)
  return collect(readCaptionTable(path, options))
}
const problems = async (...given: Parameters<typeof read>) =>
  (await read(...given)).flatMap((one) => ('problem' in one ? [one.problem.replaceAll(path, 'T')] : []))

describe('readCaptionTable', () => {
  test('rows of one picture are its captions, wherever they stand', async () => {
    const all = await read(
      'image,caption\na.jpg,A cat.\nb.jpg,"A dog, ""Rex"",\nin a house."\na.jpg, A cat sits. \na.jpg,A cat.\n',
    )
    expect(all).toEqual([
      { picture: { id: 'a.jpg', image: 'a.jpg', captions: ['A cat.', 'A cat sits.'], boxes: [] } },
      { picture: { id: 'b.jpg', image: 'b.jpg', captions: ['A dog, "Rex",\nin a house.'], boxes: [] } },
    ])
  })

  test.each([
    ['a byte order mark, semicolons, other columns', '\uFEFFNr;File Name;Text\n1;x/a.jpg;A cat, and a dog.\n'],
    ['tabs and line ends of Windows', 'Nr\tText\tImage_Path\r\n1\tA cat, and a dog.\tx\\a.jpg\r\n'],
    ['bars with spaces, as Flickr30k has them', 'image_name| comment_number| comment\nx/a.jpg| 0| A cat, and a dog.\n'],
    ['UTF-16', Buffer.from('\uFEFFfile\ttext\nx/a.jpg\tA cat, and a dog.\n', 'utf16le')],
    ['empty lines', '\n\nfile,text\n\nx/a.jpg,"A cat, and a dog."\n\n'],
  ])('%s', async (_, text) => {
    expect(await read(text)).toEqual([
      { picture: { id: 'x/a.jpg', image: 'x/a.jpg', captions: ['A cat, and a dog.'], boxes: [] } },
    ])
  })

  test('reads several columns of captions, of the first family that is there', async () => {
    const [first] = await read('text,caption_1,caption_2,picture\nOCR,One.,Two.,a.jpg\n')
    expect(first).toMatchObject({ picture: { captions: ['One.', 'Two.'] } })
  })

  const box = { category: 'cat', box: [0.1, 0.2, 0.6, 0.8] }
  test.each<[string, string, TableOptions?]>([
    ['shares', 'image,caption,x,y,width,height,label\na.jpg,A.,0.1,0.2,0.5,0.6,cat\n'],
    [
      'pixels, size in columns',
      'image,caption,x,y,w,h,label,image_width,image_height\na.jpg,A.,20,20,100,60,cat,200,100\n',
    ],
    [
      'pixels, size of the file',
      'image,caption,x,y,w,h,label\na.jpg,A.,20,20,100,60,cat\n',
      { sizeOf: async () => ({ width: 200, height: 100 }) },
    ],
    [
      "corners, where width and height are the picture's",
      'filename,width,height,class,xmin,ymin,xmax,ymax,caption\na.jpg,200,100,cat,20,20,120,80,A.\n',
    ],
    [
      'middles, with decimal commas',
      'image;caption;x_center;y_center;width;height;class\na.jpg;A.;0,35;0,5;0,5;0,6;cat\n',
    ],
    [
      'a row for a caption and a row for a box',
      'image,caption,x,y,width,height,label\na.jpg,A.,,,,,\na.jpg,,0.1,0.2,0.5,0.6,cat\na.jpg,A.,0.1,0.2,0.5,0.6,cat\n',
    ],
  ])('boxes: %s', async (_, text, options) => {
    const [one] = await read(text, options)
    expect(one).toMatchObject({ picture: { captions: ['A.'], boxes: [box] } })
  })

  test.each<[string, string]>([
    [
      'image,caption\na.jpg,One, two.\n',
      'Cannot use line 2 of T: found 3 fields, expected 2 as in the first line; a field with "," in it needs quotes',
    ],
    ['image,caption\n,"A\ncat."\n', 'Cannot use line 2 of T: it names no picture'],
    ['image,caption\n"b\nc.jpg",A cat.\n\na.jpg,\n', 'Cannot use picture a.jpg (T, line 5): it has no captions'],
    [
      'image,caption,x,y,w,h,label\na.jpg,A.,1,2,x,4,cat\n',
      'Cannot use line 2 of T: found "x" as w of a box, expected a number',
    ],
    [
      'image,caption,x,y,w,h,label\na.jpg,A.,1,2,,4,cat\n',
      'Cannot use line 2 of T: found "" as w of a box, expected a number',
    ],
    [
      'image,caption,x,y,w,h,label\na.jpg,A.,.1,.2,.1,.4,\n',
      'Cannot use line 2 of T: found a box without a name for what it holds',
    ],
    [
      'image,caption,x,y,w,h,label\na.jpg,A.,.1,.2,-.1,.4,cat\n',
      'Cannot use picture a.jpg (T, line 2): Cannot use the box [0.1, 0.2, -0.1, 0.4]: found a negative width or height',
    ],
    [
      'image,caption,x,y,w,h,label\na.jpg,A.,-.3,.2,.1,.4,cat\n',
      'Cannot use picture a.jpg (T, line 2): found the box [-0.3, 0.2, 0.1, 0.4] outside of the picture',
    ],
    [
      'image,caption,x,y,w,h,label\na.jpg,A.,.7,.2,.6,.4,cat\n',
      'Cannot use picture a.jpg (T, line 2): found the box [0.7, 0.2, 0.6, 0.4], expected all boxes of the picture in pixels, or all in shares from 0 to 1',
    ],
    [
      'image,caption,x,y,w,h,label\na.jpg,A.,10,20,30,40,cat\n',
      'Cannot use picture a.jpg (T, line 2): its boxes are in pixels and its size is not known, expected --images with the picture, or columns image_width and image_height',
    ],
    [
      'image,caption,x,y,w,h,label,image_width,image_height\na.jpg,A.,90,20,30,40,cat,100,100\n',
      'Cannot use picture a.jpg (T, line 2): Cannot use the box [90, 20, 30, 40]: found a box outside of the picture of 100 x 100 pixels',
    ],
  ])('%j is a problem of that picture alone', async (text, problem) => {
    const all = await read(`${text}good.jpg,Good.${','.repeat((text.split('\n')[0] ?? '').split(',').length - 2)}\n`)
    expect(all.flatMap((one) => ('problem' in one ? [one.problem.replaceAll(path, 'T')] : []))).toEqual([problem])
    expect(all.some((one) => 'picture' in one && one.picture.id === 'good.jpg')).toBe(true)
  })

  test('bytes that are no UTF-8 are said, not guessed', async () => {
    const latin1 = Buffer.from('image,caption\na.jpg,Ein Bär.\n', 'latin1')
    expect(await problems(latin1)).toEqual([
      'Cannot use line 2 of T: found bytes that are no UTF-8, expected the table to be saved as UTF-8',
    ])
  })

  test.each([
    [
      'a.jpg,A cat.\nb.jpg,A dog.\n',
      'found the columns a.jpg, A cat., expected in the first line a column for the picture, such as image, file_name or path',
    ],
    [
      'image,score\na.jpg,1\n',
      'found the columns image, score, expected a column for captions as well, such as caption or text',
    ],
    [
      'image,caption,x,y,w,h\na.jpg,A.,1,2,3,4\n',
      'expected beside the numbers of boxes a column for what they hold, such as category or label',
    ],
    ['', 'it is empty'],
    ['image,caption\na.jpg,A cat.\nb.jpg,"A dog\nc.jpg,A cow.\n', 'a quote that opens after line 2 is not closed'],
  ])('%j is refused', async (text, reason) => {
    await expect(read(text)).rejects.toThrow(SyntaxError)
    await expect(read(text)).rejects.toThrow(`Cannot read ${path}: ${reason.startsWith('expected') ? '' : reason}`)
    await expect(read(text)).rejects.toThrow(reason)
  })

  test('gives the same pictures when they do not fit into memory, and leaves nothing behind', async () => {
    const rows = Array.from({ length: 40 }, (_, row) => `${row % 7}.jpg,Caption ${row}.\n`).join('')
    const place = join(folder, 'parts')
    const parts = await read(`image,caption\n${rows}`, { part: 100, folder: place })
    const whole = await read(`image,caption\n${rows}`)
    const sorted = (all: typeof whole) => all.map((one) => JSON.stringify(one)).sort()
    expect(sorted(parts)).toEqual(sorted(whole))
    expect(whole.length).toBe(7)
    expect(await readdir(folder)).not.toContain('parts')
  })

  test('says what it found', async () => {
    await writeFile(path, 'image;caption;x;y;width;height;label\n')
    expect(describeTable(await readTableForm(path))).toBe(
      'a table with semicolons: pictures in "image", captions in "caption", boxes in "x", "y", "width", "height" with "label"',
    )
  })
})
