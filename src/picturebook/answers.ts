/** Reads an answer back, free or short, and says whether it is right: in a closed world truth is checked, not judged. */

import type { Exchange } from './askers.ts'
import { colors } from './categories.ts'
import { numberOf, thingsSaid, wordsOf } from './language.ts'
import { type Direction, directions, oppositeOf } from './places.ts'
import { settings } from './scene.ts'

/**
 * Whether an answer is right.
 *
 * Listings and detailed descriptions must name exactly the things there are, with their numbers; a caption may leave
 * things out but not invent or miscount any. Places and relations told in descriptions are not checked.
 */
export function scoreAnswer(exchange: Exchange, answer: string): boolean {
  const { expected } = exchange
  switch (exchange.skill) {
    case 'existence':
      return yesOrNo(answer) === expected
    case 'count':
      return countIn(answer) === Number(expected)
    case 'position':
      return fieldIn(answer) === expected
    case 'relation':
      return isYesOrNo(expected)
        ? (yesOrNoInBeginning(answer) ?? checkDirection(exchange, answer)) === expected
        : directionIn(exchange, answer) === expected
    case 'listing':
    case 'detailed-description':
      return haveSameThings(thingsSaid(answer), thingsSaid(expected))
    case 'caption':
      return isPartOf(thingsSaid(answer), thingsSaid(expected))
    case 'category-at':
      return onlyThing(answer) === expected
    case 'color':
      return onlyWord(answer.replace(/\bgrey\b/gi, 'gray'), colors) === expected
    case 'setting':
      return onlyWord(answer, [...settings, 'day']) === expected
  }
}

function isYesOrNo(expected: string): boolean {
  return expected === 'yes' || expected === 'no'
}

function yesOrNoInBeginning(answer: string): 'yes' | 'no' | undefined {
  const [first] = wordsOf(answer)
  return first === 'yes' || first === 'no' ? first : undefined
}

/** A leading yes or no decides; without one, a negation means no and the mention of a thing means yes. */
function yesOrNo(answer: string): 'yes' | 'no' | undefined {
  const first = yesOrNoInBeginning(answer)
  if (first) return first
  const words = wordsOf(answer)
  if (words.some((word) => word === 'no' || word === 'not' || word === 'none' || word.endsWith("n't"))) return 'no'
  return words.includes('yes') || thingsSaid(answer).size > 0 ? 'yes' : undefined
}

/** The one number in an answer; undefined when there is none or several. */
function countIn(answer: string): number | undefined {
  const words = wordsOf(answer)
  // An article is a number only where no other word is: "one cat in a field".
  const numbers = words.filter((word) => word !== 'a' && word !== 'an').flatMap((word) => numberOf(word) ?? [])
  const found = new Set(numbers)
  if (found.size === 1) return numbers[0]
  if (found.size > 1) return undefined
  if (words.includes('none')) return 0
  return words.some((word) => word === 'a' || word === 'an') ? 1 : undefined
}

const synonyms: Readonly<Record<string, string>> = {
  upper: 'top',
  lower: 'bottom',
  middle: 'center',
  centre: 'center',
  over: 'above',
  under: 'below',
  beneath: 'below',
}

/** `top left`, `center`, ...; undefined for no place or for contradicting ones. */
function fieldIn(answer: string): string | undefined {
  const words = new Set(wordsOf(answer).map((word) => synonyms[word] ?? word))
  const rows = ['top', 'bottom'].filter((word) => words.has(word))
  const columns = ['left', 'right'].filter((word) => words.has(word))
  if (rows.length > 1 || columns.length > 1) return undefined
  return [...rows, ...columns].join(' ') || (words.has('center') ? 'center' : undefined)
}

/** The direction said of the subject; turned round when the sentence starts from the other thing. */
function directionIn({ subject = '', other = '' }: Exchange, answer: string): Direction | undefined {
  const words = wordsOf(answer).map((word) => synonyms[word] ?? word)
  const said = directions.filter((direction) => words.includes(direction))
  const [direction] = said
  if (said.length !== 1 || direction === undefined) return undefined
  const [subjectAt, otherAt] = [words.indexOf(subject), words.indexOf(other)]
  return otherAt >= 0 && subjectAt > otherAt ? oppositeOf(direction) : direction
}

/** Answers a yes-or-no question about a relation by a statement: `The cat is to the left of the dog.` */
function checkDirection(exchange: Exchange, answer: string): 'yes' | 'no' | undefined {
  const direction = directionIn(exchange, answer)
  if (direction === undefined || wordsOf(answer).includes('not')) return undefined
  return direction === exchange.relation ? 'yes' : 'no'
}

function onlyThing(answer: string): string | undefined {
  const things = [...thingsSaid(answer).keys()]
  if (things.length === 1) return things[0]
  return things.length === 0 && wordsOf(answer).some((word) => word === 'nothing' || word === 'empty')
    ? 'nothing'
    : undefined
}

function onlyWord(answer: string, choices: readonly string[]): string | undefined {
  const found = new Set(wordsOf(answer).filter((word) => choices.includes(word)))
  return found.size === 1 ? [...found][0] : undefined
}

function haveSameThings(said: Map<string, number>, truth: Map<string, number>): boolean {
  return said.size === truth.size && isPartOf(said, truth)
}

function isPartOf(said: Map<string, number>, truth: Map<string, number>): boolean {
  return said.size > 0 && [...said].every(([name, count]) => truth.get(name) === count)
}
