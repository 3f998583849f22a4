/**
 * Tiles: how LLaVA-NeXT and LLaVA-OneVision look at a picture more closely than their vision encoder's side allows.
 *
 * The picture is fitted into the best of a list of resolutions, the rest stays black, and what comes of it is cut into
 * squares of the encoder's side, row by row. The encoder sees each of them, and the whole picture first.
 */
import { crop, filledPixels, type Pixels, paste } from './pixels.ts'
import { type Filter, resize } from './resize.ts'

export type Size = { readonly width: number; readonly height: number }

/** A picture's tiles: their grid, and the size that the picture had before. */
export type TileGrid = { readonly rows: number; readonly columns: number; readonly picture: Size }

/**
 * The resolution that keeps most of a picture's pixels; of equal ones that with the least black, then the first.
 *
 * The order decides more often than it seems: for a picture smaller than one tile all resolutions of the same area are
 * equal. Sides are rounded down as the reference does.
 *
 * @throws RangeError when there is no resolution, or in none of them a pixel of the picture would be left
 */
export function bestResolution(picture: Size, resolutions: readonly Size[]): Size {
  let best: { resolution: Size; kept: number; wasted: number } | undefined
  for (const resolution of resolutions) {
    const { width, height } = resolution
    const scale = Math.min(width / picture.width, height / picture.height)
    const fitted = Math.trunc(picture.width * scale) * Math.trunc(picture.height * scale)
    const kept = Math.min(fitted, picture.width * picture.height)
    const wasted = width * height - kept
    if (kept > (best?.kept ?? 0) || (kept === best?.kept && wasted < best.wasted)) best = { resolution, kept, wasted }
  }
  if (best !== undefined) return best.resolution
  throw new RangeError(
    `Cannot cut a ${picture.width}x${picture.height} picture into tiles: ` +
      (resolutions.length === 0 ? 'found no resolution, expected at least one' : 'it is too long to fit into any'),
  )
}

/** The grid of tiles of side `side` that a resolution gives a picture. */
export function gridOf(picture: Size, { resolution, side }: { resolution: Size; side: number }): TileGrid {
  const { width, height } = picture
  return { rows: resolution.height / side, columns: resolution.width / side, picture: { width, height } }
}

/** Squares of `side` pixels, row by row, of the picture fitted into a resolution whose sides are multiples of `side`. */
export function cutTiles(
  picture: Pixels,
  { resolution, side, filter }: { readonly resolution: Size; readonly side: number; readonly filter: Filter },
): { readonly tiles: readonly Pixels[]; readonly grid: TileGrid } {
  const canvas = letterbox(picture, { resolution, filter })
  const grid = gridOf(picture, { resolution, side })
  const { rows, columns } = grid
  const tiles = Array.from({ length: rows * columns }, (_, index) =>
    crop(canvas, {
      x: (index % columns) * side,
      y: Math.floor(index / columns) * side,
      width: side,
      height: side,
    }),
  )
  return { tiles, grid }
}

/** The picture as large as fits, its shape kept, in the middle of black. */
function letterbox(picture: Pixels, { resolution, filter }: { resolution: Size; filter: Filter }): Pixels {
  const across = resolution.width / picture.width
  const down = resolution.height / picture.height
  const size =
    across < down
      ? { width: resolution.width, height: Math.min(Math.ceil(picture.height * across), resolution.height) }
      : { width: Math.min(Math.ceil(picture.width * down), resolution.width), height: resolution.height }
  const canvas = filledPixels(resolution.width, resolution.height)
  paste(canvas, resize(picture, { ...size, filter }), {
    x: Math.floor((resolution.width - size.width) / 2),
    y: Math.floor((resolution.height - size.height) / 2),
  })
  return canvas
}
