/** One asker for each skill: a question about a scene, its exact answer, and the balance between answers. */
import { describeInDetail, oneSentence } from './captions.ts'
import { type Color, categoryNamed } from './categories.ts'
import { drawCategory } from './composition.ts'
import { capitalize, countPhrase, listPhrase, numberWord } from './language.ts'
import { type Form, phrase, type Slots, shortAnswerPrompt } from './phrasings.ts'
import {
  boxOfField,
  type Direction,
  directionPhrase,
  directionsFrom,
  type Field,
  fieldOf,
  fields,
  oppositeOf,
  placePhrase,
  settingPhrase,
} from './places.ts'
import { chance, choose, chooseWeighted, type Random, shuffle } from './random.ts'
import { absentCategories, countCategories, gapBetween, type Scene, uniqueObjects } from './scene.ts'
import type { Split } from './splits.ts'

export const skills = [
  'existence',
  'count',
  'position',
  'relation',
  'listing',
  'category-at',
  'color',
  'setting',
  'caption',
  'detailed-description',
] as const
export type Skill = (typeof skills)[number]

/** Which thing a question with the answer "no" asks for (POPE: Li et al., 2023; adversarial = often seen together). */
export type Negative = 'random' | 'popular' | 'adversarial'

export type Exchange = {
  skill: Skill
  question: string
  answer: string
  short: boolean // asked for a single word or phrase
  subject?: string // category asked about
  other?: string // second category of a relation
  relation?: string // the direction asked about, or 'left or right', 'above or below'
  negative?: Negative // how the absent category of an existence question was found
  expected: string // canonical: 'yes', 'no', '3', 'top left', 'left', 'cat', 'red', 'a cat and two dogs'
}

/** What an asker may look at. */
export type Context = {
  scene: Scene
  random: Random
  split: Split
  short: boolean
  negative: Negative | undefined
  known: ReadonlySet<string> // things whose existence was asked before in the conversation
}

/** One exchange of a skill; undefined when the scene does not allow it or the answer would unbalance the skill. */
export function ask(context: Context, skill: Skill): Exchange | undefined {
  return askers[skill](context)
}

const askers: Record<Skill, (context: Context) => Exchange | undefined> = {
  existence: askExistence,
  count: askCount,
  position: askPosition,
  relation: askRelation,
  listing: askListing,
  'category-at': askCategoryAt,
  color: askColor,
  setting: askSetting,
  caption: askCaption,
  'detailed-description': askDetailedDescription,
}

/** Even the last of several questions is "yes" half of the time: when all present things are known, none is asked. */
function askExistence(context: Context): Exchange | undefined {
  const { scene, random, known } = context
  const unknown = [...countCategories(scene).keys()].filter((name) => !known.has(name))
  if (unknown.length === 0) return undefined
  const present = choose(random, unknown)
  if (chance(random, 0.5)) return existence(context, { name: present, expected: 'yes' })
  const negative = context.negative ?? choose(random, ['random', 'popular', 'adversarial'] as const)
  const absent = new Set(
    absentCategories(scene)
      .map((category) => category.name)
      .filter((name) => !known.has(name)),
  )
  const allowed = (name: string) => absent.has(name)
  const name = {
    random: () => choose(random, [...absent]),
    popular: () => drawCategory(random, { allowed }).name,
    adversarial: () => drawCategory(random, { theme: categoryNamed(present).group, allowed }).name,
  }[negative]()
  return { ...existence(context, { name, expected: 'no' }), negative }
}

function existence(context: Context, { name, expected }: { name: string; expected: 'yes' | 'no' }): Exchange {
  const a = countPhrase(name, 1)
  const sentence = expected === 'yes' ? `Yes, there is ${a}.` : `No, there is no ${name}.`
  const texts = { form: 'existence', slots: { a }, sentence, word: capitalize(expected) } as const
  return { skill: 'existence', ...words(context, texts), subject: name, expected }
}

/** How likely a count question is kept, by its answer: rarer answers more often, so that 1 to 4 come out alike. */
const keptCounts = [0.15, 0.2, 0.66, 0.6, 1] as const
/** Which of several counts of a scene is asked for: the rarest nearly always. */
const countWeights = [1, 1, 4, 16, 64] as const

function askCount(context: Context): Exchange | undefined {
  const { scene, random } = context
  const counts = countCategories(scene)
  const absent = choose(random, absentCategories(scene)).name
  const options = [[absent, 0] as const, ...counts].map(
    ([name, count]) => [{ name, count }, countWeights[count] ?? 0] as const,
  )
  const { name, count } = chooseWeighted(random, options)
  if (!chance(random, keptCounts[count] ?? 0)) return undefined
  const { plural } = categoryNamed(name)
  const things = count === 1 ? `one ${name}` : `${numberWord(count)} ${plural}`
  const sentence = `There ${count === 1 ? 'is' : 'are'} ${things}.`
  const texts = { form: 'count', slots: { plural }, sentence, word: String(count) } as const
  return { skill: 'count', ...words(context, texts), subject: name, expected: String(count) }
}

function askPosition(context: Context): Exchange | undefined {
  const { scene, random } = context
  const places = uniqueObjects(scene).flatMap(({ category, box }) => {
    const field = fieldOf(box, scene.side)
    return field ? [{ category, field }] : []
  })
  if (places.length === 0) return undefined
  const { category, field } = choose(random, places)
  const sentence = `The ${category} is ${placePhrase(field)}.`
  const texts = { form: 'position', slots: { the: `the ${category}` }, sentence, word: field } as const
  return { skill: 'position', ...words(context, texts), subject: category, expected: field }
}

function askRelation(context: Context): Exchange | undefined {
  const { scene, random } = context
  const things = shuffle(random, uniqueObjects(scene))
  const pairs = things.flatMap((one, index) => things.slice(index + 1).map((other) => ({ one, other })))
  const clear = pairs.flatMap(({ one, other }) => {
    const { horizontal, vertical } = directionsFrom(one.box, { other: other.box, side: scene.side })
    const found = [horizontal, vertical].filter((direction) => direction !== undefined)
    return found.length > 0 ? [{ one, other, found }] : []
  })
  if (clear.length === 0) return undefined
  const { one, other, found } = choose(random, clear)
  const direction = choose<Direction>(random, found)
  const names = { the: `the ${one.category}`, other: `the ${other.category}` }
  const truth = `the ${one.category} is ${directionPhrase(direction)} the ${other.category}.`
  const pair = { subject: one.category, other: other.category }
  if (chance(random, 0.5)) {
    const [form, relation] =
      direction === 'left' || direction === 'right'
        ? (['leftOrRight', 'left or right'] as const)
        : (['aboveOrBelow', 'above or below'] as const)
    const texts = { form, slots: names, sentence: capitalize(truth), word: direction } as const
    return { skill: 'relation', ...words(context, texts), ...pair, relation, expected: direction }
  }
  const expected = chance(random, 0.5) ? 'yes' : 'no'
  const relation = expected === 'yes' ? direction : oppositeOf(direction)
  const slots = { ...names, relation: directionPhrase(relation) }
  const word = capitalize(expected)
  const texts = { form: 'relation', slots, sentence: `${word}, ${truth}`, word } as const
  return { skill: 'relation', ...words(context, texts), ...pair, relation, expected }
}

function askListing(context: Context): Exchange {
  const list = listPhrase(countCategories(context.scene))
  const texts = { form: 'listing', slots: {}, sentence: `The picture shows ${list}.`, word: list } as const
  return { skill: 'listing', ...words(context, texts), expected: list }
}

function askCategoryAt(context: Context): Exchange | undefined {
  const { scene, random } = context
  const single = clearFields(scene)
  const empty = fields.filter((field) => isEmpty(scene, field))
  const asksEmpty = empty.length > 0 && chance(random, 0.08)
  if (!asksEmpty && single.length === 0) return undefined
  const { field, name } = asksEmpty ? { field: choose(random, empty), name: 'nothing' } : choose(random, single)
  const place = placePhrase(field)
  const sentence = asksEmpty ? `There is nothing ${place}.` : `There is ${countPhrase(name, 1)} ${place}.`
  const texts = { form: 'categoryAt', slots: { place }, sentence, word: name } as const
  return { skill: 'category-at', ...words(context, texts), expected: name }
}

/** Fields in which exactly one object clearly stands, and no other object reaches far into. */
function clearFields(scene: Scene): { field: Field; name: string }[] {
  return scene.objects.flatMap((object) => {
    const field = fieldOf(object.box, scene.side)
    if (!field) return []
    const area = boxOfField(field, scene.side)
    const intruder = scene.objects.some((other) => other !== object && gapBetween(other.box, area) < -scene.side / 16)
    return intruder ? [] : [{ field, name: object.category }]
  })
}

function isEmpty(scene: Scene, field: Field): boolean {
  return scene.objects.every((object) => gapBetween(object.box, boxOfField(field, scene.side)) >= 0)
}

function askColor(context: Context): Exchange | undefined {
  const { scene, random } = context
  const choices = uniqueObjects(scene).flatMap(({ category }) => {
    const { color } = categoryNamed(category)
    return color ? [[{ category, color }, colorRarity[color]] as const] : []
  })
  if (choices.length === 0) return undefined
  const { category, color } = chooseWeighted(random, choices)
  const sentence = `The ${category} is ${color}.`
  const texts = { form: 'color', slots: { the: `the ${category}` }, sentence, word: color } as const
  return { skill: 'color', ...words(context, texts), subject: category, expected: color }
}

const colorRarity: Readonly<Record<Color, number>> = {
  red: 1,
  green: 1,
  yellow: 1,
  orange: 2,
  blue: 3,
  pink: 3,
  gray: 6,
  white: 6,
}

function askSetting(context: Context): Exchange | undefined {
  const { scene, random } = context
  const { setting } = scene
  if (setting === 'night' || (setting !== 'room' && setting !== 'plain' && chance(random, 0.15))) {
    const time = setting === 'night' ? 'night' : 'day'
    const texts = { form: 'dayOrNight', slots: {}, sentence: `It is ${time}.`, word: time } as const
    return { skill: 'setting', ...words(context, texts), expected: time }
  }
  const sentence = `The picture is ${settingPhrase(setting)}.`
  const texts = { form: 'setting', slots: {}, sentence, word: setting } as const
  return { skill: 'setting', ...words(context, texts), expected: setting }
}

function askCaption(context: Context): Exchange {
  const sentence = oneSentence(context.scene)
  const texts = { form: 'caption', slots: {}, sentence, word: sentence } as const
  const expected = listPhrase(countCategories(context.scene))
  return { skill: 'caption', ...words({ ...context, short: false }, texts), expected }
}

function askDetailedDescription(context: Context): Exchange {
  const sentence = describeInDetail(context.scene)
  const texts = { form: 'detailedDescription', slots: {}, sentence, word: sentence } as const
  const expected = listPhrase(countCategories(context.scene))
  return { skill: 'detailed-description', ...words({ ...context, short: false }, texts), expected }
}

/** Question and answer in words: with LLaVA-1.5's line and a single word, or without it and a sentence. */
function words(
  { random, split, short }: Context,
  { form, slots, sentence, word }: { form: Form; slots: Slots; sentence: string; word: string },
): { question: string; answer: string; short: boolean } {
  const question = phrase(random, { form, slots, split })
  return short
    ? { question: `${question}\n${shortAnswerPrompt}`, answer: word, short }
    : { question, answer: sentence, short }
}
