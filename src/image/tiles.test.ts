import { describe, expect, test } from 'vitest'
import { type Pixels, pixels } from './pixels.ts'
import { plannedTiles, preprocess, readImageProcessorConfig } from './preprocess.ts'
import { bestResolution, cutTiles, type Size } from './tiles.ts'

/** The pinpoints of LLaVA-NeXT as the original code reads them: width, height. */
const published = sizes([336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008])

function sizes(...pairs: [width: number, height: number][]): Size[] {
  return pairs.map(([width, height]) => ({ width, height }))
}

/** A picture in which every pixel has its own colour. */
function numbered(width: number, height: number): Pixels {
  const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => 1 + ((Math.floor(i / 3) * 3 + (i % 3)) % 255))
  return pixels(width, height, data)
}

describe('bestResolution', () => {
  test.each([
    [640, 480, 672, 672],
    [1920, 1080, 672, 672],
    [1000, 300, 1008, 336],
    [300, 1000, 336, 1008],
    [672, 336, 672, 336],
  ])('%i x %i is fitted into %i x %i', (width, height, ...expected) => {
    const best = bestResolution({ width, height }, published)
    expect([best.width, best.height]).toEqual(expected)
  })

  test('of equal ones takes the first: whoever reads heights first gets another answer', () => {
    const small = { width: 300, height: 200 }
    expect(bestResolution(small, published)).toEqual({ width: 336, height: 672 })
    const swapped = published.map(({ width, height }) => ({ width: height, height: width }))
    expect(bestResolution(small, swapped)).toEqual({ width: 672, height: 336 })
  })

  test('says when nothing of the picture would be left', () => {
    expect(() => bestResolution({ width: 100_000, height: 1 }, published)).toThrow(/too long to fit into any/)
    expect(() => bestResolution({ width: 1, height: 1 }, [])).toThrow(/found no resolution/)
  })
})

describe('cutTiles', () => {
  test('cuts row by row what fits exactly, and changes no pixel', () => {
    const picture = numbered(6, 4)
    const { tiles, grid } = cutTiles(picture, { resolution: { width: 6, height: 4 }, side: 2, filter: 'bicubic' })
    expect(grid).toEqual({ rows: 2, columns: 3, picture: { width: 6, height: 4 } })
    for (const [index, tile] of tiles.entries()) {
      const [left, top] = [(index % 3) * 2, Math.floor(index / 3) * 2]
      const expected = [0, 1].flatMap((y) => [
        ...picture.data.slice(((top + y) * 6 + left) * 3, ((top + y) * 6 + left + 2) * 3),
      ])
      expect([...tile.data]).toEqual(expected)
    }
  })

  test('puts the picture in the middle of black, an odd rest below or to the right', () => {
    const { tiles } = cutTiles(numbered(4, 3), { resolution: { width: 4, height: 8 }, side: 4, filter: 'nearest' })
    const rows = tiles.flatMap(({ data }) =>
      [0, 1, 2, 3].map((y) => data.slice(y * 12, y * 12 + 12).some((value) => value > 0)),
    )
    expect(rows).toEqual([false, false, true, true, true, false, false, false])
  })
})

describe('preprocess with tiles', () => {
  const file = {
    image_processor_type: 'LlavaNextImageProcessor',
    size: { shortest_edge: 4 },
    crop_size: { height: 4, width: 4 },
    resample: 3,
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.5, 0.5, 0.5],
    image_grid_pinpoints: [
      [4, 8],
      [8, 4],
    ],
  }

  test('shows the whole picture first, squashed', () => {
    const config = readImageProcessorConfig(file)
    const picture = numbered(8, 4)
    const { data, views, side, grid } = preprocess(picture, config)
    expect({ views, side, grid }).toEqual({
      views: 3,
      side: 4,
      grid: { rows: 1, columns: 2, picture: { width: 8, height: 4 } },
    })
    const squashed = preprocess(picture, {
      ...config,
      tiles: undefined,
      crop: undefined,
      resize: { size: { width: 4, height: 4 }, filter: 'bicubic' },
    })
    expect(data.slice(0, 48)).toEqual(squashed.data)
    expect(data).toHaveLength(3 * 48)
  })

  test('pictures shown together get tiles all the same, or one padded square each in LLaVA-OneVision', () => {
    expect(preprocess(numbered(8, 4), readImageProcessorConfig(file), { shown: 2 }).views).toBe(3)
    const onevision = readImageProcessorConfig({
      ...file,
      image_processor_type: 'LlavaOnevisionImageProcessor',
      size: { height: 4, width: 4 },
      crop_size: undefined,
    })
    expect(preprocess(numbered(8, 4), onevision).views).toBe(3)
    expect(plannedTiles({ width: 8, height: 4 }, onevision, { shown: 2 })).toBeUndefined()
    const { data, views, grid } = preprocess(numbered(8, 4), onevision, { shown: 2 })
    expect({ views, grid }).toEqual({ views: 1, grid: undefined })
    expect(data).toEqual(preprocess(numbered(8, 4), onevision, { aspect: 'pad' }).data)
  })

  test.each([
    [8, 4],
    [3, 20],
    [4, 4],
  ])('are known before a picture of %i x %i is cut', (width, height) => {
    const config = readImageProcessorConfig(file)
    expect(plannedTiles({ width, height }, config)).toEqual(preprocess(numbered(width, height), config).grid)
  })

  test('refuses to cut where the processor does not say how', () => {
    const config = readImageProcessorConfig({ ...file, image_processor_type: 'CLIPImageProcessor' })
    expect(() => preprocess(numbered(8, 4), config, { aspect: 'tiles' })).toThrow(/does not say how/)
  })
})
