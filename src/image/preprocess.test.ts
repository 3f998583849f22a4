import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { filledPixels, type Pixels, pixels } from './pixels.ts'
import {
  centerCrop,
  normalize,
  padColour,
  padToSquare,
  preprocess,
  readImageProcessorConfig,
  resizeShortestEdge,
} from './preprocess.ts'

const clip = {
  image_processor_type: 'CLIPImageProcessor',
  do_convert_rgb: true,
  do_resize: true,
  size: { shortest_edge: 56 },
  resample: 3,
  do_center_crop: true,
  crop_size: { height: 56, width: 56 },
  do_rescale: true,
  rescale_factor: 0.00392156862745098,
  do_normalize: true,
  image_mean: [0.48145466, 0.4578275, 0.40821073],
  image_std: [0.26862954, 0.26130258, 0.27577711],
}
const halves = { image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] }
const squash = { size: { height: 56, width: 56 }, do_center_crop: false }

type Golden = {
  source: [number, number]
  seed: number
  side: number
  processor: 'clip' | 'siglip'
  aspect: 'square-crop' | 'pad' | 'squash'
  sha256: string
  start: number[]
}

const goldens: Golden[] = JSON.parse(
  readFileSync(new URL('../../fixtures/image/preprocess.json', import.meta.url), 'utf8'),
).cases

describe('preprocess equals the stored answers of Pillow and NumPy to the bit', () => {
  test.each(goldens)('$source, $processor, $aspect', ({ source, seed, side, processor, aspect, sha256, start }) => {
    const config = readImageProcessorConfig({
      ...clip,
      ...(processor === 'siglip' ? { image_processor_type: 'SiglipImageProcessor', ...halves } : {}),
      ...(aspect === 'squash' ? squash : {}),
    })
    const result = preprocess(noise(source, seed), config, aspect === 'squash' ? {} : { aspect })
    expect(result.side).toBe(side)
    expect(result.data.length).toBe(3 * side * side)
    expect([...result.data.subarray(0, 4)]).toEqual(start)
    expect(createHash('sha256').update(result.data).digest('hex')).toBe(sha256)
  })
})

describe('preprocess', () => {
  test('pads when the configuration says do_pad, unless told to crop', () => {
    const config = readImageProcessorConfig({ ...clip, image_processor_type: 'LlavaImageProcessor', do_pad: true })
    const picture = noise([90, 30], 3)
    expect(preprocess(picture, config)).toEqual(preprocess(picture, config, { aspect: 'pad' }))
    expect(preprocess(picture, config, { aspect: 'square-crop' })).not.toEqual(preprocess(picture, config))
  })

  test('refuses a result that is not square', () => {
    const config = readImageProcessorConfig({ ...clip, do_center_crop: false })
    expect(() => preprocess(noise([90, 30], 3), config)).toThrow(
      new RangeError('Cannot prepare a 90x30 picture: the image processor makes it 168x56, expected a square'),
    )
    expect(preprocess(noise([90, 30], 3), config, { aspect: 'pad' }).side).toBe(56)
  })

  test('refuses to pad without a mean colour', () => {
    const config = readImageProcessorConfig({ ...clip, do_normalize: false, image_mean: null })
    expect(() => preprocess(noise([9, 3], 3), config, { aspect: 'pad' })).toThrow('no image_mean')
  })

  test.each([
    [1, 1],
    [1, 10_000],
    [10_000, 1],
  ])('prepares a picture of %d x %d', (width, height) => {
    const { data } = preprocess(filledPixels(width, height, [7, 7, 7]), readImageProcessorConfig(clip))
    expect(data.every(Number.isFinite)).toBe(true)
  })

  test.each(['square-crop', 'pad'] as const)('refuses an endless strip instead of filling memory: %s', (aspect) => {
    const strip = filledPixels(1, 3_000_000)
    const prepare = () => preprocess(strip, readImageProcessorConfig(clip), { aspect })
    expect(prepare).toThrow(RangeError)
    expect(prepare).toThrow(/^Cannot prepare a 1x3000000 picture: it would take \d+x\d+ pixels on the way, expected/)
  })
})

test('the bars around a CLIP picture have the colour (122, 116, 104)', () => {
  expect(padColour([0.48145466, 0.4578275, 0.40821073])).toEqual([122, 116, 104])
  expect(padColour([0.5, 0.5, 0.5])).toEqual([127, 127, 127])
})

describe('padToSquare', () => {
  test('puts the odd row below', () => {
    expect(reds(padToSquare(row([1, 2, 3, 4]), [9, 9, 9]))).toEqual([
      [9, 9, 9, 9],
      [1, 2, 3, 4],
      [9, 9, 9, 9],
      [9, 9, 9, 9],
    ])
  })

  test('puts the odd column to the right', () => {
    expect(reds(padToSquare(column([1, 2]), [9, 9, 9]))).toEqual([
      [1, 9],
      [2, 9],
    ])
  })
})

describe('resizeShortestEdge', () => {
  test.each([
    { source: [1024, 768], size: [448, 336] },
    { source: [768, 1024], size: [336, 448] },
    { source: [500, 333], size: [504, 336] }, // 504.5 is cut, not rounded
    { source: [100, 299], size: [336, 1004] },
    { source: [10, 10], size: [336, 336] },
  ] as const)('$source becomes $size', ({ source, size }) => {
    const result = resizeShortestEdge(filledPixels(source[0], source[1]), { shortestEdge: 336, filter: 'nearest' })
    expect([result.width, result.height]).toEqual(size)
  })
})

describe('centerCrop', () => {
  test('takes the middle, the odd rest staying right and below', () => {
    expect(reds(centerCrop(row([1, 2, 3, 4, 5]), { width: 2, height: 1 }))).toEqual([[2, 3]])
    expect(reds(centerCrop(column([1, 2, 3, 4]), { width: 1, height: 2 }))).toEqual([[2], [3]])
  })

  test('surrounds a smaller picture with black, the odd rest left and above', () => {
    expect(reds(centerCrop(row([1, 2]), { width: 5, height: 2 }))).toEqual([
      [0, 0, 0, 0, 0],
      [0, 0, 1, 2, 0],
    ])
  })

  test('crops one side while padding the other', () => {
    expect(reds(centerCrop(row([1, 2, 3, 4]), { width: 2, height: 3 }))).toEqual([
      [0, 0],
      [2, 3],
      [0, 0],
    ])
  })
})

describe('normalize', () => {
  const picture = pixels(2, 1, Uint8Array.of(0, 51, 255, 102, 204, 153))

  test('puts the channels first', () => {
    const raw = normalize(picture, { rescaleFactor: undefined, normalize: false, mean: undefined, std: undefined })
    expect([...raw]).toEqual([0, 102, 51, 204, 255, 153])
  })

  test('rescales, subtracts the mean and divides by the deviation of each channel', () => {
    const values = normalize(picture, { rescaleFactor: 1 / 255, normalize: true, mean: [0, 0.5, 1], std: [1, 0.5, 2] })
    for (const [i, expected] of [0, 0.4, -0.6, 0.6, 0, -0.2].entries()) expect(values[i]).toBeCloseTo(expected, 6)
  })
})

function row(values: number[]): Pixels {
  return pixels(values.length, 1, Uint8Array.from(values.flatMap((value) => [value, 0, 0])))
}

function column(values: number[]): Pixels {
  return pixels(1, values.length, Uint8Array.from(values.flatMap((value) => [value, 0, 0])))
}

function reds({ width, height, data }: Pixels): number[][] {
  return Array.from({ length: height }, (_, y) => Array.from({ length: width }, (_, x) => data[(y * width + x) * 3]!))
}

/** The same generator as in fixtures/image/make-goldens.py. */
function noise([width, height]: [number, number], seed: number): Pixels {
  let state = seed
  const data = Uint8Array.from({ length: width * height * 3 }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state >>> 24
  })
  return pixels(width, height, data)
}
