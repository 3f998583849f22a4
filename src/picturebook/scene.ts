/** Scene graphs: which things stand where in a picture, repeatable from one integer. */
import {
  type Category,
  categories,
  categoryNamed,
  heldOutStyle,
  type Style,
  styles,
  trainingStyles,
} from './categories.ts'
import { drawComposition } from './composition.ts'
import { proportions } from './proportions.ts'
import { chance, choose, createRandom, integerBetween, type Random } from './random.ts'
import { type Split, splits } from './splits.ts'

export type { Style } from './categories.ts'
export type { Split } from './splits.ts'

/** Pixels from the top left corner. */
export type Box = { x: number; y: number; width: number; height: number }

export const sizes = ['small', 'medium', 'large'] as const
export type Size = (typeof sizes)[number]

export const settings = ['field', 'night', 'sea', 'road', 'room', 'snow', 'beach', 'plain'] as const
export type Setting = (typeof settings)[number]

export type SceneObject = {
  category: string
  style: Style
  size: Size
  box: Box // of the whole object, whatever stands before it
  mirrored: boolean
  /** Share of the box that no nearer (later) object's box covers: 1 when nothing covers it. Scenes know no pixels. */
  visible: number
}

/** `seed` is unique over all splits: the caller's seed times the number of splits, plus the index of the split. */
export type Scene = {
  seed: number
  side: number
  setting: Setting
  objects: readonly SceneObject[] // from the farthest to the nearest
}

export type SceneOptions = {
  side?: number // pixels, 96 unless told
  objects?: readonly [number, number] // fewest and most, [1, 4] unless told, at most 8
  styles?: readonly Style[] // those for training unless told; the held-out one for its split
  split?: Split // 'train' unless told
  overlap?: number // share of the scenes of two or more objects in which one partly covers another, 0 unless told
}

/** A scene holds at most this many objects. */
export const mostObjects = 8

/** Random numbers of one scene seed, drawn for different purposes. */
export const streams = { layout: 1, picture: 2, noise: 3, questions: 4, captions: 5, contrasts: 6 } as const

/** Longest extent of an object in pixels, for a side of 96. */
const extents: Record<Size, readonly [number, number]> = { small: [18, 21], medium: [23, 27], large: [29, 34] }
const referenceSide = 96
/** Free pixels between any two boxes, for a side of 96, unless one covers a part of the other. */
const smallestGap = 6
/** How much of a covered object's box the nearer one covers. */
const coveredShare = [0.1, 0.4] as const

/**
 * The scene of a seed. Two calls with equal arguments give equal scenes; different splits never share a scene.
 * @throws RangeError for impossible options
 */
export function makeScene(seed: number, options: SceneOptions = {}): Scene {
  const { side = referenceSide, objects = [1, 4], split = 'train', overlap = 0 } = options
  const drawnStyles = options.styles ?? (split === 'held-out-style' ? [heldOutStyle] : trainingStyles)
  checkOptions(seed, { side, objects, styles: drawnStyles, overlap })
  const sceneSeed = seed * splits.length + splits.indexOf(split)
  const random = createRandom(sceneSeed, streams.layout)
  const setting = choose(random, settings)
  const names = drawComposition(random, { objects, split })
  const pair = names.length > 1 && chance(random, overlap) ? drawPair(random, names.length) : undefined
  return { seed: sceneSeed, side, setting, objects: layOut(random, { names, side, styles: drawnStyles, pair }) }
}

/** How often each category occurs, in alphabetical order of names: the order in which everything is listed. */
export function countCategories(scene: Scene): Map<string, number> {
  const counts = new Map<string, number>()
  for (const name of scene.objects.map((object) => object.category).sort()) {
    counts.set(name, (counts.get(name) ?? 0) + 1)
  }
  return counts
}

/** The objects whose category occurs exactly once. */
export function uniqueObjects(scene: Scene): SceneObject[] {
  const counts = countCategories(scene)
  return scene.objects.filter((object) => counts.get(object.category) === 1)
}

/** The categories that a scene has none of. */
export function absentCategories(scene: Scene): Category[] {
  const present = new Set(scene.objects.map((object) => object.category))
  return categories.filter((category) => !present.has(category.name))
}

/** Free pixels between two boxes: the larger of the horizontal and the vertical gap; negative when they overlap. */
export function gapBetween(one: Box, other: Box): number {
  const horizontal = Math.max(one.x - (other.x + other.width), other.x - (one.x + one.width))
  const vertical = Math.max(one.y - (other.y + other.height), other.y - (one.y + one.height))
  return Math.max(horizontal, vertical)
}

/** The share of the first box that the second one covers. */
export function coveredBy(box: Box, nearer: Box): number {
  const width = Math.min(box.x + box.width, nearer.x + nearer.width) - Math.max(box.x, nearer.x)
  const height = Math.min(box.y + box.height, nearer.y + nearer.height) - Math.max(box.y, nearer.y)
  return (Math.max(0, width) * Math.max(0, height)) / (box.width * box.height)
}

function checkOptions(
  seed: number,
  { side, objects: [fewest, most], styles: drawn, overlap }: Required<Omit<SceneOptions, 'split'>>,
): void {
  if (!Number.isSafeInteger(seed) || seed < 0 || seed >= 2 ** 50) {
    throw new RangeError(`Cannot make a scene: found seed ${seed}, expected an integer from 0 to 2^50 - 1`)
  }
  if (!Number.isInteger(side) || side < 32) {
    throw new RangeError(`Cannot make a scene: found side ${side}, expected a whole number of pixels, at least 32`)
  }
  if (!Number.isInteger(fewest) || !Number.isInteger(most) || fewest < 1 || most < fewest || most > mostObjects) {
    throw new RangeError(
      `Cannot make a scene: found ${fewest} to ${most} objects, expected whole numbers within 1 to ${mostObjects}, the fewest first`,
    )
  }
  if (drawn.length === 0 || drawn.some((style) => !styles.includes(style))) {
    throw new RangeError(
      `Cannot make a scene: found styles [${drawn.join(', ')}], expected some of ${styles.join(', ')}`,
    )
  }
  if (!(overlap >= 0 && overlap <= 1)) {
    throw new RangeError(`Cannot make a scene: found overlap ${overlap}, expected a share from 0 to 1`)
  }
  if (overlap > 0 && most < 2) {
    throw new RangeError(`Cannot make a scene: found overlap ${overlap} with at most one object, expected two or more`)
  }
}

/** A covered object and the one that covers it, by their places in the list. */
type Pair = { covered: number; nearer: number }

type Wanted = { names: readonly string[]; side: number; styles: readonly Style[]; pair: Pair | undefined }

function drawPair(random: Random, count: number): Pair {
  const one = integerBetween(random, [0, count - 1])
  const other = (one + integerBetween(random, [1, count - 1])) % count
  return { covered: Math.min(one, other), nearer: Math.max(one, other) }
}

/** Sizes and places for all names: a few tries for each object, then all over again with smaller objects. */
function layOut(random: Random, { names, side, styles: drawn, pair }: Wanted): SceneObject[] {
  const order = placingOrder(names.length, pair)
  for (let attempt = 0; attempt < 500; attempt++) {
    const allowed = sizes.slice(0, attempt < 4 ? 3 : attempt < 12 ? 2 : 1)
    const placed = new Map<number, Placed>()
    for (const index of order) {
      const object = place(random, {
        category: names[index] as string,
        style: choose(random, drawn),
        size: choose(random, allowed),
        side,
        placed: [...placed.values()],
        behind: index === pair?.nearer ? placed.get(pair.covered) : undefined,
      })
      if (!object) break
      placed.set(index, object)
    }
    if (placed.size === names.length) return withVisibility(names.map((_, index) => placed.get(index) as Placed))
  }
  throw new Error(`Cannot make a scene: ${names.length} objects found no room in ${side} x ${side} pixels`)
}

/** The pair comes first, when there still is room for two objects that share a place. */
function placingOrder(count: number, pair: Pair | undefined): number[] {
  const all = Array.from({ length: count }, (_, index) => index)
  if (!pair) return all
  const { covered, nearer } = pair
  return [covered, nearer, ...all.filter((index) => index !== covered && index !== nearer)]
}

/** At most one object covers another, so what is covered adds up. */
function withVisibility(objects: readonly Placed[]): SceneObject[] {
  return objects.map((object, index) => {
    const covered = objects.slice(index + 1).reduce((sum, nearer) => sum + coveredBy(object.box, nearer.box), 0)
    return { ...object, visible: 1 - covered }
  })
}

type Placed = Omit<SceneObject, 'visible'>
type Placement = {
  category: string
  style: Style
  size: Size
  side: number
  placed: readonly Placed[]
  behind: Placed | undefined // what the new object partly covers
}

function place(random: Random, { category, style, size, side, placed, behind }: Placement): Placed | undefined {
  const scale = side / referenceSide
  const extent = Math.round(integerBetween(random, extents[size]) * scale)
  const aspect = aspectRatio({ category, style })
  const width = Math.max(2, Math.round(extent * Math.min(1, aspect)))
  const height = Math.max(2, Math.round(extent * Math.min(1, 1 / aspect)))
  const mirrored = chance(random, 0.5)
  const columns = behind
    ? ([behind.box.x - width + 1, behind.box.x + behind.box.width - 1] as const)
    : ([0, side - width] as const)
  const rows = behind
    ? ([behind.box.y - height + 1, behind.box.y + behind.box.height - 1] as const)
    : ([0, side - height] as const)
  for (let attempt = 0; attempt < 30; attempt++) {
    const box = { x: integerBetween(random, columns), y: integerBetween(random, rows), width, height }
    const free = (other: Placed) =>
      other === behind ? covers(box, other.box) : gapBetween(box, other.box) >= smallestGap * scale
    if (isInside(box, side) && placed.every(free)) return { category, style, size, box, mirrored }
  }
  return undefined
}

function covers(box: Box, behind: Box): boolean {
  const share = coveredBy(behind, box)
  return share >= coveredShare[0] && share <= coveredShare[1]
}

function isInside({ x, y, width, height }: Box, side: number): boolean {
  return x >= 0 && y >= 0 && x + width <= side && y + height <= side
}

function aspectRatio({ category, style }: { category: string; style: Style }): number {
  const ratio = proportions[categoryNamed(category).name]?.[styles.indexOf(style)]
  if (ratio === undefined) throw new Error(`Cannot lay out "${category}": no proportions for style ${style}`)
  return ratio
}
