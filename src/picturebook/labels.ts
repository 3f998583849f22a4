/** Dense truth about a picture: what each patch shows, as numbers and as words. */
import { categories, categoryIndex } from './categories.ts'
import { type Drawings, spriteOf } from './drawings.ts'
import { type Box, gapBetween, type Scene, type SceneObject, settings } from './scene.ts'

/** What a label means: first the settings, seen where no thing is, then the categories. Each is one word. */
export const labelNames: readonly string[] = [...settings, ...categories.map(({ name }) => name)]
/** Labels below this number are settings. */
export const settingCount: number = settings.length

/** A thing owns a patch when it covers at least this share of it. */
const smallestShare = 0.25

/**
 * The label of what each patch is a part of: the setting, or the thing that covers most of the patch, and at least a quarter.
 *
 * With drawings the drawn pixels count, without them the boxes, each where nothing nearer hides it; a thing that covers a quarter of no patch owns
 * the patch that it covers most.
 * @returns [P], row by row
 * @throws RangeError when the side is not a multiple of the patch
 */
export function partLabels(scene: Scene, options: { patch: number; drawings?: Drawings }): Int32Array {
  const { patch, drawings } = options
  const columns = patchColumns(scene, patch)
  const labels = emptyLabels(scene, columns) // [P]
  const best = new Float64Array(columns * columns) // [P]
  for (const [index, object] of scene.objects.entries()) {
    const nearer = scene.objects.slice(index + 1).filter((other) => gapBetween(object.box, other.box) < 0)
    const coverage = patchCoverage(object, { patch, columns, drawings, nearer }) // [P]
    const most = Math.max(...coverage.values())
    for (const [place, covered] of coverage) {
      const enough = covered >= smallestShare * patch * patch || covered === most
      if (!enough || covered <= (best[place] as number)) continue
      best[place] = covered
      labels[place] = labelOf(object)
    }
  }
  return labels
}

/**
 * The label of the thing whose middle each patch holds, the setting where it holds none: every thing once, so that things can be counted and their
 * places told. Of two middles in one patch the later moves to the nearest patch that is still free.
 * @returns [P], row by row
 * @throws RangeError when the side is not a multiple of the patch
 */
export function centerLabels(scene: Scene, { patch }: { patch: number }): Int32Array {
  const columns = patchColumns(scene, patch)
  const labels = emptyLabels(scene, columns) // [P]
  for (const object of scene.objects) labels[freePatch(labels, { box: object.box, patch, columns })] = labelOf(object)
  return labels
}

/**
 * The scene written in words: one word per patch, the name of the thing whose middle it holds, or the setting.
 * @returns [P], row by row
 */
export function textPicture(scene: Scene, options: { patch: number }): string[] {
  return Array.from(centerLabels(scene, options), (label) => labelNames[label] ?? '')
}

function labelOf({ category }: SceneObject): number {
  return settingCount + categoryIndex(category)
}

function emptyLabels({ setting }: Scene, columns: number): Int32Array {
  return new Int32Array(columns * columns).fill(settings.indexOf(setting))
}

function freePatch(labels: Int32Array, { box, patch, columns }: { box: Box; patch: number; columns: number }): number {
  const [x, y] = [(box.x + box.width / 2) / patch, (box.y + box.height / 2) / patch]
  let [nearest, least] = [0, Number.POSITIVE_INFINITY]
  labels.forEach((label, index) => {
    const away = (x - 0.5 - (index % columns)) ** 2 + (y - 0.5 - Math.floor(index / columns)) ** 2
    if (label < settingCount && away < least) [nearest, least] = [index, away]
  })
  const own = Math.floor(y) * columns + Math.floor(x)
  return (labels[own] ?? settingCount) < settingCount ? own : nearest
}

function patchColumns(scene: Scene, patch: number): number {
  if (!Number.isInteger(patch) || patch < 1 || scene.side % patch !== 0) {
    throw new RangeError(`Cannot label patches: found patch ${patch}, expected a divisor of the side ${scene.side}`)
  }
  return scene.side / patch
}

type Covering = { patch: number; columns: number; drawings: Drawings | undefined; nearer: readonly SceneObject[] }

/** Pixels of each patch in which an object is seen, by patch index; pixels that nearer objects cover are not its own. */
function patchCoverage(object: SceneObject, { patch, columns, drawings, nearer }: Covering): Map<number, number> {
  const { box } = object
  const opacity = opacityOf(object, drawings)
  const hidden = nearer.map((other) => opacityOf(other, drawings))
  const coverage = new Map<number, number>()
  for (let y = box.y; y < box.y + box.height; y++) {
    const row = Math.floor(y / patch) * columns
    for (let x = box.x; x < box.x + box.width; x++) {
      const index = row + Math.floor(x / patch)
      const seen = hidden.reduce((rest, cover) => rest * (1 - cover(x, y)), opacity(x, y))
      coverage.set(index, (coverage.get(index) ?? 0) + seen)
    }
  }
  return coverage
}

/** How opaque an object is at a pixel of the picture, 0 to 1: its drawing, or its whole box. */
function opacityOf(
  { box, category, style, mirrored }: SceneObject,
  drawings: Drawings | undefined,
): (x: number, y: number) => number {
  const sprite = drawings && spriteOf(drawings, { category, style, width: box.width, height: box.height })
  return (x, y) => {
    const [column, row] = [x - box.x, y - box.y]
    if (column < 0 || row < 0 || column >= box.width || row >= box.height) return 0
    if (sprite === undefined) return 1
    return (sprite.data[(row * box.width + (mirrored ? box.width - 1 - column : column)) * 4 + 3] as number) / 255
  }
}
