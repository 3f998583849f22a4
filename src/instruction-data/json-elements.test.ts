import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type JsonElement, jsonElements } from './json-elements.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'json-elements-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function readAll(text: string) {
  const path = join(folder, 'file.json')
  await writeFile(path, text)
  const elements: JsonElement[] = []
  const reading = jsonElements(path, ['images', 'annotations'])
  for (;;) {
    const step = await reading.next()
    if (step.done) return { elements, rest: step.value }
    elements.push(step.value)
  }
}

describe('jsonElements', () => {
  test('finds what JSON.parse finds, in any layout', async () => {
    const text = fc.oneof(
      fc.string({ unit: 'grapheme' }),
      fc.constantFrom('{', '}', '"', '\\', '[1,{"a":2}]', 'images'),
    )
    const row = fc.record({
      id: fc.integer(),
      text,
      nested: fc.array(fc.record({ images: fc.array(fc.double({ noNaN: true })) })),
    })
    const file = fc.record({
      info: fc.record({ images: fc.array(row), text }),
      images: fc.array(row),
      other: fc.array(row),
      annotations: fc.array(row),
    })
    await fc.assert(
      fc.asyncProperty(file, fc.constantFrom(undefined, 1), async (value, spaces) => {
        const expected = JSON.parse(JSON.stringify(value))
        const { elements, rest } = await readAll(JSON.stringify(value, undefined, spaces))
        for (const list of ['images', 'annotations'] as const) {
          expect(elements.filter((one) => one.list === list).map((one) => one.value)).toEqual(expected[list])
        }
        expect({ info: rest.info, other: rest.other }).toEqual({ info: expected.info, other: expected.other })
      }),
      { numRuns: 60 },
    )
  })

  test('reads across the pieces that a file is read in', async () => {
    const images = Array.from({ length: 4000 }, (_, id) => ({ id, text: `"ü{${'x'.repeat(id % 300)}` }))
    const { elements } = await readAll(JSON.stringify({ images }))
    expect(elements.map((one) => one.value)).toEqual(images)
    expect(elements.at(-1)?.index).toBe(3999)
  })

  test.each([
    ['{"images": [{"id": 1}, {"id": x}]}', 'images[1]'],
    ['{"images": [{"id": 1}', 'file.json'],
    ['{"images": [{"id": 1}]', 'file.json'],
    ['{"images": [{"id": 1} {"id": 2}]}', 'file.json'],
    ['[{"id": 1}]', 'found no object at the top, expected one with images, annotations'],
    ['', 'file.json'],
  ])('refuses %s', async (text, reason) => {
    await expect(readAll(text)).rejects.toThrow(SyntaxError)
    await expect(readAll(text)).rejects.toThrow(reason)
  })

  test('says that a file is not there', async () => {
    await expect(jsonElements(join(folder, 'none.json'), ['images']).next()).rejects.toThrow('none.json: no such file')
  })
})
