/** Checks against captions and boxes: things that nobody saw there, and sides that the boxes deny. */

import type { ObjectFinder } from './object-names.ts'
import { countedBoxes, type NamedBox, type SymbolicPicture } from './symbolic-picture.ts'
import type { Validator } from './validators.ts'

export function groundingValidators(find: ObjectFinder): Validator[] {
  const alike = categoriesAlike(find)
  return [
    {
      name: 'objects',
      check: ({ task, exchanges }) => {
        const invented = inventedObjects(exchanges.map(({ answer }) => toldOfPicture(answer)).join('\n'), {
          picture: task.picture,
          find,
          alike,
        })
        return invented.length === 0 ? undefined : `neither captions nor boxes have: ${invented.join(', ')}`
      },
    },
    {
      name: 'sides',
      check: ({ task, exchanges }) => {
        const related = exchanges.filter(({ answer }) => answer.search(sides) >= 0)
        if (related.length === 0) return undefined
        const boxes = countedBoxes(task.picture.boxes)
        return related.map(({ answer }) => deniedSide(answer, { boxes, find })).find((problem) => problem !== undefined)
      },
    },
  ]
}

/** What an answer says of the picture: an answer of several paragraphs goes on to speak of the world, where other things are no mistake. */
function toldOfPicture(answer: string): string {
  return answer.split(/\n\s*\n/)[0] ?? ''
}

/** Categories that a text says are there, and that neither captions nor boxes have (CHAIR: Rohrbach et al. 2018 §3.1). */
function inventedObjects(
  text: string,
  {
    picture,
    find,
    alike,
  }: { picture: SymbolicPicture; find: ObjectFinder; alike: (category: string) => readonly string[] },
): string[] {
  const boxed = new Set(picture.boxes.flatMap(({ category }) => alike(category)))
  const said = find(text).filter(({ negated }) => !negated)
  const unboxed = [...new Set(said.map(({ category }) => category))].filter((category) => !boxed.has(category))
  if (unboxed.length === 0) return []
  const captioned = new Set(picture.captions.flatMap((caption) => find(caption).map(({ category }) => category)))
  return unboxed.filter((category) => !captioned.has(category))
}

/** A category and what its own name mentions; a data set has few of them and asks often. */
function categoriesAlike(find: ObjectFinder): (category: string) => readonly string[] {
  const known = new Map<string, readonly string[]>()
  return (category) => {
    const found = known.get(category) ?? [category, ...find(category).map((one) => one.category)]
    known.set(category, found)
    return found
  }
}

type Side = 'left' | 'right' | 'above' | 'below'

const sides = /\b(?:(?:to|on) the (left|right)(?: side)? of|(above|below))\b/gi
/** Shares of the picture by which two middles must differ, the other way round, for a clear contradiction. */
const clearDistance = 0.05

/** The first sentence about two things of which there is one each, and whose boxes say the opposite. */
function deniedSide(
  text: string,
  { boxes, find }: { boxes: Map<string, NamedBox[]>; find: ObjectFinder },
): string | undefined {
  for (const sentence of text.split(/(?<=[.!?])\s+/)) {
    for (const match of sentence.matchAll(sides)) {
      const side = (match[1] ?? match[2] ?? '').toLowerCase() as Side
      const one = find(sentence.slice(0, match.index)).at(-1)
      const other = find(sentence.slice(match.index + match[0].length))[0]
      if (one === undefined || other === undefined || one.negated || other.negated || one.category === other.category)
        continue
      const [first, second] = [boxes.get(one.category) ?? [], boxes.get(other.category) ?? []]
      if (first.length !== 1 || second.length !== 1) continue
      if (isOpposite(side, [first[0] as NamedBox, second[0] as NamedBox])) {
        return `the boxes deny that the ${one.category} is ${side === 'left' || side === 'right' ? `${side} of` : side} the ${other.category}`
      }
    }
  }
  return undefined
}

function isOpposite(side: Side, [one, other]: readonly [NamedBox, NamedBox]): boolean {
  const right = middle(one, 0) - middle(other, 0)
  const down = middle(one, 1) - middle(other, 1)
  const against: Record<Side, number> = { left: right, right: -right, above: down, below: -down }
  return against[side] > clearDistance
}

/** The middle of a box, across (0) or down (1). */
export function middle({ box }: NamedBox, axis: 0 | 1): number {
  return (box[axis] + box[axis === 0 ? 2 : 3]) / 2
}
