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
import { between, chance, choose, createRandom, integerBetween, type Random } from './random.ts'
import { type Split, splits } from './splits.ts'

export type { Style } from './categories.ts'
export type { Split } from './splits.ts'

/** Pixels from the top left corner. */
export type Box = { x: number; y: number; width: number; height: number }

export const sizes = ['small', 'medium', 'large'] as const
export type Size = (typeof sizes)[number]

export const settings = ['field', 'night', 'sea', 'road', 'room', 'snow', 'beach', 'plain'] as const
export type Setting = (typeof settings)[number]

export type SceneObject = { category: string; style: Style; size: Size; box: Box; mirrored: boolean }

/** `seed` is unique over all splits: the caller's seed times the number of splits, plus the index of the split. */
export type Scene = { seed: number; side: number; setting: Setting; objects: readonly SceneObject[] }

export type SceneOptions = {
  side?: number // pixels, 96 unless told
  objects?: readonly [number, number] // fewest and most, [1, 4] unless told, at most 6
  styles?: readonly Style[] // those for training unless told; the held-out one for its split
  split?: Split // 'train' unless told
}

/** Random numbers of one scene seed, drawn for different purposes. */
export const streams = { layout: 1, picture: 2, noise: 3, questions: 4, captions: 5 } as const

/** Longest extent of an object in pixels, for a side of 96. */
const extents: Record<Size, readonly [number, number]> = { small: [18, 21], medium: [23, 27], large: [29, 34] }
const referenceSide = 96
/** Free pixels between any two boxes, for a side of 96. */
const smallestGap = 6

/**
 * The scene of a seed. Two calls with equal arguments give equal scenes; different splits never share a scene.
 * @throws RangeError for impossible options
 */
export function makeScene(seed: number, options: SceneOptions = {}): Scene {
  const { side = referenceSide, objects = [1, 4], split = 'train' } = options
  const drawnStyles = options.styles ?? (split === 'held-out-style' ? [heldOutStyle] : trainingStyles)
  checkOptions(seed, { side, objects, styles: drawnStyles })
  const sceneSeed = seed * splits.length + splits.indexOf(split)
  const random = createRandom(sceneSeed, streams.layout)
  const setting = choose(random, settings)
  const names = drawComposition(random, { objects, split })
  return { seed: sceneSeed, side, setting, objects: layOut(random, { names, side, styles: drawnStyles }) }
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

function checkOptions(
  seed: number,
  { side, objects: [fewest, most], styles: drawn }: Required<Omit<SceneOptions, 'split'>>,
): void {
  if (!Number.isSafeInteger(seed) || seed < 0 || seed >= 2 ** 50) {
    throw new RangeError(`Cannot make a scene: found seed ${seed}, expected an integer from 0 to 2^50 - 1`)
  }
  if (!Number.isInteger(side) || side < 32) {
    throw new RangeError(`Cannot make a scene: found side ${side}, expected a whole number of pixels, at least 32`)
  }
  if (!Number.isInteger(fewest) || !Number.isInteger(most) || fewest < 1 || most < fewest || most > 6) {
    throw new RangeError(
      `Cannot make a scene: found ${fewest} to ${most} objects, expected whole numbers within 1 to 6, the fewest first`,
    )
  }
  if (drawn.length === 0 || drawn.some((style) => !styles.includes(style))) {
    throw new RangeError(
      `Cannot make a scene: found styles [${drawn.join(', ')}], expected some of ${styles.join(', ')}`,
    )
  }
}

/** Sizes and places for all names: a few tries for each object, then all over again with smaller objects. */
function layOut(
  random: Random,
  { names, side, styles: drawn }: { names: readonly string[]; side: number; styles: readonly Style[] },
): SceneObject[] {
  for (let attempt = 0; attempt < 200; attempt++) {
    const allowed = sizes.slice(0, attempt < 4 ? 3 : attempt < 12 ? 2 : 1)
    const placed: SceneObject[] = []
    for (const category of names) {
      const object = place(random, {
        category,
        style: choose(random, drawn),
        size: choose(random, allowed),
        side,
        placed,
      })
      if (!object) break
      placed.push(object)
    }
    if (placed.length === names.length) return placed
  }
  throw new Error(`Cannot make a scene: ${names.length} objects found no room in ${side} x ${side} pixels`)
}

type Placement = { category: string; style: Style; size: Size; side: number; placed: readonly SceneObject[] }

function place(random: Random, { category, style, size, side, placed }: Placement): SceneObject | undefined {
  const scale = side / referenceSide
  const extent = Math.round(integerBetween(random, extents[size]) * scale)
  const aspect = aspectRatio({ category, style })
  const width = Math.max(2, Math.round(extent * Math.min(1, aspect)))
  const height = Math.max(2, Math.round(extent * Math.min(1, 1 / aspect)))
  const mirrored = chance(random, 0.5)
  for (let attempt = 0; attempt < 30; attempt++) {
    const x = Math.floor(between(random, [0, side - width + 1]))
    const y = Math.floor(between(random, [0, side - height + 1]))
    const box = { x, y, width, height }
    if (placed.every((other) => gapBetween(box, other.box) >= smallestGap * scale)) {
      return { category, style, size, box, mirrored }
    }
  }
  return undefined
}

function aspectRatio({ category, style }: { category: string; style: Style }): number {
  const ratio = proportions[categoryNamed(category).name]?.[styles.indexOf(style)]
  if (ratio === undefined) throw new Error(`Cannot lay out "${category}": no proportions for style ${style}`)
  return ratio
}
