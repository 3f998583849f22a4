/**
 * Arrangement: which visual tokens of a picture's views the language model reads, and in which order.
 *
 * A picture that is looked at in tiles (LLaVA-NeXT) comes as the tokens of the whole picture, then those of the tiles laid out as they lie in the
 * picture: line by line across tiles, without what is only padding, and with one learned token, the newline, at the end of each line. How many
 * that are is a function of the picture's size. LLaVA-OneVision shrinks the lines when there are too many of them.
 *
 * Here this is only worked out; `arrange` in llava.ts does it.
 */

import { type LlavaConfig, patchesPerSide, type TilesConfig } from './config.ts'

/** A picture's tiles: their grid, and the size of the picture in pixels before it was fitted into it. */
export type TileGrid = {
  readonly rows: number
  readonly columns: number
  readonly picture: { readonly width: number; readonly height: number }
}

/**
 * Each visual token as a sum of shares of K rows of [all tokens of all views; newline]: where nothing is shrunk K is 1 and every share 1.
 */
export type Arrangement = {
  readonly length: number // M
  readonly sources: Int32Array // [K, M]
  readonly shares: Float32Array // [K, M]
}

/** Where a token comes from, and how much of it from there. */
type Source = { readonly row: number; readonly share: number }

/** The most rows that a visual token is made of, in any picture: four where tokens lie between others, else one. */
export function mostSources({ tiles }: Pick<LlavaConfig, 'tiles'>): number {
  return tiles?.mostTiles === undefined ? 1 : 4
}

/** The arrangement of a picture; `undefined` where its visual tokens are those of its one view, as they are. */
export function arrangePicture(config: LlavaConfig, grid: TileGrid | undefined): Arrangement | undefined {
  if (config.tiles === undefined) return undefined
  const { visualTokens: P } = config
  const views = 1 + (grid === undefined ? 0 : grid.rows * grid.columns)
  const newline: Source[] = [{ row: views * P, share: 1 }]
  const whole = Array.from({ length: P }, (_, row): Source[] => [{ row, share: 1 }])
  if (grid === undefined) return toArrangement([...whole, newline])
  const lines = tileLines(config, config.tiles, grid)
  return toArrangement([...whole, ...lines.flatMap((line) => [...line, newline])])
}

/** Sources of the tiles' tokens, line by line. */
function tileLines(config: LlavaConfig, tiles: TilesConfig, grid: TileGrid): Source[][][] {
  const side = patchesPerSide(config.vision)
  const window = unpadded({ width: grid.columns * side, height: grid.rows * side }, grid.picture, tiles.unpadding)
  const rowAt = (x: number, y: number): number => {
    const tile = Math.floor(y / side) * grid.columns + Math.floor(x / side)
    return (1 + tile) * side * side + (y % side) * side + (x % side)
  }
  const lines = Array.from({ length: window.height }, (_, y) =>
    Array.from({ length: window.width }, (_, x): Source[] => [{ row: rowAt(window.x + x, window.y + y), share: 1 }]),
  )
  const ratio = Math.sqrt((window.height * window.width) / ((tiles.mostTiles ?? Number.POSITIVE_INFINITY) * side ** 2))
  if (ratio <= 1.1) return lines // a little too many are let pass
  return shrunk(lines, { width: floorDivide(window.width, ratio), height: floorDivide(window.height, ratio) })
}

/** What is left of a map of tokens without the lines or columns that only show the padding of the picture. */
function unpadded(
  map: { width: number; height: number },
  picture: { readonly width: number; readonly height: number },
  unpadding: TilesConfig['unpadding'],
): { x: number; y: number; width: number; height: number } {
  const whole = (length: number) => Math.trunc(unpadding === 'rounded' ? Number(length.toFixed(7)) : length)
  if (picture.width / picture.height > map.width / map.height) {
    const y = Math.floor((map.height - whole(picture.height * (map.width / picture.width))) / 2)
    return { x: 0, y, width: map.width, height: map.height - 2 * y }
  }
  const x = Math.floor((map.width - whole(picture.width * (map.height / picture.height))) / 2)
  return { x, y: 0, width: map.width - 2 * x, height: map.height }
}

/** Bilinear interpolation between the centres of tokens, without smoothing: each new one is made of the four that surround it. */
function shrunk(lines: readonly Source[][][], size: { width: number; height: number }): Source[][][] {
  const rows = between(lines.length, size.height)
  const columns = between(lines[0]?.length ?? 0, size.width)
  return rows.map((row) =>
    columns.map((column) =>
      row.flatMap((y) =>
        column.flatMap((x) =>
          (lines[y.at]?.[x.at] ?? []).map((source) => ({ ...source, share: source.share * y.share * x.share })),
        ),
      ),
    ),
  )
}

/** For each of `to` positions the two of `from` between which it lies. */
function between(from: number, to: number): { at: number; share: number }[][] {
  const scale = from / to
  return Array.from({ length: to }, (_, index) => {
    const position = Math.max(0, scale * (index + 0.5) - 0.5)
    const first = Math.floor(position)
    const second = Math.min(first + 1, from - 1)
    return [
      { at: first, share: 1 - (position - first) },
      { at: second, share: position - first },
    ]
  })
}

function toArrangement(tokens: readonly (readonly Source[])[]): Arrangement {
  const length = tokens.length // M
  const most = tokens.reduce((most, sources) => Math.max(most, sources.length), 1) // K
  const sources = new Int32Array(most * length)
  const shares = new Float32Array(most * length)
  for (const [n, token] of tokens.entries()) {
    for (const [k, { row, share }] of token.entries()) {
      sources[k * length + n] = row
      shares[k * length + n] = share
    }
  }
  return { length, sources, shares }
}

/** Floor of a quotient without the rounding of the division itself, as Python's `//` has it. */
function floorDivide(length: number, ratio: number): number {
  return Math.round((length - (length % ratio)) / ratio)
}
