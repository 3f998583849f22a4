import { describe, expect, test } from 'vitest'
import { tinyConfig } from '../../tests/tiny-model.ts'
import { bestResolution } from '../image/tiles.ts'
import { arrangePicture } from './arrangement.ts'
import type { LlavaConfig, TilesConfig } from './config.ts'

/** LLaVA-NeXT's encoder: 24 x 24 patches of 14 pixels. */
function next(tiles: Partial<TilesConfig>, vision: Partial<LlavaConfig['vision']> = { imageSide: 336, patch: 14 }) {
  return tinyConfig({ vision, tiles: { resolutions: [], unpadding: 'rounded', ...tiles } })
}

function swapped(resolutions: TilesConfig['resolutions']): TilesConfig['resolutions'] {
  return resolutions.map(({ width, height }) => ({ width: height, height: width }))
}

function lengthOf(config: LlavaConfig, picture: { width: number; height: number }): number | undefined {
  const { width, height } = bestResolution(picture, config.tiles!.resolutions)
  const side = config.vision.imageSide
  return arrangePicture(config, { rows: height / side, columns: width / side, picture })?.length
}

describe('how many visual tokens a picture has', () => {
  // Width, height, in the order of the published list, as the original code reads it.
  const original = [
    { width: 336, height: 672 },
    { width: 672, height: 336 },
    { width: 672, height: 672 },
    { width: 1008, height: 336 },
    { width: 336, height: 1008 },
  ]

  test.each([
    [640, 480, 2340],
    [480, 640, 2352],
    [672, 672, 2928],
    [1920, 1080, 1948],
    [1000, 300, 2182],
    [300, 1000, 2232],
    [2000, 400, 1598],
    [1344, 336, 1890],
    [300, 200, 976],
    [336, 336, 1176],
    [224, 224, 1176],
  ])('LLaVA-NeXT, %i x %i: %i', (width, height, expected) => {
    expect(lengthOf(next({ resolutions: original, unpadding: 'truncated' }), { width, height })).toBe(expected)
  })

  test('transformers reads heights first, which tells for pictures smaller than a tile', () => {
    expect(lengthOf(next({ resolutions: swapped(original) }), { width: 300, height: 200 })).toBe(1464)
    expect(lengthOf(next({ resolutions: swapped(original) }), { width: 640, height: 480 })).toBe(2340)
  })

  test('LLaVA-OneVision keeps no more than nine tiles and a little', () => {
    const sides = [1, 2, 3, 4, 5, 6]
    const resolutions = sides.flatMap((rows) => sides.map((columns) => ({ width: 384 * columns, height: 384 * rows })))
    const config = next({ resolutions, mostTiles: 9 }, { imageSide: 384, patch: 14, kind: 'siglip', classToken: false })
    // 6 x 6 tiles of 27 x 27 are shrunk by 2 to 81 x 81, and each line has a newline
    expect(lengthOf(config, { width: 2304, height: 2304 })).toBe(729 + 81 * 82)
    // 3 x 4 tiles are 81 x 108, by the square root of 12 / 9 too many
    expect(lengthOf(config, { width: 1536, height: 1152 })).toBe(729 + 70 * 94)
    // 9 tiles are let be
    expect(lengthOf(config, { width: 1152, height: 1152 })).toBe(729 + 81 * 82)
  })
})

describe('which', () => {
  const config = next({}, { imageSide: 8, patch: 4 }) // 2 x 2 patches a view
  const rows = (config: LlavaConfig, grid: Parameters<typeof arrangePicture>[1]) => [
    ...arrangePicture(config, grid)!.sources,
  ]

  test('none, where a picture is one view', () => {
    expect(arrangePicture(tinyConfig(), undefined)).toBeUndefined()
  })

  test('a picture without tiles is its one view and a newline', () => {
    expect(rows(config, undefined)).toEqual([0, 1, 2, 3, 4])
  })

  test('lines go across tiles and end in the newline', () => {
    const grid = { rows: 1, columns: 2, picture: { width: 16, height: 8 } }
    expect(rows(config, grid)).toEqual([0, 1, 2, 3, 4, 5, 8, 9, 12, 6, 7, 10, 11, 12])
  })

  test('lines and columns of padding are left out', () => {
    const wide = { rows: 2, columns: 1, picture: { width: 8, height: 8 } } // fills the two lines in the middle
    expect(rows(config, wide)).toEqual([0, 1, 2, 3, 6, 7, 12, 8, 9, 12])
    const tall = { rows: 1, columns: 2, picture: { width: 8, height: 8 } }
    expect(rows(config, tall)).toEqual([0, 1, 2, 3, 5, 8, 12, 7, 10, 12])
  })

  test('a height that is a hair below a whole line counts as it where the config rounds', () => {
    const grid = { rows: 24, columns: 24, picture: { width: 176, height: 55 } } // 55 * (48 / 176) is 14.999999999999998
    const rounded = arrangePicture(config, grid)!
    const truncated = arrangePicture(next({ unpadding: 'truncated' }, { imageSide: 8, patch: 4 }), grid)!
    expect([rounded.length, truncated.length]).toEqual([4 + 16 * 49, 4 + 14 * 49])
  })

  test('shrunk lines are made of the four tokens around each place, in shares of one in all', () => {
    const shrinking = next({ mostTiles: 1 }, { imageSide: 8, patch: 4 })
    const grid = { rows: 2, columns: 2, picture: { width: 16, height: 16 } } // 4 x 4 tokens become 2 x 2
    const { length, sources, shares } = arrangePicture(shrinking, grid)!
    expect(length).toBe(4 + 2 * 3)
    expect(sources).toHaveLength(4 * length)
    for (let n = 0; n < length; n++) expect([0, 1, 2, 3].reduce((sum, k) => sum + shares[k * length + n]!, 0)).toBe(1)
    // The first lies between the four tokens of the first tile.
    expect([0, 1, 2, 3].map((k) => [sources[k * length + 4], shares[k * length + 4]])).toEqual([
      [4, 0.25],
      [5, 0.25],
      [6, 0.25],
      [7, 0.25],
    ])
  })
})
