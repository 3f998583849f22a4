/**
 * From any picture to the squares of numbers that the vision encoder expects: pad, crop or cut into tiles, resize, normalise.
 *
 * Equals the Pillow-based image processors of transformers bit for bit (the torchvision ones resize slightly
 * differently). "Pad" is what LLaVA-1.5 was fine-tuned with: nothing at the borders is lost; "square-crop" is what its
 * published configuration does and what feature alignment used.
 */
import { filledPixels, maxPixelCount, type Pixels, paste, type Rgb } from './pixels.ts'
import type { ImageProcessorConfig, Triple } from './processor-config.ts'
import { type Filter, resize } from './resize.ts'
import { bestResolution, cutTiles, gridOf, type Size, type TileGrid } from './tiles.ts'

export { type ImageProcessorConfig, readImageProcessorConfig } from './processor-config.ts'

/** What becomes of a picture that is not square: `square-crop` loses its borders, `pad` adds bars, `tiles` are seen one by one. */
export type Aspect = 'square-crop' | 'pad' | 'tiles'

/** One picture, ready for the vision encoder, in one view or more. */
export type PreparedPicture = {
  readonly data: Float32Array // [J, 3, S, S], channels first
  readonly views: number // J
  readonly side: number // S
  /** Of the views after the first, which is the whole picture; absent when there are no tiles. */
  readonly grid?: TileGrid
}

/**
 * Prepares a picture as the configuration says for one that is shown with others, `shown` in all; `aspect` overrides that.
 *
 * @throws RangeError when the result is not square, when padding or tiles are asked for without what they need, or when
 *   an extremely long picture would need more than `maxPixelCount` pixels on the way
 */
export function preprocess(
  picture: Pixels,
  config: ImageProcessorConfig,
  { shown = 1, aspect = aspectFor(config, shown) }: { readonly shown?: number; readonly aspect?: Aspect } = {},
): PreparedPicture {
  if (aspect === 'tiles') return preprocessTiles(picture, config)
  return preprocessView(aspect === 'pad' ? padded(picture, config) : picture, config)
}

/**
 * The tiles that `preprocess` would cut a picture of this size into; undefined where it would make one view of it.
 * @throws RangeError when the picture is too long for any resolution
 */
export function plannedTiles(
  picture: Size,
  config: ImageProcessorConfig,
  { shown = 1 }: { readonly shown?: number } = {},
): TileGrid | undefined {
  const { tiles } = config
  if (tiles === undefined || aspectFor(config, shown) !== 'tiles') return undefined
  return gridOf(picture, { resolution: bestResolution(picture, tiles.resolutions), side: tiles.side })
}

/** What the configuration does with a picture that is one of `shown`. */
function aspectFor({ pad, tiles }: ImageProcessorConfig, shown: number): Aspect {
  if (tiles !== undefined) return shown > 1 ? tiles.together : 'tiles'
  return pad ? 'pad' : 'square-crop'
}

function padded(picture: Pixels, { mean }: ImageProcessorConfig): Pixels {
  if (mean === undefined) {
    throw new RangeError('Cannot pad the picture to a square: the image processor has no image_mean, expected one')
  }
  return padToSquare(picture, padColour(mean))
}

/** The whole picture, squashed to a square as LLaVA-NeXT was trained, and then its tiles. */
function preprocessTiles(picture: Pixels, config: ImageProcessorConfig): PreparedPicture {
  if (config.tiles === undefined || config.resize === undefined) {
    throw new RangeError('Cannot cut the picture into tiles: the image processor does not say how')
  }
  const { side, resolutions } = config.tiles
  const { filter, size } = config.resize
  const resolution = bestResolution(picture, resolutions)
  const squashed = 'shortestEdge' in size ? { width: size.shortestEdge, height: size.shortestEdge } : size
  const whole = resize(picture, { ...squashed, filter })
  const { tiles, grid } = cutTiles(picture, { resolution, side, filter })
  const views = [whole, ...tiles].map((view) => preprocessView(view, config))
  const data = new Float32Array(views.reduce((size, view) => size + view.data.length, 0)) // [J, 3, S, S]
  for (const [index, view] of views.entries()) data.set(view.data, index * view.data.length)
  return { data, views: views.length, side: views[0]?.side ?? side, grid }
}

/** One view of a picture: resized, cropped and normalised. */
function preprocessView(picture: Pixels, config: ImageProcessorConfig): PreparedPicture {
  let prepared = picture // [H, W, 3]
  if (config.resize !== undefined) {
    const { size, filter } = config.resize
    prepared =
      'shortestEdge' in size
        ? resizeShortestEdge(prepared, { shortestEdge: size.shortestEdge, filter })
        : resize(prepared, { ...size, filter })
  }
  if (config.crop !== undefined) prepared = centerCrop(prepared, config.crop)
  if (prepared.width !== prepared.height) {
    throw new RangeError(
      `Cannot prepare a ${picture.width}x${picture.height} picture: the image processor makes it ` +
        `${prepared.width}x${prepared.height}, expected a square`,
    )
  }
  return { data: normalize(prepared, config), views: 1, side: prepared.width } // [S, S, 3] → [1, 3, S, S]
}

/** The colour of the padding bars: the mean as bytes, rounded down; (122, 116, 104) for CLIP. */
export function padColour(mean: Triple): Rgb {
  const toByte = (value: number): number => Math.min(255, Math.max(0, Math.trunc(value * 255)))
  return [toByte(mean[0]), toByte(mean[1]), toByte(mean[2])]
}

/** The picture in the middle of a square of its longer side; an odd rest goes below or to the right. */
export function padToSquare(picture: Pixels, colour: Rgb): Pixels {
  const { width, height } = picture
  if (width === height) return picture
  const side = Math.max(width, height)
  expectRoom(picture, { width: side, height: side })
  const square = filledPixels(side, side, colour)
  paste(square, picture, { x: Math.floor((side - width) / 2), y: Math.floor((side - height) / 2) })
  return square
}

/** Resizes so that the shorter side gets the given length; the longer side follows, rounded down. */
export function resizeShortestEdge(
  picture: Pixels,
  { shortestEdge, filter }: { readonly shortestEdge: number; readonly filter: Filter },
): Pixels {
  const { width, height } = picture
  const longestEdge = Math.trunc((shortestEdge * Math.max(width, height)) / Math.min(width, height))
  const size =
    width <= height ? { width: shortestEdge, height: longestEdge } : { width: longestEdge, height: shortestEdge }
  expectRoom(picture, size)
  return resize(picture, { ...size, filter })
}

/** Throws before memory is asked for: a strip of pixels becomes very long when its short side is enlarged. */
function expectRoom({ width, height }: Pixels, needed: Size): void {
  if (needed.width * needed.height <= maxPixelCount) return
  throw new RangeError(
    `Cannot prepare a ${width}x${height} picture: it would take ${needed.width}x${needed.height} pixels on the way, ` +
      `expected at most ${maxPixelCount}, so a picture that is less long`,
  )
}

/** The middle of the picture at the given size, with black where the picture is smaller. */
export function centerCrop(picture: Pixels, size: { readonly width: number; readonly height: number }): Pixels {
  if (size.width === picture.width && size.height === picture.height) return picture
  const cropped = filledPixels(size.width, size.height)
  // Top left corner of the crop in the picture; negative where the picture is smaller.
  const left = Math.floor((picture.width - size.width) / 2)
  const top = Math.floor((picture.height - size.height) / 2)
  const width = Math.min(size.width, picture.width)
  for (let y = Math.max(0, top); y < Math.min(picture.height, top + size.height); y++) {
    const from = (y * picture.width + Math.max(0, left)) * 3
    const to = ((y - top) * size.width + Math.max(0, -left)) * 3
    cropped.data.set(picture.data.subarray(from, from + width * 3), to)
  }
  return cropped
}

/**
 * [H, W, 3] bytes → [3, H, W] floats: `(byte * rescaleFactor - mean) / std`, each step rounded to float32.
 *
 * A byte has 256 values, so the arithmetic is done once per value and channel and looked up per pixel.
 */
export function normalize(
  picture: Pixels,
  config: Pick<ImageProcessorConfig, 'rescaleFactor' | 'normalize' | 'mean' | 'std'>,
): Float32Array {
  const area = picture.width * picture.height
  const result = new Float32Array(3 * area) // [3, H, W]
  for (let channel = 0; channel < 3; channel++) {
    const table = valueTable(channel, config)
    const plane = result.subarray(channel * area, (channel + 1) * area)
    for (let i = 0; i < area; i++) plane[i] = table[picture.data[i * 3 + channel] ?? 0] ?? 0
  }
  return result
}

function valueTable(
  channel: number,
  config: Pick<ImageProcessorConfig, 'rescaleFactor' | 'normalize' | 'mean' | 'std'>,
): Float32Array {
  const { mean, std } = config
  if (config.normalize && (mean === undefined || std === undefined)) {
    throw new RangeError('Cannot normalise the picture: the image processor has no mean or std, expected both')
  }
  const shift = config.normalize ? Math.fround(mean?.[channel] ?? 0) : 0
  const divisor = config.normalize ? Math.fround(std?.[channel] ?? 1) : 1
  const table = new Float32Array(256)
  for (let byte = 0; byte < 256; byte++) {
    const value = Math.fround(byte * (config.rescaleFactor ?? 1))
    table[byte] = Math.fround(value - shift) / divisor
  }
  return table
}
