/**
 * The teacher that needs no network: it says what follows from captions and boxes, and nothing else.
 *
 * It knows less than a language model: it neither sees colours nor guesses reasons. What it says is true where captions and boxes are.
 */

import { middle } from './grounding.ts'
import type { ObjectFinder } from './object-names.ts'
import { type Exchange, writeAnswer } from './read-answer.ts'
import { shareOf, type Task } from './requests.ts'
import { countedBoxes, type NamedBox, type SymbolicPicture } from './symbolic-picture.ts'
import { type Teacher, TeacherFailure } from './teacher.ts'

export type RulesOptions = {
  /** All categories that were looked for in the pictures: what has no box is not there, unless a caption says so. */
  readonly categories: readonly string[]
  readonly find: ObjectFinder
}

const nothingUsed = { input: 0, output: 0 }
/** Exchanges of a conversation at most. */
const mostExchanges = 6
/** Shares of the picture by which two middles must differ before one thing is left of another. */
const clearDistance = 0.12
/** Things that are smaller than this share of the picture may be overlooked, so nobody is asked about their number. */
const smallestCounted = 0.002

export function rulesTeacher(options: RulesOptions): Teacher {
  return {
    name: 'rules',
    paid: false,
    answer: async ({ task, settings }) => {
      const exchanges = exchangesFor(task, { ...options, seed: settings.seed })
      if (exchanges.length === 0) {
        throw new TeacherFailure(`captions and boxes of picture ${task.picture.id} allow no ${task.type}`, {
          kind: 'never',
        })
      }
      const text = task.type === 'detailed-description' ? (exchanges[0]?.answer ?? '') : writeAnswer(exchanges)
      return { text, finish: 'stop', usage: nothingUsed }
    },
  }
}

type Options = RulesOptions & { readonly seed: number }

function exchangesFor({ picture, type }: Task, options: Options): Exchange[] {
  switch (type) {
    case 'conversation':
      return converse(picture, options)
    case 'detailed-description':
      return [{ question: '', answer: describe(picture, options) }]
    case 'complex-reasoning':
      return reason(picture, options).slice(0, 1)
  }
}

/** What is there, how many, where; one question about a thing that is not there. */
function converse(picture: SymbolicPicture, options: Options): Exchange[] {
  const seed = `${options.seed} conversation ${picture.id}`
  const counted = clearlyCounted(picture)
  const there: Exchange[] = shuffled([...counted], `${seed} there`).flatMap(([name, boxes], index) => {
    const several = boxes.length > 1
    if (index % 2 === 0)
      return [
        {
          question: `Is there ${withArticle(name)} in the picture?`,
          answer: `Yes, there ${several ? 'are' : 'is'} ${countPhrase(name, boxes.length)}.`,
        },
      ]
    return [
      {
        question: `How many ${plural(name)} can you see?`,
        answer: several ? `There are ${countPhrase(name, boxes.length)}.` : `There is one ${name}.`,
      },
    ]
  })
  const absent = shuffled(absentCategories(picture, options), `${seed} absent`).slice(0, 1)
  const denied = absent.map((name) => ({
    question: `Is there ${withArticle(name)} in the picture?`,
    answer: `No, there is no ${name} in the picture.`,
  }))
  const places = shuffled(placesOf(counted), `${seed} places`).slice(0, 1)
  const relations = shuffled(relationsOf(counted), `${seed} relations`)
    .filter(({ one, other }, index, all) => all.findIndex((same) => same.one === one && same.other === other) === index)
    .slice(0, 2)
    .map(({ one, other, side }) => ({
      question: `Where is the ${one} in relation to the ${other}?`,
      answer: `The ${one} is ${side} the ${other}.`,
    }))
  const [caption = ''] = shuffled(picture.captions, `${seed} caption`)
  const told = { question: 'What does the picture show?', answer: asSentence(caption) }
  return [told, ...shuffled([...there.slice(0, 2), ...denied, ...places, ...relations], seed)].slice(0, mostExchanges)
}

/** The longest caption, then what the boxes add to it. */
function describe(picture: SymbolicPicture, { seed }: Options): string {
  const counted = clearlyCounted(picture)
  const told = [...picture.captions].sort((one, other) => other.length - one.length)[0] ?? ''
  const things = [...counted].map(([name, boxes]) => countPhrase(name, boxes.length))
  const places = placesOf(counted)
    .slice(0, 3)
    .map(({ answer }) => answer)
  const relations = shuffled(relationsOf(counted), `${seed} describe ${picture.id}`)
    .slice(0, 2)
    .map(({ one, other, side }) => `The ${one} is ${side} the ${other}.`)
  const others = picture.captions
    .filter((caption) => caption !== told)
    .slice(0, things.length === 0 ? 4 : 1)
    .map(asSentence)
  const list = things.length === 0 ? [] : [`The picture shows ${joined(things)}.`]
  return [asSentence(told), ...others, ...list, ...places, ...relations].join(' ')
}

/** Conclusions from numbers and sizes, with what they rest on. */
function reason(picture: SymbolicPicture, { seed }: Options): Exchange[] {
  const counted = clearlyCounted(picture)
  const found: Exchange[] = []
  const byNumber = [...counted].sort(([, one], [, other]) => other.length - one.length)
  const [most, second] = byNumber
  if (most !== undefined && second !== undefined && most[1].length > second[1].length) {
    const [more, fewer] = [most, second].map(([name, boxes]) => ({ name, count: boxes.length })) as [Named, Named]
    const missing = more.count - fewer.count
    found.push({
      question: `Suppose that every thing of the most frequent kind should be paired with one of the second most frequent kind. Would that work out, and what would be missing?`,
      answer: `There ${more.count > 1 ? 'are' : 'is'} ${countPhrase(more.name, more.count)} and ${countPhrase(fewer.name, fewer.count)}. Pairing them one by one leaves ${countPhrase(more.name, missing)} over, so it would not work out: ${countPhrase(fewer.name, missing)} more would be needed.`,
    })
  }
  const single = [...counted].flatMap(([name, boxes]) =>
    boxes.length === 1 && boxes[0] !== undefined ? [{ name, area: areaOf(boxes[0]) }] : [],
  )
  const [largest, next] = single.sort((one, other) => other.area - one.area)
  if (largest !== undefined && next !== undefined && largest.area > 2 * next.area) {
    found.push({
      question:
        'Which single thing takes up the most room in the picture, and what may that mean for its size and its distance?',
      answer: `The ${largest.name} takes up the most room, more than twice as much as the ${next.name}. A thing fills much of a picture when it is large or when it is near, so the ${largest.name} is either larger than the ${next.name} in reality or closer to the viewer; the picture alone decides only that it looks larger.`,
    })
  }
  const [first] = shuffled(
    relationsOf(counted).filter(({ side }) => side.startsWith('to the')),
    `${seed} reason ${picture.id}`,
  )
  if (first !== undefined) {
    const { one, other, side } = first
    const [nearer, then] = side.includes('left') ? [other, one] : [one, other]
    found.push({
      question: `If the picture were seen in a mirror, in which order would one meet the ${one} and the ${other} from left to right?`,
      answer: `In the picture the ${one} is ${side} the ${other}. A mirror swaps left and right and keeps what is above and below, so one would first meet the ${nearer} and then the ${then}.`,
    })
  }
  return shuffled(found, `${seed} reasoning ${picture.id}`)
}

type Named = { name: string; count: number }
type Counted = ReadonlyMap<string, NamedBox[]>
type Relation = { readonly one: string; readonly other: string; readonly side: string }

/** Categories whose things all are large enough to be counted. */
function clearlyCounted({ boxes }: SymbolicPicture): Counted {
  return new Map([...countedBoxes(boxes)].filter(([, some]) => some.every((box) => areaOf(box) >= smallestCounted)))
}

/** Categories without a box that no caption mentions either. */
function absentCategories({ boxes, captions }: SymbolicPicture, { categories, find }: RulesOptions): string[] {
  const there = new Set([
    ...boxes.map(({ category }) => category),
    ...captions.flatMap((caption) => find(caption).map(({ category }) => category)),
  ])
  return categories.filter((name) => !there.has(name))
}

function placesOf(counted: Counted): Exchange[] {
  return [...counted].flatMap(([name, boxes]) => {
    const [box] = boxes
    if (box === undefined || boxes.length > 1) return []
    const across = thirdOf(middle(box, 0), ['on the left', '', 'on the right'])
    const down = thirdOf(middle(box, 1), ['at the top', '', 'at the bottom'])
    if (across === undefined || down === undefined) return []
    const place = [down, across].filter((part) => part !== '').join(', ') || 'in the middle of the picture'
    return [{ question: `Where is the ${name}?`, answer: `The ${name} is ${place}.` }]
  })
}

/** Undefined near the border between two thirds. */
function thirdOf(share: number, names: readonly [string, string, string]): string | undefined {
  if (Math.abs(share - 1 / 3) < 0.05 || Math.abs(share - 2 / 3) < 0.05) return undefined
  return share < 1 / 3 ? names[0] : share < 2 / 3 ? names[1] : names[2]
}

/** Between things of which there is one each. */
function relationsOf(counted: Counted): Relation[] {
  const single = [...counted].flatMap(([name, boxes]) =>
    boxes.length === 1 && boxes[0] !== undefined ? [{ name, box: boxes[0] }] : [],
  )
  return single.flatMap((one, index) =>
    single.slice(index + 1).flatMap((other): Relation[] => {
      const right = middle(one.box, 0) - middle(other.box, 0)
      const down = middle(one.box, 1) - middle(other.box, 1)
      const names = { one: one.name, other: other.name }
      return [
        ...(Math.abs(right) > clearDistance
          ? [{ ...names, side: right < 0 ? 'to the left of' : 'to the right of' }]
          : []),
        ...(Math.abs(down) > clearDistance ? [{ ...names, side: down < 0 ? 'above' : 'below' }] : []),
      ]
    }),
  )
}

function areaOf({ box: [x1, y1, x2, y2] }: NamedBox): number {
  return (x2 - x1) * (y2 - y1)
}

const numbers = ['no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten']
const alwaysPlural = new Set(['skis', 'scissors'])
const plurals: Readonly<Record<string, string>> = {
  person: 'people',
  sheep: 'sheep',
  knife: 'knives',
  mouse: 'mice',
  fish: 'fish',
  snowman: 'snowmen',
}

function countPhrase(name: string, count: number): string {
  if (count === 1) return alwaysPlural.has(name) ? `a pair of ${name}` : withArticle(name)
  return `${numbers[count] ?? count} ${plural(name)}`
}

function withArticle(name: string): string {
  if (alwaysPlural.has(name)) return `a pair of ${name}`
  return /^[aeiou]/.test(name) ? `an ${name}` : `a ${name}`
}

function plural(name: string): string {
  if (alwaysPlural.has(name)) return name
  if (plurals[name] !== undefined) return plurals[name]
  if (/(?:s|x|ch|sh)$/.test(name)) return `${name}es`
  return /[^aeiou]y$/.test(name) ? `${name.slice(0, -1)}ies` : `${name}s`
}

function joined(parts: readonly string[]): string {
  return parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`
}

function asSentence(caption: string): string {
  const text = caption.replace(/\s+/g, ' ').trim()
  const ended = /[.!?]$/.test(text) ? text : `${text}.`
  return ended.charAt(0).toUpperCase() + ended.slice(1)
}

/** In an order that depends on the seed alone. */
function shuffled<T>(items: readonly T[], seed: string): T[] {
  return items
    .map((item, index) => ({ item, place: shareOf(`${seed} ${index}`) }))
    .sort((one, other) => one.place - other.place)
    .map(({ item }) => item)
}
