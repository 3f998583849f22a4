import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { countPictures, textOf } from '../conversation/turns.ts'
import { encodePng } from '../image/encode.ts'
import { filledPixels } from '../image/pixels.ts'
import { llavaJsonSource, readLlavaRows } from './llava-json.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llava-json-'))
  await mkdir(join(folder, 'pictures'))
  await writeFile(join(folder, 'pictures', 'a.png'), await encodePng(filledPixels(3, 2, [1, 2, 3])))
})
afterAll(() => rm(folder, { recursive: true }))

const write = async (name: string, text: string) => {
  await writeFile(join(folder, name), text)
  return join(folder, name)
}
const row = (changes: object = {}) => ({
  id: 7,
  image: 'a.png',
  conversations: [
    { from: 'human', value: '<image>\nWhat is it?' },
    { from: 'gpt', value: 'A picture.' },
  ],
  ...changes,
})

describe('readLlavaRows', () => {
  test('reads a list and one row per line alike', async () => {
    const rows = [row(), row({ id: 'b', image: undefined, model: 'ignored' })]
    const list = await readLlavaRows(await write('list.json', JSON.stringify(rows)))
    const lines = await readLlavaRows(
      await write('lines.jsonl', `${rows.map((one) => JSON.stringify(one)).join('\n\n')}\n`),
    )
    expect(lines).toEqual(list)
    expect(list.map(({ id }) => id)).toEqual(['7', 'b'])
  })

  test.each([
    ['no-list.json', '{}', 'found no list'],
    ['half.json', '[{', 'half.json'],
    ['half.jsonl', `${JSON.stringify(row())}\n{"id":`, 'line 2'],
    ['no-turns.json', JSON.stringify([row(), row({ conversations: [] })]), 'row 2: conversations is []'],
    [
      'no-text.json',
      JSON.stringify([row({ conversations: [{ from: 'human' }] })]),
      'row 1: conversations.0.value is missing',
    ],
    ['number.json', '[3]', 'row 1: it is 3, expected an object'],
  ])('%s is refused', async (name, text, reason) => {
    const path = await write(name, text)
    await expect(readLlavaRows(path)).rejects.toThrow(SyntaxError)
    await expect(readLlavaRows(path)).rejects.toThrow(reason)
  })

  test('names a file that is not there', async () => {
    await expect(readLlavaRows(join(folder, 'none.json'))).rejects.toThrow('none.json: no such file')
  })
})

describe('llavaJsonSource', () => {
  const sourceOf = async (name: string, rows: unknown[]) =>
    llavaJsonSource(await write(name, JSON.stringify(rows)), { images: join(folder, 'pictures') })

  test('gives turns, and the picture when asked for', async () => {
    const source = await sourceOf('one.json', [row()])
    expect(source.size).toBe(1)
    const { turns, pictures } = await source.sample(0)
    expect(countPictures(turns)).toBe(1)
    expect(turns.map(textOf)).toEqual(['What is it?', 'A picture.'])
    expect(await pictures[0]?.pixels()).toMatchObject({ width: 3, height: 2 })
    expect(await pictures[0]?.size()).toEqual({ width: 3, height: 2 })
  })

  test('gives several pictures in order, and refuses another number of them than the conversation shows', async () => {
    const conversations = [
      { from: 'human', value: '<image>\nAnd?' },
      { from: 'gpt', value: 'A.' },
      { from: 'human', value: '<image>' },
      { from: 'gpt', value: 'B.' },
    ]
    const source = await sourceOf('several.json', [
      row({ image: ['a.png', 'b.png'], conversations }),
      row({ image: ['a.png', 'a.png'] }),
    ])
    const { pictures } = await source.sample(0)
    expect(await pictures[0]?.size()).toEqual({ width: 3, height: 2 })
    await expect(pictures[1]?.size()).rejects.toThrow('b.png')
    expect(source.measure?.(0).pictures).toBe(2)
    await expect(source.sample(1)).rejects.toThrow(
      'its conversation has 1 times <image>, expected one for a.png, a.png',
    )
  })

  test('fails on a missing picture only when it is asked for', async () => {
    const sample = await (await sourceOf('missing.json', [row({ image: 'b.png' })])).sample(0)
    await expect(sample.pictures[0]?.pixels()).rejects.toThrow('b.png')
  })

  test.each(['../list.json', '/etc/hostname', 'x/../../list.json'])('never reads %s', async (image) => {
    const source = await sourceOf('escape.json', [row({ image })])
    await expect(source.sample(0)).rejects.toThrow('lies outside of')
  })

  test('measures samples without reading pictures', async () => {
    const source = await sourceOf('measured.json', [row({ image: 'b.png' }), row({ image: undefined })])
    expect(source.measure?.(0)).toEqual({ words: 6, pictures: 1 })
    expect(source.measure?.(1)).toEqual({ words: 6, pictures: 0 })
  })

  test('knows a picture by the bytes of its file', async () => {
    const pictures = join(folder, 'pictures')
    await writeFile(join(pictures, 'same.png'), await encodePng(filledPixels(3, 2, [1, 2, 3])))
    await writeFile(join(pictures, 'other.png'), await encodePng(filledPixels(3, 2, [1, 2, 4])))
    const source = await sourceOf(
      'keys.json',
      ['a.png', 'same.png', 'other.png'].map((image) => row({ image })),
    )
    const keys = await Promise.all([0, 1, 2].map(async (index) => (await source.sample(index)).pictures[0]?.key?.()))
    expect(keys[0]).toMatch(/^[0-9a-f]{64}$/)
    expect(keys[1]).toBe(keys[0])
    expect(keys[2]).not.toBe(keys[0])
  })

  test('refuses a picture that the conversation does not show', async () => {
    const conversations = [
      { from: 'human', value: 'What?' },
      { from: 'gpt', value: 'That.' },
    ]
    const source = await sourceOf('unseen.json', [row({ conversations })])
    await expect(source.sample(0)).rejects.toThrow('its conversation has no <image>, expected one for a.png')
  })

  test('refuses an empty file and a row beyond the last', async () => {
    await expect(sourceOf('empty.json', [])).rejects.toThrow('found no rows')
    const source = await sourceOf('short.json', [row()])
    await expect(source.sample(1)).rejects.toThrow('it has 1 rows')
  })
})
