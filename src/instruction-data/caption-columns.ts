/** Which columns of a table hold the picture, its captions and its boxes, found by the names that people give them. */

import type { PixelBox } from './symbolic-picture.ts'

export type Columns = {
  readonly picture: number
  readonly captions: readonly number[]
  readonly box: BoxColumns | undefined
  /** Width and height of the picture in pixels. */
  readonly size: readonly [number, number] | undefined
}

export type BoxColumns = {
  readonly category: number
  readonly numbers: readonly [number, number, number, number]
  readonly toBox: (numbers: readonly [number, number, number, number]) => PixelBox
}

/** As they are compared: in lower case, letters and digits alone. */
const pictureNames =
  'image imagefile imagefilename imagename imagepath file filename filepath path picture picturefile img imgname imgpath photo'.split(
    ' ',
  )
/** Of the first of these names that occurs, every column is read: `caption`, `caption 1`, `caption 2`. */
const captionNames = 'caption captions text description comment sentence alttext alt'.split(' ')
const categoryNames = 'category categoryname label labelname class classname object objectname name'.split(' ')
const sizeNames = [
  ['imagewidth', 'imgwidth', 'picturewidth'],
  ['imageheight', 'imgheight', 'pictureheight'],
] as const

type BoxForm = Pick<BoxColumns, 'toBox'> & {
  readonly names: readonly (readonly string[])[]
  /** `width` and `height` are then the picture's own. */
  readonly plainSize: boolean
}

const boxForms: readonly BoxForm[] = [
  {
    names: [
      ['xmin', 'x1', 'left', 'bboxxmin'],
      ['ymin', 'y1', 'top', 'bboxymin'],
      ['xmax', 'x2', 'right', 'bboxxmax'],
      ['ymax', 'y2', 'bottom', 'bboxymax'],
    ],
    toBox: ([x1, y1, x2, y2]) => [x1, y1, x2 - x1, y2 - y1],
    plainSize: true,
  },
  {
    names: [
      ['xcenter', 'xcentre', 'centerx', 'cx'],
      ['ycenter', 'ycentre', 'centery', 'cy'],
      ['width', 'w', 'boxwidth', 'bboxwidth'],
      ['height', 'h', 'boxheight', 'bboxheight'],
    ],
    toBox: ([x, y, w, h]) => [x - w / 2, y - h / 2, w, h],
    plainSize: false,
  },
  {
    names: [
      ['x', 'boxx', 'bboxx'],
      ['y', 'boxy', 'bboxy'],
      ['width', 'w', 'boxwidth', 'bboxwidth'],
      ['height', 'h', 'boxheight', 'bboxheight'],
    ],
    toBox: (box) => box,
    plainSize: false,
  },
]

/**
 * What the columns of a header hold; of columns that nobody knows nothing is read.
 * @throws SyntaxError when there is no column for pictures, none for captions, or a part of what a box needs
 */
export function columnsOf(header: readonly string[], path: string): Columns {
  const names = header.map(plainName)
  const find = (wanted: readonly string[]) => firstOf(names, wanted)
  const refuse = (expected: string) =>
    new SyntaxError(`Cannot read ${path}: found the columns ${listed(header)}, expected ${expected}`)
  const picture = find(pictureNames)
  if (picture === undefined)
    throw refuse('in the first line a column for the picture, such as image, file_name or path')
  const captions = captionNames
    .map((family) => names.flatMap((name, at) => (isOfFamily(name, family) ? [at] : [])))
    .find((found) => found.length > 0)
  if (captions === undefined) throw refuse('a column for captions as well, such as caption or text')
  const form = boxForms.find((one) => one.names.every((wanted) => find(wanted) !== undefined))
  const category = find(categoryNames)
  if (form !== undefined && category === undefined)
    throw refuse('beside the numbers of boxes a column for what they hold, such as category or label')
  const numbers = form?.names.map(find) as [number, number, number, number] | undefined
  return {
    picture,
    captions,
    box: form && numbers && category !== undefined ? { category, numbers, toBox: form.toBox } : undefined,
    size: sizeColumns(names, form?.plainSize ?? false),
  }
}

/** How many of a header's columns are known: by that the mark between columns is found. */
export function knownColumns(header: readonly string[]): number {
  const names = header.map(plainName)
  const [picture, captions] = [
    firstOf(names, pictureNames),
    names.find((name) => captionNames.some((family) => isOfFamily(name, family))),
  ]
  return (picture === undefined ? 0 : 1) + (captions === undefined ? 0 : 1)
}

function sizeColumns(names: readonly string[], plainSize: boolean): readonly [number, number] | undefined {
  const [width, height] = sizeNames.map((wanted, index) =>
    firstOf(names, plainSize ? [...wanted, index === 0 ? 'width' : 'height'] : wanted),
  )
  return width === undefined || height === undefined ? undefined : [width, height]
}

/** Names for a sentence; what is no table has strange ones. */
function listed(header: readonly string[]): string {
  const names = header.slice(0, mostListed).map((name) => {
    const text = name.trim().replace(/\s+/g, ' ') || '(without a name)'
    return text.length > longestName ? `${text.slice(0, longestName)}…` : text
  })
  return header.length > mostListed ? `${names.join(', ')}, …` : names.join(', ')
}

const [mostListed, longestName] = [12, 40]

function firstOf(names: readonly string[], wanted: readonly string[]): number | undefined {
  return wanted.map((name) => names.indexOf(name)).find((at) => at >= 0)
}

/** `caption`, `caption1`, `caption2`. */
function isOfFamily(name: string, family: string): boolean {
  return name === family || (name.startsWith(family) && /^\d+$/.test(name.slice(family.length)))
}

function plainName(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]/g, '')
}
