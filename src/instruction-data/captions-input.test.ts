import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { hashCaptionFolder, readCaptionFolder } from './caption-folder.ts'
import { findCaptions, readCaptions } from './captions-input.ts'
import { collect } from './collect.fixture.ts'

let root = ''
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'captions-input-'))
})
afterAll(() => rm(root, { recursive: true }))

let made = 0
/** A new folder with files of these texts. */
async function folderWith(files: Record<string, string>): Promise<string> {
  const folder = join(root, String(++made))
  await mkdir(folder)
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true })
    await writeFile(join(folder, name), text)
  }
  return folder
}
const fileWith = async (name: string, text: string) => join(await folderWith({ [name]: text }), name)

describe('findCaptions', () => {
  test.each([
    ['COCO in one line', 'captions.json', '{"info": {}, "images": [], "annotations": []}', 'coco'],
    ['COCO in many lines', 'captions.json', '{\n  "images": [],\n  "annotations": []\n}', 'coco'],
    ['rows', 'rows.jsonl', '{"image": "a.jpg", "caption": "A."}\n', 'rows'],
    [
      'rows under another name',
      'rows.txt',
      '\uFEFF{"image": "a.jpg", "caption": "A."}\n{"image": "b.jpg", "caption": "B."}\n',
      'rows',
    ],
    ['a list', 'list.json', '\n[{"image": "a.jpg", "caption": "A."}]', 'list'],
    ['a table', 'rows.dat', 'image,caption\n', 'table'],
  ])('tells %s', async (_, name, text, form) => {
    expect(await findCaptions(await fileWith(name, text))).toMatchObject({ form })
  })

  test.each<[string, Record<string, string>, string]>([
    [
      'nothing',
      { 'a.json': ' \n' },
      'a.json: it is empty, expected COCO captions (.json), rows (.jsonl), a table (.csv) or a folder',
    ],
    ['a spreadsheet', { 'a.xlsx': 'PK\x03\x04\0\0' }, 'a.xlsx: found a ZIP archive, expected COCO captions'],
    [
      'prose',
      { 'a.txt': 'Dear Sir,\nA cat.\n' },
      'a.txt: found the columns Dear Sir, (without a name), expected in the first line a column for the picture',
    ],
    [
      'pictures alone',
      { 'b/a.jpg': '', 'b/c.tar': '' },
      'b: found files of the kinds .jpg, .tar, expected pictures with captions of the same name beside them (a.jpg with a.txt), metadata.jsonl or metadata.csv',
    ],
    ['an empty folder', { 'b/.hidden': '' }, 'b: found no files, expected pictures'],
  ])('%s is one sentence', async (_, files, sentence) => {
    const folder = await folderWith(files)
    const [name = ''] = Object.keys(files)
    const path = join(folder, name.includes('/') ? dirname(name) : name)
    await expect(findCaptions(path)).rejects.toThrow(sentence)
  })

  test('a path of nothing is one sentence', async () => {
    await expect(findCaptions(join(root, 'none'))).rejects.toThrow('none: no such file')
  })
})

describe('readCaptions', () => {
  test('a list and rows understand the names of others, and take the id from the picture', async () => {
    const rows = [
      { file_name: 'a.jpg', text: 'A cat.', other: 1 },
      { image: 'b.jpg', caption: ['One.', 'Two.'] },
      { id: 7, path: 'c.jpg', description: ' ' },
    ]
    const list = await fileWith('list.json', JSON.stringify(rows, undefined, 1))
    const lines = await fileWith('rows.jsonl', rows.map((row) => JSON.stringify(row)).join('\r\n'))
    const options = { instances: undefined }
    const pictures = [
      { picture: { id: 'a.jpg', image: 'a.jpg', captions: ['A cat.'], boxes: [] } },
      { picture: { id: 'b.jpg', image: 'b.jpg', captions: ['One.', 'Two.'], boxes: [] } },
    ]
    const empty = (line: number, path: string) => ({
      id: '7',
      problem: `Cannot use line ${line} of ${path}: picture 7 has no captions`,
    })
    expect(await collect(readCaptions(list, { form: 'list', ...options }))).toEqual([...pictures, empty(14, list)])
    expect(await collect(readCaptions(lines, { form: 'rows', ...options }))).toEqual([...pictures, empty(3, lines)])
  })

  test('a line separator within a caption does not end the line', async () => {
    const path = await fileWith('rows.jsonl', `${JSON.stringify({ image: 'a.jpg', caption: 'One\u2028two\u0085.' })}\n`)
    expect(await collect(readCaptions(path, { form: 'rows', instances: undefined }))).toMatchObject([
      { picture: { captions: ['One\u2028two\u0085.'] } },
    ])
  })
})

describe('readCaptionFolder', () => {
  test('reads texts and JSON beside pictures, in subfolders as well', async () => {
    const folder = await folderWith({
      'a.jpg': '',
      'a.txt': ' A cat.\n\nA cat sits.\r\n',
      'b.png': '',
      'b.caption': 'A dog.',
      '00000/000000001.jpg': '',
      '00000/000000001.txt': 'A bus.',
      '00000/000000001.json': JSON.stringify({
        caption: 'A bus.',
        url: 'x',
        key: '000000001',
        width: 20,
        height: 10,
        status: 'success',
      }),
      '00000/c.JPG': '',
      '00000/c.JPG.json': JSON.stringify({ captions: ['A cow.'], boxes: [{ category: 'cow', box: [0, 0, 1, 1] }] }),
      '00000_stats.json': '{"count": 1}',
    })
    expect(await findCaptions(folder)).toEqual({
      form: 'folder',
      said: 'a folder of pictures with captions beside them, such as a.jpg with a.txt',
    })
    expect(await collect(readCaptionFolder(folder))).toEqual([
      { picture: { id: 'a.jpg', image: 'a.jpg', captions: ['A cat.', 'A cat sits.'], boxes: [] } },
      { picture: { id: 'b.png', image: 'b.png', captions: ['A dog.'], boxes: [] } },
      {
        picture: {
          id: '00000/000000001.jpg',
          image: '00000/000000001.jpg',
          width: 20,
          height: 10,
          captions: ['A bus.'],
          boxes: [],
        },
      },
      {
        picture: {
          id: '00000/c.JPG',
          image: '00000/c.JPG',
          captions: ['A cow.'],
          boxes: [{ category: 'cow', box: [0, 0, 1, 1] }],
        },
      },
    ])
  })

  test('reads listings of Hugging Face picture folders, also below', async () => {
    const folder = await folderWith({
      'train/metadata.csv': 'file_name,text\nx/1.png,A red cat.\n',
      'test/metadata.jsonl': '{"file_name": "2.png", "text": "A blue cat.", "id": 2}\n',
      'test/2.png': '',
    })
    expect(await findCaptions(folder)).toMatchObject({ said: 'a folder with test/metadata.jsonl' })
    expect(await collect(readCaptionFolder(folder))).toEqual([
      { picture: { id: 'test/2', image: 'test/2.png', captions: ['A blue cat.'], boxes: [] } },
      { picture: { id: 'train/x/1.png', image: 'train/x/1.png', captions: ['A red cat.'], boxes: [] } },
    ])
  })

  test('says what cannot be used, and uses the rest', async () => {
    const folder = await folderWith({
      'a.jpg': '',
      'a.txt': 'A cat.',
      'b.jpg': '',
      'c.jpg': '',
      'c.txt': ' \n',
      'd.jpg': '',
      'd.json': '{"caption": ',
      'e.jpg': '',
      'e.json': '{"caption": "E.", "boxes": [{"category": "cat", "box": [0, 0, 5, 1]}]}',
      'f.txt': 'Alone.',
    })
    const problems = (await collect(readCaptionFolder(folder))).flatMap((one) =>
      'problem' in one ? [one.problem] : [],
    )
    expect(problems).toEqual([
      'Cannot use picture b.jpg: found no captions beside it, expected b.txt, .caption or .json',
      'Cannot use picture c.jpg: found no captions in c.txt',
      expect.stringMatching(/^Cannot use picture d.jpg: found d.json that is no JSON \(/),
      expect.stringMatching(/^Cannot use picture e.jpg: found e.json in which boxes.0.box.2 is 5, /),
      `Cannot use ${join(folder, 'f.txt')}: found no picture of this name beside it`,
    ])
  })

  test('its hash tells other captions and other pictures', async () => {
    const files = { 'a.jpg': '', 'a.txt': 'A cat.' }
    const hash = async (changes: Record<string, string>) =>
      hashCaptionFolder(await folderWith({ ...files, ...changes }))
    expect(await hash({})).toBe(await hash({}))
    expect(new Set([await hash({}), await hash({ 'a.txt': 'A cow.' }), await hash({ 'b.jpg': '' })]).size).toBe(3)
  })
})
