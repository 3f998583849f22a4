/**
 * A picture in memory: 8-bit RGB, row by row. Every step of this folder takes and returns this one type.
 *
 * No file access and no native code here: a browser page uses the same file.
 */

export type Pixels = {
  readonly width: number
  readonly height: number
  readonly data: Uint8Array // [H, W, 3], row-major
}

/** A colour as red, green and blue, 0 to 255 each. */
export type Rgb = readonly [red: number, green: number, blue: number]

/**
 * The most pixels that any picture may have in memory (2^27: 402 MB of RGB). Padding a panorama to a square or
 * enlarging a one-pixel-wide strip to a full short side multiplies its size, so the decoder's limit is not enough.
 */
export const maxPixelCount = 2 ** 27

/**
 * Wraps RGB bytes `[H, W, 3]` as a picture; the bytes are not copied.
 *
 * @throws TypeError when `data` is not a Uint8Array
 * @throws RangeError when a side is not a positive integer or the length is not width * height * 3
 */
export function pixels(width: number, height: number, data: Uint8Array): Pixels {
  checkSides(width, height)
  if (!(data instanceof Uint8Array)) throw new TypeError('Cannot make a picture: data is not a Uint8Array')
  if (data.length !== width * height * 3) {
    throw new RangeError(
      `Cannot make a picture of ${width}x${height}: found ${data.length} bytes, expected ${width * height * 3}`,
    )
  }
  return { width, height, data }
}

/**
 * A new picture of one colour, black unless told otherwise.
 *
 * @throws RangeError when a side is not a positive integer or the picture would exceed `maxPixelCount`
 */
export function filledPixels(width: number, height: number, colour: Rgb = [0, 0, 0]): Pixels {
  checkSides(width, height)
  const data = new Uint8Array(width * height * 3) // [H, W, 3]
  const [red, green, blue] = colour
  if (red === green && green === blue) {
    if (red !== 0) data.fill(red)
    return { width, height, data }
  }
  for (let i = 0; i < data.length; i += 3) {
    data[i] = red
    data[i + 1] = green
    data[i + 2] = blue
  }
  return { width, height, data }
}

/** Copies `source` into `target` with its top left corner at (x, y); it must fit. Changes `target`. */
export function paste(target: Pixels, source: Pixels, { x, y }: { readonly x: number; readonly y: number }): void {
  if (x < 0 || y < 0 || x + source.width > target.width || y + source.height > target.height) {
    throw new RangeError(
      `Cannot paste a ${source.width}x${source.height} picture at (${x}, ${y}): it does not fit into ` +
        `${target.width}x${target.height}`,
    )
  }
  const rowBytes = source.width * 3
  for (let row = 0; row < source.height; row++) {
    const from = row * rowBytes
    target.data.set(source.data.subarray(from, from + rowBytes), ((y + row) * target.width + x) * 3)
  }
}

/** The part of a picture with its top left corner at (x, y); it must lie within. */
export function crop(
  picture: Pixels,
  { x, y, width, height }: { readonly x: number; readonly y: number; readonly width: number; readonly height: number },
): Pixels {
  if (x < 0 || y < 0 || x + width > picture.width || y + height > picture.height) {
    throw new RangeError(
      `Cannot cut ${width}x${height} at (${x}, ${y}) out of a picture of ${picture.width}x${picture.height}: it lies outside`,
    )
  }
  const part = filledPixels(width, height)
  for (let row = 0; row < height; row++) {
    const from = ((y + row) * picture.width + x) * 3
    part.data.set(picture.data.subarray(from, from + width * 3), row * width * 3)
  }
  return part
}

function checkSides(width: number, height: number): void {
  if (!Number.isSafeInteger(width) || !Number.isSafeInteger(height) || width < 1 || height < 1) {
    throw new RangeError(`Cannot make a picture: found sides ${width} and ${height}, expected positive integers`)
  }
  if (width * height > maxPixelCount) {
    throw new RangeError(`Cannot make a picture of ${width}x${height}: expected at most ${maxPixelCount} pixels`)
  }
}
