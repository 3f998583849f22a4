/**
 * The drawings of the picturebook: emoji of five Iconify packages as sprites of any size.
 *
 * Each (category, style) is rasterised once from SVG, several times larger than needed, and trimmed. Sprites of a
 * wanted size are averaged from that on first use and kept, so rendering itself needs no image library.
 */
import { createRequire } from 'node:module'
import sharp from 'sharp'
import { type Category, categories, categoryNamed, type Style, trainingStyles } from './categories.ts'

/** A drawing with straight (0..255) alpha already multiplied into its colours. */
export type Sprite = { width: number; height: number; data: Uint8Array /* premultiplied RGBA, [H, W, 4] */ }

export type Drawings = {
  side: number
  styles: readonly Style[]
  masters: Map<string, Sprite>
  sprites: Map<string, Sprite>
}

type IconSet = {
  icons: Record<string, { body: string; width?: number; height?: number }>
  aliases?: Record<string, { parent: string }>
  width: number
  height: number
}

/** The npm package of each style. They are optional peers: only who draws needs them. Licences: CREDITS.md. */
export const iconPackages: Record<Style, string> = {
  noto: '@iconify-json/noto',
  'noto-v1': '@iconify-json/noto-v1',
  fluent: '@iconify-json/fluent-emoji-flat',
  emojione: '@iconify-json/emojione',
  twemoji: '@iconify-json/twemoji',
}

/** Largest object, as a share of the side; masters are four times as large so that averaging keeps fine lines. */
const largestShare = 34 / 96
const masterScale = 4
/** A border row or column belongs to a drawing when some pixel is at least this opaque: fainter is not visible. */
const visibleAlpha = 48

/**
 * Rasterises all categories in the given styles (about a second).
 * @param options side of the scenes in pixels, 96 unless told; styles, those for training unless told
 * @throws Error when an icon package is not installed
 */
export async function loadDrawings(options: { side?: number; styles?: readonly Style[] } = {}): Promise<Drawings> {
  const { side = 96, styles = trainingStyles } = options
  const size = Math.ceil(largestShare * side * masterScale)
  const masters = new Map<string, Sprite>()
  for (const style of styles) {
    const set = loadIconSet(style)
    const drawn = await Promise.all(categories.map((category) => drawMaster(svgOf(set, { category, style }), size)))
    for (const [index, category] of categories.entries()) masters.set(key(category.name, style), drawn[index] as Sprite)
  }
  return { side, styles, masters, sprites: new Map() }
}

/**
 * The drawing of a category, exactly `width` x `height` pixels with no empty border.
 * @throws RangeError when the style was not loaded
 */
export function spriteOf(
  drawings: Drawings,
  { category, style, width, height }: { category: string; style: Style; width: number; height: number },
): Sprite {
  const spriteKey = `${key(category, style)}/${width}x${height}`
  const kept = drawings.sprites.get(spriteKey)
  if (kept) return kept
  const sprite = tightSprite(masterOf(drawings, { category, style }), { width, height })
  drawings.sprites.set(spriteKey, sprite)
  return sprite
}

/** Width divided by height of a trimmed drawing. */
export function aspectOf(drawings: Drawings, drawing: { category: string; style: Style }): number {
  const master = masterOf(drawings, drawing)
  return master.width / master.height
}

function masterOf(drawings: Drawings, { category, style }: { category: string; style: Style }): Sprite {
  const master = drawings.masters.get(key(categoryNamed(category).name, style))
  if (master) return master
  throw new RangeError(
    `Cannot draw "${category}" in style ${style}: the loaded styles are ${drawings.styles.join(', ')}`,
  )
}

function key(category: string, style: Style): string {
  return `${style}/${category}`
}

function loadIconSet(style: Style): IconSet {
  const name = iconPackages[style]
  if (name === undefined) {
    const known = Object.keys(iconPackages).join(', ')
    throw new RangeError(`Cannot load drawings: found style "${style}", expected one of ${known}`)
  }
  const require = createRequire(import.meta.url)
  try {
    return require(`${name}/icons.json`) as IconSet
  } catch (cause) {
    throw new Error(
      `Cannot load drawings in style ${style}: package ${name} is not installed, add it with "npm install ${name}"`,
      { cause },
    )
  }
}

function svgOf(set: IconSet, { category, style }: { category: Category; style: Style }): string {
  // Packages rename icons over time and keep the old names as aliases.
  const icon = set.icons[category.icon] ?? set.icons[set.aliases?.[category.icon]?.parent ?? '']
  if (!icon) throw new Error(`Cannot draw "${category.name}": ${iconPackages[style]} has no icon "${category.icon}"`)
  const view = `viewBox="0 0 ${icon.width ?? set.width} ${icon.height ?? set.height}"`
  return `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ${view}>${icon.body}</svg>`
}

async function drawMaster(svg: string, size: number): Promise<Sprite> {
  const sized = svg.replace('<svg ', `<svg width="${size}" height="${size}" `)
  const { data, info } = await sharp(Buffer.from(sized)).ensureAlpha().raw().toBuffer({ resolveWithObject: true })
  const premultiplied = new Uint8Array(data.length)
  for (let index = 0; index < data.length; index += 4) {
    const alpha = data[index + 3] as number
    for (let channel = 0; channel < 3; channel++) {
      premultiplied[index + channel] = Math.round(((data[index + channel] as number) * alpha) / 255)
    }
    premultiplied[index + 3] = alpha
  }
  const whole = { width: info.width, height: info.height, data: premultiplied }
  const { left, top, right, bottom } = visibleEdges(whole)
  const crop = { x: left, y: top, width: right - left, height: bottom - top }
  return average(whole, { crop, width: crop.width, height: crop.height })
}

/**
 * A faint tip of the master averages to an invisible border row; then the box would be larger than what is seen.
 * So the crop is narrowed, one master pixel at a time, until all four borders of the sprite are visible.
 */
function tightSprite(master: Sprite, { width, height }: { width: number; height: number }): Sprite {
  const crop = { x: 0, y: 0, width: master.width, height: master.height }
  for (;;) {
    const sprite = average(master, { crop, width, height })
    const edges = visibleEdges(sprite)
    const loose = [edges.left > 0, edges.right < width, edges.top > 0, edges.bottom < height]
    if (!loose.includes(true) || crop.width <= width || crop.height <= height) return sprite
    if (loose[0]) crop.x += 1
    if (loose[2]) crop.y += 1
    crop.width -= Number(loose[0]) + Number(loose[1])
    crop.height -= Number(loose[2]) + Number(loose[3])
  }
}

/** First and one past the last column and row that hold a visible pixel. */
function visibleEdges({ width, height, data }: Sprite): { left: number; top: number; right: number; bottom: number } {
  const edges = { left: width, top: height, right: 0, bottom: 0 }
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if ((data[(y * width + x) * 4 + 3] as number) < visibleAlpha) continue
      edges.left = Math.min(edges.left, x)
      edges.right = Math.max(edges.right, x + 1)
      edges.top = Math.min(edges.top, y)
      edges.bottom = Math.max(edges.bottom, y + 1)
    }
  }
  return edges
}

type Crop = { x: number; y: number; width: number; height: number }

/** Area average of a crop; right for transparent pixels because colours are premultiplied. */
function average(source: Sprite, { crop, width, height }: { crop: Crop; width: number; height: number }): Sprite {
  const data = new Uint8Array(width * height * 4)
  const columns = shares(crop.x, { length: crop.width, parts: width })
  const rows = shares(crop.y, { length: crop.height, parts: height })
  let to = 0
  for (const row of rows) {
    for (const column of columns) {
      // A third of the time of drawing a scene is spent here: no arrays are made for a pixel.
      let [red, green, blue, alpha] = [0, 0, 0, 0]
      for (let i = 0; i < row.parts.length; i++) {
        let from = ((row.first + i) * source.width + column.first) * 4
        for (let j = 0; j < column.parts.length; j++, from += 4) {
          const share = (row.parts[i] as number) * (column.parts[j] as number)
          red += (source.data[from] as number) * share
          green += (source.data[from + 1] as number) * share
          blue += (source.data[from + 2] as number) * share
          alpha += (source.data[from + 3] as number) * share
        }
      }
      data[to] = Math.round(red)
      data[to + 1] = Math.round(green)
      data[to + 2] = Math.round(blue)
      data[to + 3] = Math.round(alpha)
      to += 4
    }
  }
  return { width, height, data }
}

/** The source pixels that an interval covers, from the first on, and how much of it each is: the parts sum to 1. */
type Share = { readonly first: number; readonly parts: Float64Array }

/** For each of `parts` equal intervals of a line. */
function shares(start: number, { length, parts }: { length: number; parts: number }): Share[] {
  const step = length / parts
  return Array.from({ length: parts }, (_, part) => {
    const from = start + part * step
    const to = from + step
    const first = Math.floor(from)
    const covered: number[] = []
    for (let pixel = first; pixel < to - 1e-9; pixel++) {
      covered.push((Math.min(to, pixel + 1) - Math.max(from, pixel)) / step)
    }
    return { first, parts: Float64Array.from(covered) }
  })
}
