/** Dense truth about a picture: the category of every patch, as numbers and as words. */
import { categories, categoryIndex } from './categories.ts'
import { type Drawings, spriteOf } from './drawings.ts'
import type { Scene, SceneObject } from './scene.ts'

export { type Category, categories } from './categories.ts'

/** The label of a patch that belongs to no object. */
export const backgroundLabel = 0
export const backgroundWord = 'background'
/** An object owns a patch when it covers at least this share of it. */
const smallestShare = 0.25

/**
 * The label of each patch: 0 for background, else 1 + the category's index.
 *
 * A patch belongs to the object that covers most of it, and at least a quarter. With drawings the drawn pixels count,
 * without them the boxes; an object that covers a quarter of no patch owns the patch that it covers most.
 * @returns [P], row by row
 * @throws RangeError when the side is not a multiple of the patch
 */
export function patchLabels(scene: Scene, options: { patch: number; drawings?: Drawings }): Int32Array {
  const { patch, drawings } = options
  const columns = patchColumns(scene, patch)
  const labels = new Int32Array(columns * columns).fill(backgroundLabel) // [P]
  const best = new Float64Array(columns * columns) // [P]
  for (const object of scene.objects) {
    const coverage = patchCoverage(object, { patch, columns, drawings }) // [P]
    const most = Math.max(...coverage.values())
    for (const [index, covered] of coverage) {
      const enough = covered >= smallestShare * patch * patch || covered === most
      if (!enough || covered <= (best[index] as number)) continue
      best[index] = covered
      labels[index] = 1 + categoryIndex(object.category)
    }
  }
  return labels
}

/**
 * The scene written in words: one word per patch, the category's name or `background`.
 * @returns [P], row by row
 */
export function textPicture(scene: Scene, options: { patch: number; drawings?: Drawings }): string[] {
  return Array.from(patchLabels(scene, options), (label) =>
    label === backgroundLabel ? backgroundWord : (categories[label - 1]?.name ?? backgroundWord),
  )
}

function patchColumns(scene: Scene, patch: number): number {
  if (!Number.isInteger(patch) || patch < 1 || scene.side % patch !== 0) {
    throw new RangeError(`Cannot label patches: found patch ${patch}, expected a divisor of the side ${scene.side}`)
  }
  return scene.side / patch
}

/** Covered pixels of each patch that an object touches, by patch index. */
function patchCoverage(
  object: SceneObject,
  { patch, columns, drawings }: { patch: number; columns: number; drawings: Drawings | undefined },
): Map<number, number> {
  const { box, category, style, mirrored } = object
  const sprite = drawings && spriteOf(drawings, { category, style, width: box.width, height: box.height })
  const coverage = new Map<number, number>()
  for (let y = 0; y < box.height; y++) {
    const row = Math.floor((box.y + y) / patch) * columns
    for (let x = 0; x < box.width; x++) {
      const drawnX = mirrored ? box.width - 1 - x : x
      const opacity = sprite ? (sprite.data[(y * box.width + drawnX) * 4 + 3] as number) / 255 : 1
      const index = row + Math.floor((box.x + x) / patch)
      coverage.set(index, (coverage.get(index) ?? 0) + opacity)
    }
  }
  return coverage
}
