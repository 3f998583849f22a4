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
      return (isDenied(answer) ? 'absent' : fieldIn(answer)) === expected
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
      return (isDenied(answer) ? 'absent' : colorIn(answer)) === expected
    case 'setting':
      return onlyWord(answer, [...settings, 'day']) === expected
    case 'comparison':
      return isYesOrNo(expected)
        ? (yesOrNoInBeginning(answer) ?? checkMore(exchange, answer)) === expected
        : yesOrNoInBeginning(answer) === undefined && (moreIn(exchange, answer) ?? onlyThing(answer)) === expected
    case 'odd-one-out':
      return onlyThing(answer) === expected
    case 'nearest':
      return onlyThingBeside(exchange.subject, answer) === expected
    case 'multi-hop':
      return isColor(expected) ? colorIn(answer) === expected : onlyThingBeside(exchange.other, answer) === expected
    case 'reasoning':
      return isYesOrNo(expected)
        ? yesOrNoInBeginning(answer) === expected && isTrueOf(exchange, answer)
        : isTrueOf(exchange, answer) && namesAllFacts(exchange, answer)
    case 'unknowable':
      return isUnknown(answer)
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
  if (isDenied(answer)) return 'no'
  return wordsOf(answer).includes('yes') || thingsSaid(answer).size > 0 ? 'yes' : undefined
}

function isDenied(answer: string): boolean {
  const words = wordsOf(answer)
  return words.some((word) => word === 'no' || word === 'not' || word === 'none' || word.endsWith("n't"))
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

/** The category of two that a sentence says there are more of: `There are more cats than dogs.` */
function moreIn({ subject = '', other = '' }: Exchange, answer: string): string | undefined {
  const words = wordsOf(answer)
  const more = words.indexOf('more')
  if (more < 0 || words.includes('as') || isDenied(answer)) return undefined
  const things = words.slice(more + 1).map((word) => onlyThing(word))
  return things.find((thing) => thing === subject || thing === other)
}

/** Answers a yes-or-no question of more by a statement. */
function checkMore(exchange: Exchange, answer: string): 'yes' | 'no' | undefined {
  const more = moreIn(exchange, answer)
  if (more === undefined) return undefined
  return exchange.relation === 'more' && more === exchange.subject ? 'yes' : 'no'
}

/** The one thing named apart from a thing that the question already stands on. */
function onlyThingBeside(known: string | undefined, answer: string): string | undefined {
  const things = [...thingsSaid(answer).keys()].filter((name) => name !== known)
  return things.length === 1 ? things[0] : undefined
}

/** Whether everything that an answer says there is, is there, and everything that it says there is not, is not. */
function isTrueOf({ present = [] }: Exchange, answer: string): boolean {
  const { said, denied } = factsIn(answer)
  return said.every((fact) => present.includes(fact)) && denied.every((fact) => !present.includes(fact))
}

function namesAllFacts({ facts = [] }: Exchange, answer: string): boolean {
  const { said } = factsIn(answer)
  return facts.length > 0 && facts.every((fact) => said.includes(fact))
}

/** Things and settings that an answer affirms and denies: `no cat`, `not night`. */
function factsIn(answer: string): { said: string[]; denied: string[] } {
  const words = wordsOf(answer)
  const isSetting = (word: string) => (settings as readonly string[]).includes(word)
  const negated = words.filter((_, index) => isNegation(words[index - 1]))
  const affirmed = words.filter((_, index) => !isNegation(words[index - 1]))
  return {
    said: [...thingsSaid(answer).keys(), ...affirmed.filter(isSetting)],
    denied: [...thingsSaid(negated.join(' ')).keys(), ...negated.filter(isSetting)],
  }
}

function isNegation(word: string | undefined): boolean {
  return word === 'no' || word === 'not'
}

function isUnknown(answer: string): boolean {
  const words = wordsOf(answer)
  if (words.includes('unknown')) return true
  const cannot = words.includes('cannot') || words.includes('impossible') || isDenied(answer)
  return cannot && words.some((word) => waysOfKnowing.includes(word))
}

const waysOfKnowing: readonly string[] = ['know', 'known', 'tell', 'told', 'see', 'seen', 'say', 'said', 'shown']

function isColor(word: string): boolean {
  return (colors as readonly string[]).includes(word)
}

/** The one colour that an answer names, or `several` where it says so. */
function colorIn(answer: string): string | undefined {
  if (wordsOf(answer).some((word) => word === 'several' || word === 'many')) return 'several'
  return onlyWord(answer.replace(/\bgrey\b/gi, 'gray'), colors)
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
