import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { filledPixels, type Pixels } from '../image/pixels.ts'
import { collect } from './collect.fixture.ts'
import { mixRows, mixtureSchema } from './mixture-file.ts'
import {
  jaccard,
  nearDuplicatePictures,
  nearDuplicateTexts,
  pictureHash,
  signatureOf,
  similarityOf,
} from './near-duplicates.ts'
import { balanceByNounPhrases, nounPhraseFinder, paperBalance } from './noun-phrases.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'filters-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function* each<T>(items: readonly T[]): AsyncGenerator<T> {
  yield* items
}

describe('noun phrases', () => {
  const finder = nounPhraseFinder()
  test.each([
    ['A man is riding a brown horse on the beach.', ['man', 'brown horse', 'beach']],
    ['Two dogs and three old dogs.', ['dog', 'old dog']],
    ['The bus station at night', ['bus station', 'night']],
    ['Beautiful!', []],
  ])('%s', async (caption, phrases) => expect((await finder)(caption)).toEqual(phrases))

  test('rare phrases are dropped, frequent ones capped, those between kept whole', async () => {
    const captions = [
      ...Array.from({ length: 2 }, () => 'A zeppelin.'),
      ...Array.from({ length: 5 }, () => 'A giraffe.'),
      ...Array.from({ length: 50 }, () => 'A man.'),
      'A giraffe and a man.',
    ]
    const { isKept, ...summary } = await balanceByNounPhrases(each(captions), { rare: 3, frequent: 10, seed: 1 })
    const kept = captions.filter((_, index) => isKept(index))
    expect(kept.filter((caption) => caption.includes('zeppelin'))).toEqual([])
    expect(kept.filter((caption) => caption.includes('giraffe')).length).toBe(6)
    expect(kept.filter((caption) => caption.includes('man')).length).toBeGreaterThanOrEqual(10)
    expect(kept.filter((caption) => caption === 'A man.').length).toBeLessThanOrEqual(10)
    expect(summary).toEqual({ captions: 58, kept: kept.length, phrases: 3, phrasesKept: 2 })
    const again = await balanceByNounPhrases(each(captions), { rare: 3, frequent: 10, seed: 1 })
    expect(captions.map((_, index) => again.isKept(index))).toEqual(captions.map((_, index) => isKept(index)))
    expect(paperBalance).toMatchObject({ rare: 3, frequent: 100 })
  })
})

describe('near-duplicates', () => {
  const sentence = 'A man in a red coat walks his two small dogs along the sandy beach in the evening.'

  test('signatures estimate what the texts have in common', () => {
    for (const other of [
      sentence.replace('two', 'three'),
      sentence.replace('in the evening', 'at noon'),
      'Something else entirely is to be seen here.',
      sentence,
    ]) {
      expect(Math.abs(similarityOf(signatureOf(sentence), signatureOf(other)) - jaccard(sentence, other))).toBeLessThan(
        0.2,
      )
    }
  })

  test('finds texts with small changes, and leaves others', () => {
    const seen = nearDuplicateTexts({ similarity: 0.7 })
    expect(seen.find(sentence)).toBeUndefined()
    expect(seen.find('Three giraffes eat leaves from a tall tree behind a fence.')).toBeUndefined()
    expect(seen.find(sentence.replace('small', 'tiny'))).toBe(0)
    expect(seen.find(`  ${sentence.toUpperCase()}!`)).toBe(0)
    expect(seen.find('Three giraffes eat leaves from a tall tree behind the fence.')).toBe(1)
    expect(seen.find('A cat.')).toBeUndefined()
    expect(() => nearDuplicateTexts({ similarity: 0 })).toThrow('found similarity 0')
  })

  const scene = (change: (x: number, y: number) => number, [width, height] = [64, 48]): Pixels => {
    const picture = filledPixels(width!, height!, [0, 0, 0])
    for (let y = 0; y < height!; y++) {
      for (let x = 0; x < width!; x++)
        picture.data.fill(change(x / width!, y / height!), (y * width! + x) * 3, (y * width! + x) * 3 + 3)
    }
    return picture
  }

  test('pictures are the same in another size and brightness, and different when they show something else', () => {
    const waves = (x: number, y: number) => 120 + 60 * Math.sin(9 * x + 4 * y) + 40 * Math.cos(11 * x * y)
    const seen = nearDuplicatePictures({ distance: 4 })
    expect(seen.find(pictureHash(scene(waves)))).toBeUndefined()
    expect(seen.find(pictureHash(scene(waves, [128, 96])))).toBe(0)
    expect(seen.find(pictureHash(scene((x, y) => waves(x, y) * 0.8 + 20)))).toBe(0)
    expect(seen.find(pictureHash(scene((x, y) => waves(1 - x, y))))).toBeUndefined()
    expect(pictureHash(scene(waves, [3, 2]))).toBeTypeOf('bigint')
    expect(() => nearDuplicatePictures({ distance: 8 })).toThrow('expected a whole number from 0 to 7')
  })
})

describe('mixRows', () => {
  const rows = (name: string, count: number) =>
    Array.from({ length: count }, (_, id) => ({
      id: `${name}-${id}`,
      image: `${id}.jpg`,
      conversations: [
        { from: 'human', value: '<image>\nWhat?' },
        { from: 'gpt', value: 'That.' },
      ],
    }))
  const write = async (name: string, text: string) => writeFile(join(folder, name), text)
  const mix = async (sources: unknown, options: { shard?: { part: number; of: number } } = {}) =>
    collect(mixRows(mixtureSchema.parse({ seed: 3, sources }), { resolve: (file) => join(folder, file), ...options }))

  test('takes rows of each source with its format prompt and folder', async () => {
    await write('a.json', JSON.stringify(rows('a', 40)))
    await write(
      'b.jsonl',
      rows('b', 400)
        .map((row) => JSON.stringify(row))
        .join('\n'),
    )
    const mixed = await mix({
      instruct: { file: 'a.json', images: 'coco/train2017' },
      vqa: { file: 'b.jsonl', take: '25%', prompt: 'short-answer' },
    })
    expect(mixed.filter(({ source }) => source === 'instruct').length).toBe(40)
    const taken = mixed.filter(({ source }) => source === 'vqa').length
    expect(Math.abs(taken - 100)).toBeLessThan(30)
    expect(mixed[0]).toMatchObject({
      id: 'a-0',
      image: 'coco/train2017/0.jpg',
      conversations: [{ value: '<image>\nWhat?' }, {}],
    })
    expect(mixed.at(-1)?.conversations[0]?.value).toBe(
      '<image>\nWhat?\nAnswer the question using a single word or phrase.',
    )
    expect(await mix({ vqa: { file: 'b.jsonl', take: 17 } })).toHaveLength(17)
    expect(await mix({ vqa: { file: 'b.jsonl', take: 17 } })).toEqual(await mix({ vqa: { file: 'b.jsonl', take: 17 } }))
  })

  test('a picture at the end of a question stays there, and a prompt is not asked twice', async () => {
    const asked = (value: string) => ({
      id: 1,
      conversations: [
        { from: 'human', value },
        { from: 'gpt', value: 'A' },
      ],
    })
    await write(
      'c.json',
      JSON.stringify([asked('What?\n<image>'), asked('What?\nAnswer the question using a single word or phrase.')]),
    )
    const values = (await mix({ c: { file: 'c.json', prompt: 'short-answer' } })).map(
      ({ conversations }) => conversations[0]?.value,
    )
    expect(values).toEqual([
      'What?\nAnswer the question using a single word or phrase.\n<image>',
      'What?\nAnswer the question using a single word or phrase.',
    ])
  })

  test('shards have every row once', async () => {
    await write('d.json', JSON.stringify(rows('d', 60)))
    const parts = await Promise.all([1, 2, 3].map((part) => mix({ d: { file: 'd.json' } }, { shard: { part, of: 3 } })))
    expect(
      parts
        .flat()
        .map(({ id }) => id)
        .sort(),
    ).toEqual(
      rows('d', 60)
        .map(({ id }) => id)
        .sort(),
    )
    expect(parts.every((part) => part.length > 5)).toBe(true)
  })

  test('names what it cannot take', async () => {
    await write('e.jsonl', `${JSON.stringify(rows('e', 1)[0])}\n{"id": 2}\n`)
    await expect(mix({ e: { file: 'e.jsonl' } })).rejects.toThrow(
      /e.jsonl, line 2: conversations is missing, expected a list/,
    )
    await expect(mix({ e: { file: 'e.jsonl', take: 5 } })).rejects.toThrow(/^Cannot take 5 rows of e: found 2 in /)
    await expect(mix({ e: { file: 'none.json' } })).rejects.toThrow('none.json: no such file')
    expect(() => mixtureSchema.parse({ sources: { e: { file: 'e', prompt: 'long' } } })).toThrow(/short-answer/)
  })
})
