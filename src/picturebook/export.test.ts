import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { decodeImage } from '../image/decode.ts'
import { llavaJsonSource, readLlavaRows } from '../instruction-data/llava-json.ts'
import { scoreAnswer } from './answers.ts'
import { type Drawings, loadDrawings } from './drawings.ts'
import { type ExportOptions, exportPicturebook, type WriteFile } from './export.ts'
import { type GalleryItem, galleryPage } from './gallery.ts'
import type { Exchange } from './questions.ts'
import { renderScene } from './rendering.ts'
import { makeScene } from './scene.ts'

let drawings: Drawings
let options: ExportOptions
let root: string
let folder: string
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'picturebook-'))
  folder = join(root, 'set')
  drawings = await loadDrawings({ side: 48, styles: ['fluent'] })
  options = { count: 6, seed: 3, split: 'iid', styles: ['fluent'], side: 48, objects: [1, 2], drawings }
  await exportPicturebook(into(folder), options)
}, 60_000)
afterAll(() => rm(root, { recursive: true, force: true }))

function into(target: string): WriteFile {
  return async (name, pieces) => {
    await mkdir(dirname(join(target, name)), { recursive: true })
    await writeFile(join(target, name), pieces)
  }
}

async function inMemory(changes: Partial<ExportOptions> = {}): Promise<Map<string, string>> {
  const files = new Map<string, string>()
  await exportPicturebook(
    async (name, pieces) => {
      files.set(name, Buffer.concat([...pieces].map((piece) => Buffer.from(piece as string))).toString('latin1'))
    },
    { ...options, ...changes },
  )
  return files
}

describe('an exported picturebook', () => {
  test('has all files, with pictures that are the scenes', async () => {
    expect((await readdir(folder)).sort()).toEqual(
      ['captions_iid.json', 'gallery.html', 'images', 'instances_iid.json', 'llava.json', 'questions.jsonl'].sort(),
    )
    expect(await readdir(join(folder, 'images'))).toHaveLength(6)
    const scene = makeScene(3_000_000_002, { split: 'iid', styles: ['fluent'], side: 48, objects: [1, 2] })
    const picture = await decodeImage(join(folder, 'images', '000002.png'))
    expect(Buffer.from(picture.data).equals(renderScene(scene, drawings).data)).toBe(true)
  })

  test('is read again as LLaVA JSON, with its pictures', async () => {
    const rows = await readLlavaRows(join(folder, 'llava.json'))
    expect(rows.map(({ id, image }) => [id, image])[5]).toEqual(['000005', '000005.png'])
    const source = await llavaJsonSource(join(folder, 'llava.json'), { images: join(folder, 'images') })
    expect(source.size).toBe(6)
    const sample = await source.sample(5)
    expect(sample.turns.length).toBeGreaterThanOrEqual(2)
    expect(await sample.pictures[0]?.pixels()).toMatchObject({ width: 48, height: 48 })
  })

  test('asks questions whose full answers are right, with ids that count up', async () => {
    const rows = (await inMemory())
      .get('questions.jsonl')!
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(rows.map(({ question_id }) => question_id)).toEqual(rows.map((_, index) => index))
    expect(new Set(rows.map(({ image }) => image)).size).toBe(6)
    for (const { text, skill, expected, answer } of rows.filter((row) => ['existence', 'count'].includes(row.skill))) {
      const exchange: Exchange = { question: text, skill, expected, answer, short: false }
      expect(scoreAnswer(exchange, answer), `${text} ${answer}`).toBe(true)
    }
  })

  test('has equal bytes for equal seeds and other scenes for another seed', async () => {
    const [one, two, other] = [await inMemory(), await inMemory(), await inMemory({ seed: 4 })]
    expect(two).toEqual(one)
    expect(other.get('images/000000.png')).not.toEqual(one.get('images/000000.png'))
    expect(other.get('instances_iid.json')).not.toEqual(one.get('instances_iid.json'))
  })

  test('covers things in as many pictures as told, and says how much of them is visible', async () => {
    const [none, all] = [await inMemory({ objects: [2, 2] }), await inMemory({ objects: [2, 2], overlap: 1 })]
    const visibilities = (files: Map<string, string>): number[] =>
      JSON.parse(files.get('instances_iid.json')!).annotations.map((row: { visibility: number }) => row.visibility)
    expect(visibilities(none)).toEqual(Array(12).fill(1))
    expect(visibilities(all).filter((visible) => visible < 1)).toHaveLength(6)
    expect(all.get('gallery.html')!.match(/, [6-9]\d% visible<\/text>/g)).toHaveLength(6)
    expect(none.get('gallery.html')).not.toContain('% visible')
  })

  test('refuses impossible options before anything is written', async () => {
    const names: string[] = []
    const write: WriteFile = async (name) => void names.push(name)
    await expect(exportPicturebook(write, { ...options, count: 0 })).rejects.toThrow(RangeError)
    await expect(exportPicturebook(write, { ...options, objects: [1, 9] })).rejects.toThrow(RangeError)
    await expect(exportPicturebook(write, { ...options, overlap: 2 })).rejects.toThrow(RangeError)
    expect(names).toEqual([])
  })
})

describe('an interrupted export', () => {
  test.each([
    ['among the pictures', 'images/000002.png'],
    ['among the texts', 'captions_iid.json'],
    ['before the last file', 'questions.jsonl'],
  ])('%s leaves nothing', async (_, last) => {
    const target = join(root, 'interrupted', 'set')
    await mkdir(dirname(target), { recursive: true })
    const controller = new AbortController()
    const filling = writeFolderAtomically(target, async (partial) => {
      const write = into(partial)
      await exportPicturebook(
        async (name, pieces) => {
          await write(name, pieces)
          if (name === last) controller.abort()
        },
        { ...options, signal: controller.signal },
      )
    })
    await expect(filling).rejects.toMatchObject({ name: 'AbortError' })
    expect(await readdir(dirname(target))).toEqual([])
  })
})

describe('the gallery', () => {
  const item: GalleryItem = {
    file: '000000.png',
    scene: makeScene(5, { objects: [2, 2] }),
    png: new Uint8Array([1, 2, 3]),
    captions: ['A <b>cat</b> & "dogs".', 'Two.'],
    exchanges: [],
  }
  const about = { split: 'iid', seed: 0, pictures: 100, credits: [] } as const

  test('escapes text, holds its pictures and draws every box', () => {
    const page = galleryPage([item], about)
    expect(page).not.toContain('<b>')
    expect(page).toContain('A &#60;b&#62;cat&#60;/b&#62; &#38; &#34;dogs&#34;.')
    expect(page).toContain('src="data:image/png;base64,AQID"')
    for (const { box } of item.scene.objects) {
      expect(page).toContain(`<rect x="${box.x}" y="${box.y}" width="${box.width}" height="${box.height}"`)
    }
  })

  test('shows the first 60 scenes and loads nothing', () => {
    const page = galleryPage(Array<GalleryItem>(61).fill(item), about)
    expect(page.match(/<article>/g)).toHaveLength(60)
    expect(page).toContain('the first 60 of 100 pictures')
    expect(page).not.toMatch(/<script|<link|url\(|src="(?!data:)/)
  })
})
