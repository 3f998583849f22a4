import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { filledPixels, type Pixels, pixels } from './pixels.ts'
import { type Filter, resize } from './resize.ts'

type Golden = {
  source: [number, number]
  target: [number, number]
  seed: number
  extreme: boolean
  filter: Filter
  sha256: string
  start: number[]
}

const goldens: Golden[] = JSON.parse(
  readFileSync(new URL('../../fixtures/image/resize.json', import.meta.url), 'utf8'),
).cases
const filters: Filter[] = ['nearest', 'lanczos', 'bilinear', 'bicubic'] // in the order of Pillow's codes

describe('resize equals the stored answers of Pillow to the bit', () => {
  test.each(goldens)('$source to $target, $filter, extreme: $extreme', (golden) => {
    const source = noise(golden.source, { seed: golden.seed, extreme: golden.extreme })
    const [width, height] = golden.target
    const result = resize(source, { width, height, filter: golden.filter })
    expect([...result.data.subarray(0, 12)]).toEqual(golden.start)
    expect(createHash('sha256').update(result.data).digest('hex')).toBe(golden.sha256)
  })
})

const python = '/usr/bin/python3'
const hasPillow = spawnSync(python, ['-c', 'import PIL']).status === 0

describe.skipIf(!hasPillow)('resize equals the Pillow of this machine', () => {
  test('for random sizes and every filter', () => {
    const next = sequence(7)
    const cases = Array.from({ length: 120 }, (_, i) => ({
      source: [1 + (next() % 160), 1 + (next() % 160)] as [number, number],
      target: [1 + (next() % 200), 1 + (next() % 200)] as [number, number],
      filter: i % 4,
    }))
    const sources = cases.map(({ source }, i) => noise(source, { seed: i, extreme: i % 3 === 0 }))
    const run = spawnSync(python, ['-c', resizeWithPillow, JSON.stringify(cases)], {
      input: Buffer.concat(sources.map(({ data }) => data)),
      maxBuffer: 2 ** 26,
    })
    expect(run.stderr.toString()).toBe('')
    let at = 0
    for (const [i, { target, filter, source }] of cases.entries()) {
      const [width, height] = target
      const mine = resize(sources[i]!, { width, height, filter: filters[filter]! })
      const theirs = run.stdout.subarray(at, at + width * height * 3)
      at += theirs.length
      expect(Buffer.compare(mine.data, theirs), `${source} to ${target}, ${filters[filter]}`).toBe(0)
    }
    expect(at).toBe(run.stdout.length)
  })
})

const resizeWithPillow = `
import json, sys
from PIL import Image
for case in json.loads(sys.argv[1]):
    width, height = case['source']
    image = Image.frombytes('RGB', (width, height), sys.stdin.buffer.read(width * height * 3))
    sys.stdout.buffer.write(image.resize(tuple(case['target']), case['filter']).tobytes())
`

describe('resize', () => {
  test.each(filters)('keeps a plain colour plain with %s', (filter) => {
    const result = resize(filledPixels(301, 7, [201, 13, 97]), { width: 19, height: 23, filter })
    expect(result).toEqual(filledPixels(19, 23, [201, 13, 97]))
  })

  test('returns the picture itself when no side changes', () => {
    const picture = noise([5, 3], { seed: 1, extreme: false })
    expect(resize(picture, { width: 5, height: 3, filter: 'bicubic' })).toBe(picture)
  })

  test('leaves its input alone', () => {
    const picture = noise([31, 17], { seed: 1, extreme: false })
    const before = picture.data.slice()
    resize(picture, { width: 9, height: 40, filter: 'lanczos' })
    expect(picture.data).toEqual(before)
  })

  test.each([
    [0, 5],
    [5, -1],
    [2.5, 5],
    [2 ** 20, 2 ** 20],
  ])('refuses the size %d x %d', (width, height) => {
    expect(() => resize(filledPixels(3, 2), { width, height, filter: 'bicubic' })).toThrow(RangeError)
  })
})

/** The same generator as in fixtures/image/make-goldens.py. */
function noise([width, height]: [number, number], { seed, extreme }: { seed: number; extreme: boolean }): Pixels {
  const next = sequence(seed)
  const data = Uint8Array.from({ length: width * height * 3 }, () => {
    const byte = next()
    return extreme ? (byte >= 128 ? 255 : 0) : byte
  })
  return pixels(width, height, data)
}

function sequence(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state >>> 24
  }
}
