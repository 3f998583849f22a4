import { describe, expect, test } from 'vitest'
import { randomView, tinyConfig } from '../../tests/tiny-model.ts'
import { commonPrefix, makePrompt, type Prompt, partOf, preparePicture } from './prompt.ts'

const config = tinyConfig() // 4 visual tokens, image token 3
const [house, tree] = [5, 6].map((seed) => preparePicture(randomView(config, { seed }), config))

function promptOf(...ids: number[]) {
  return (...pictures: (typeof house)[]): Prompt =>
    makePrompt(
      { ids: Int32Array.from(ids), loss: new Uint8Array(ids.length) },
      { pictures: pictures.map((picture) => picture!), config },
    )
}

test('a placeholder becomes as many as the picture has visual tokens', () => {
  const { ids, pictures } = promptOf(1, 3, 7, 3, 8)(house, tree)
  expect([...ids]).toEqual([1, 3, 3, 3, 3, 7, 3, 3, 3, 3, 8])
  expect(pictures.map(({ start }) => start)).toEqual([1, 6])
})

test('pictures and placeholders must be equally many', () => {
  expect(() => promptOf(1, 3, 7)(house, tree)).toThrow(/found 1 in the prompt, expected one for each of 2 pictures/)
  expect(() => promptOf(1, 3, 7)()).toThrow(RangeError)
})

test('a picture of another side is refused', () => {
  expect(() => preparePicture({ data: new Float32Array(3 * 16), views: 1, side: 4 }, config)).toThrow(
    /side 4, expected the vision encoder's 8/,
  )
})

test('a part of a prompt has the visual tokens that stand in it, wherever it cuts a picture', () => {
  const visualTokens = Float32Array.of(10, 11, 20, 21, 30, 31) // three of two numbers
  const prompt = { ids: Int32Array.of(1, 2, 3, 3, 3, 7, 8), pictures: [{ start: 2, length: 3, visualTokens }] }
  const parts = [0, 3, 6].map((from) => partOf(prompt, { from, to: Math.min(from + 3, 7) }))
  expect(parts.map(({ ids }) => [...ids])).toEqual([[1, 2, 3], [3, 3, 7], [8]])
  expect(
    parts.map(({ pictures }) => pictures.map((part) => ({ ...part, visualTokens: [...part.visualTokens] }))),
  ).toEqual([
    [{ start: 2, length: 1, visualTokens: [10, 11] }],
    [{ start: 0, length: 2, visualTokens: [20, 21, 30, 31] }],
    [],
  ])
})

test('keys tell pictures apart by their pixels', () => {
  expect(house!.key).not.toBe(tree!.key)
  expect(preparePicture({ data: house!.pixels.slice(), views: 1, side: 8 }, config).key).toBe(house!.key)
})

describe('the common beginning of what was read and what is wanted', () => {
  const read = promptOf(1, 3, 7, 8)(house) // 1 v v v v 7 8

  test.each<[string, Prompt, number]>([
    ['all of it, when more follows', promptOf(1, 3, 7, 8, 9)(house), 7],
    ['all but the last token, when nothing follows', promptOf(1, 3, 7, 8)(house), 6],
    ['up to the first other token', promptOf(1, 3, 9, 8, 9)(house), 5],
    ['up to another picture', promptOf(1, 3, 7, 8, 9)(tree), 1],
    ['never into a picture that ends the prompt', promptOf(1, 3)(house), 1],
    ['nothing', promptOf(2, 3, 7)(house), 0],
  ])('%s', (_, wanted, length) => {
    expect(commonPrefix(read, wanted)).toBe(length)
  })

  test('a generated placeholder id is no picture, and a picture no generated id', () => {
    const generated = { ids: Int32Array.of(1, 3, 3, 3, 3, 7, 8), pictures: [] }
    expect(commonPrefix(generated, promptOf(1, 3, 7, 8, 9)(house))).toBe(1)
    expect(commonPrefix(read, { ...generated, ids: Int32Array.of(...generated.ids, 9) })).toBe(1)
  })
})
