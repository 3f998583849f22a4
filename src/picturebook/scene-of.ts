/** A scene graph from what COCO files say of a picturebook picture: the way back from `cocoCaptions` and `cocoInstances`. */

import type { SymbolicPicture } from '../instruction-data/symbolic-picture.ts'
import { categories, trainingStyles } from './categories.ts'
import { settingPhrase } from './places.ts'
import { hashText } from './random.ts'
import { coveredBy, type Scene, type SceneObject, type Setting, type Size, settings } from './scene.ts'

/** Longest extents of small and medium things, in pixels of a side of 96. */
const largestExtents: readonly (readonly [Size, number])[] = [
  ['small', 22],
  ['medium', 28],
]
const names: ReadonlySet<string> = new Set(categories.map(({ name }) => name))

/**
 * The scene of a picture; drawing styles, which words do not tell, are made up.
 * @throws RangeError when the picture is none of the picturebook
 */
export function sceneOf({ id, width: side, height, captions, boxes }: SymbolicPicture): Scene {
  const unknown = boxes.find(({ category }) => !names.has(category))
  const setting = settingIn(captions)
  const problem =
    side === undefined || side !== height
      ? `a size of ${side} x ${height}`
      : unknown !== undefined
        ? `a ${unknown.category}`
        : setting === undefined
          ? 'captions that name no setting'
          : boxes.length === 0
            ? 'no boxes'
            : undefined
  if (problem !== undefined || side === undefined || setting === undefined) {
    throw new RangeError(`Cannot read picture ${id} as a picturebook scene: found ${problem}`)
  }
  const placed = boxes.map(({ category, box: [x1, y1, x2, y2] }) => {
    const [x, y] = [Math.round(x1 * side), Math.round(y1 * side)]
    const box = { x, y, width: Math.round(x2 * side) - x, height: Math.round(y2 * side) - y }
    return { category, box, size: sizeOf(box, side) }
  })
  const objects = placed.map(({ category, box, size }, index): SceneObject => {
    const covered = placed.slice(index + 1).reduce((sum, nearer) => sum + coveredBy(box, nearer.box), 0)
    return { category, box, size, style: trainingStyles[0] ?? 'noto', mirrored: false, visible: 1 - covered }
  })
  return { seed: hashText(id), side, setting, objects }
}

/** The setting that one of the captions names. */
function settingIn(captions: readonly string[]): Setting | undefined {
  const told = captions.join(' ').toLowerCase()
  return settings.find((setting) => told.includes(settingPhrase(setting)))
}

function sizeOf({ width, height }: SceneObject['box'], side: number): Size {
  const extent = (Math.max(width, height) * 96) / side
  return largestExtents.find(([, most]) => extent < most)?.[0] ?? 'large'
}
