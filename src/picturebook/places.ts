/** Where things are: nine fields of the picture, and left, right, above, below between two things. */
import type { Box, Scene } from './scene.ts'

export const fields = [
  'top left',
  'top',
  'top right',
  'left',
  'center',
  'right',
  'bottom left',
  'bottom',
  'bottom right',
] as const
export type Field = (typeof fields)[number]

export const directions = ['left', 'right', 'above', 'below'] as const
export type Direction = (typeof directions)[number]

/** A center this near to the border between two fields is in neither, for a side of 96. */
const fieldMargin = 4
/** Centers must be this far apart to tell left from right or above from below, for a side of 96. */
const directionMargin = 12

/** The field that clearly holds the center of a box; undefined when the center is too near to another field. */
export function fieldOf(box: Box, side: number): Field | undefined {
  const margin = (fieldMargin * side) / 96
  const column = thirdOf(box.x + box.width / 2, { side, margin })
  const row = thirdOf(box.y + box.height / 2, { side, margin })
  return column === undefined || row === undefined ? undefined : fields[row * 3 + column]
}

/** The rectangle of a field, in pixels. */
export function boxOfField(field: Field, side: number): Box {
  const index = fields.indexOf(field)
  const third = side / 3
  return { x: (index % 3) * third, y: Math.floor(index / 3) * third, width: third, height: third }
}

/** `in the top left`, `at the top`, `on the left`, `in the center`. */
export function placePhrase(field: Field): string {
  if (field === 'top' || field === 'bottom') return `at the ${field}`
  if (field === 'left' || field === 'right') return `on the ${field}`
  return `in the ${field}`
}

/** Where `one` clearly is, seen from `other`: on the horizontal axis, the vertical axis, both or neither. */
export function directionsFrom(
  one: Box,
  { other, side }: { other: Box; side: number },
): { horizontal?: 'left' | 'right'; vertical?: 'above' | 'below' } {
  const margin = (directionMargin * side) / 96
  const right = one.x + one.width / 2 - (other.x + other.width / 2)
  const down = one.y + one.height / 2 - (other.y + other.height / 2)
  return {
    ...(Math.abs(right) >= margin ? { horizontal: right < 0 ? 'left' : 'right' } : {}),
    ...(Math.abs(down) >= margin ? { vertical: down < 0 ? 'above' : 'below' } : {}),
  }
}

/** `to the left of`, `above`. */
export function directionPhrase(direction: Direction): string {
  return direction === 'left' || direction === 'right' ? `to the ${direction} of` : direction
}

export function oppositeOf(direction: Direction): Direction {
  const opposites: Record<Direction, Direction> = { left: 'right', right: 'left', above: 'below', below: 'above' }
  return opposites[direction]
}

/** `in a field`, `at night`: where or when a scene plays. */
export function settingPhrase(setting: Scene['setting']): string {
  const phrases: Record<Scene['setting'], string> = {
    field: 'in a field',
    night: 'at night',
    sea: 'at the sea',
    road: 'on a road',
    room: 'in a room',
    snow: 'in the snow',
    beach: 'on a beach',
    plain: 'on a plain background',
  }
  return phrases[setting]
}

function thirdOf(center: number, { side, margin }: { side: number; margin: number }): 0 | 1 | 2 | undefined {
  const third = side / 3
  if (Math.abs(center - third) < margin || Math.abs(center - 2 * third) < margin) return undefined
  return center < third ? 0 : center < 2 * third ? 1 : 2
}
