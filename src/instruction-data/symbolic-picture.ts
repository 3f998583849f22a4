/**
 * A picture in words, for a teacher that sees none: captions, and boxes with names ("Visual Instruction Tuning", §3).
 */

import { z } from 'zod'

/** Corners [x1, y1, x2, y2] as shares of width and height, 0 to 1, with three decimals as the paper gives them. */
export type NormalizedBox = readonly [number, number, number, number]

const share = z.number().min(0).max(1)
const namedBoxSchema = z.object({
  category: z.string().trim().min(1),
  box: z
    .tuple([share, share, share, share])
    .refine(([x1, y1, x2, y2]) => x1 <= x2 && y1 <= y2, '[x1, y1, x2, y2] with x1 ≤ x2 and y1 ≤ y2'),
  /** A box around many things of the category, which nobody counted. */
  crowd: z.boolean().exactOptional(),
})
export type NamedBox = z.infer<typeof namedBoxSchema>

/** One row of a JSONL file of captions and boxes. */
export const symbolicPictureSchema = z.object({
  id: z.union([z.string().min(1), z.number()]).transform(String),
  image: z.string().min(1), // file name below the image folder
  width: z.number().int().positive().exactOptional(), // pixels
  height: z.number().int().positive().exactOptional(),
  captions: z.array(z.string().trim().min(1)),
  boxes: z.array(namedBoxSchema).default([]),
  licenses: z.array(z.string()).exactOptional(),
})
export type SymbolicPicture = z.infer<typeof symbolicPictureSchema>

/** In pixels. */
export type PictureSize = { readonly width: number; readonly height: number }

/** A picture in words, or in one sentence what keeps one from being made. */
export type PictureOrProblem = { readonly picture: SymbolicPicture } | { readonly id: string; readonly problem: string }

/** What the teacher is told: the captions, or captions and boxes. */
export const contextForms = ['captions', 'captions-and-boxes'] as const
export type ContextForm = (typeof contextForms)[number]

/** Pixels from the top left corner, as COCO has them: [x, y, width, height]. */
export type PixelBox = readonly [number, number, number, number]

/** A box that sticks out by no more than this many pixels was rounded, and is cut; one that sticks out more is a mistake. */
const roundingSlack = 1.5

/**
 * A COCO box as shares of the picture.
 * @throws RangeError when it has no area or lies outside of the picture
 */
export function normalizeBox(bbox: PixelBox, { width, height }: PictureSize): NormalizedBox {
  const [x, y, w, h] = bbox
  const problem = [x, y, w, h].every(Number.isFinite)
    ? w < 0 || h < 0
      ? 'a negative width or height'
      : x < -roundingSlack || y < -roundingSlack || x + w > width + roundingSlack || y + h > height + roundingSlack
        ? `a box outside of the picture of ${width} x ${height} pixels`
        : undefined
    : 'something other than four numbers'
  if (problem !== undefined) throw new RangeError(`Cannot use the box [${bbox.join(', ')}]: found ${problem}`)
  return [decimals(x / width), decimals(y / height), decimals((x + w) / width), decimals((y + h) / height)]
}

/**
 * The picture as text: its captions, one a line; with boxes, an empty line and then `category: [x1, y1, x2, y2]`, one a line.
 */
export function renderContext(
  { captions, boxes }: Pick<SymbolicPicture, 'captions' | 'boxes'>,
  form: ContextForm,
): string {
  const told = captions.map((caption) => caption.replace(/\s+/g, ' ').trim()).join('\n')
  if (form === 'captions') return told
  const listed = boxes.map(({ category, box }) => `${category}: [${box.map((value) => value.toFixed(3)).join(', ')}]`)
  return [told, listed.join('\n')].filter((part) => part !== '').join('\n\n')
}

/** Boxes of a category, without those around crowds, which cannot be counted. */
export function countedBoxes(boxes: readonly NamedBox[]): Map<string, NamedBox[]> {
  const byCategory = new Map<string, NamedBox[]>()
  const crowds = new Set(boxes.filter(({ crowd }) => crowd).map(({ category }) => category))
  for (const box of boxes) {
    if (!crowds.has(box.category)) byCategory.set(box.category, [...(byCategory.get(box.category) ?? []), box])
  }
  return byCategory
}

function decimals(value: number): number {
  return Math.round(Math.min(1, Math.max(0, value)) * 1000) / 1000
}
