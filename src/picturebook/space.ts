/** Askers for where things are: fields of the picture, directions between things, and what stands nearest. */
import {
  absentPhrase,
  absentSentence,
  absentShare,
  type Context,
  drawAbsent,
  type Exchange,
  words,
} from './exchange.ts'
import { capitalize, countPhrase } from './language.ts'
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
} from './places.ts'
import { chance, choose, shuffle } from './random.ts'
import { type Box, gapBetween, type Scene, type SceneObject, uniqueObjects } from './scene.ts'

export function askPosition(context: Context): Exchange | undefined {
  const { scene, random } = context
  const places = uniqueObjects(scene).flatMap(({ category, box }) => {
    const field = fieldOf(box, scene.side)
    return field ? [{ category, field }] : []
  })
  if (places.length === 0) return undefined
  if (chance(random, absentShare)) {
    const name = drawAbsent(context)
    const sentence = absentSentence(name)
    const texts = { form: 'position', slots: { the: `the ${name}` }, sentence, word: absentPhrase } as const
    return { skill: 'position', ...words(context, texts), subject: name, expected: 'absent' }
  }
  const { category, field } = choose(random, places)
  const sentence = `The ${category} is ${placePhrase(field)}.`
  const texts = { form: 'position', slots: { the: `the ${category}` }, sentence, word: field } as const
  return { skill: 'position', ...words(context, texts), subject: category, expected: field }
}

export function askRelation(context: Context): Exchange | undefined {
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

export function askCategoryAt(context: Context): Exchange | undefined {
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
export function clearFields(scene: Scene): { field: Field; name: string; object: SceneObject }[] {
  return scene.objects.flatMap((object) => {
    const field = fieldOf(object.box, scene.side)
    if (!field) return []
    const area = boxOfField(field, scene.side)
    const intruder = scene.objects.some((other) => other !== object && gapBetween(other.box, area) < -scene.side / 16)
    return intruder ? [] : [{ field, name: object.category, object }]
  })
}

function isEmpty(scene: Scene, field: Field): boolean {
  return scene.objects.every((object) => gapBetween(object.box, boxOfField(field, scene.side)) >= 0)
}

/** How much farther the second nearest center must be, for a side of 96. */
const nearestMargin = 12

/** Only where the nearest thing is clearly nearer than any other, and both names stand for one thing each. */
export function askNearest(context: Context): Exchange | undefined {
  const { scene, random } = context
  const unique = uniqueObjects(scene)
  const pairs = unique.flatMap((one) => {
    const nearest = nearestTo(one, scene)
    return nearest && unique.includes(nearest) ? [{ one, nearest }] : []
  })
  if (pairs.length === 0) return undefined
  const { one, nearest } = choose(random, pairs)
  const sentence = `The ${nearest.category} is nearest to the ${one.category}.`
  const texts = { form: 'nearest', slots: { the: `the ${one.category}` }, sentence, word: nearest.category } as const
  return { skill: 'nearest', ...words(context, texts), subject: one.category, expected: nearest.category }
}

function nearestTo(one: SceneObject, scene: Scene): SceneObject | undefined {
  const others = scene.objects
    .filter((object) => object !== one)
    .map((object) => ({ object, distance: distanceBetween(one.box, object.box) }))
    .sort((first, second) => first.distance - second.distance)
  const [nearest, second] = others
  if (!nearest || !second) return undefined
  return second.distance - nearest.distance >= (nearestMargin * scene.side) / 96 ? nearest.object : undefined
}

/** Pixels between two centers. */
function distanceBetween(one: Box, other: Box): number {
  const right = one.x + one.width / 2 - (other.x + other.width / 2)
  const down = one.y + one.height / 2 - (other.y + other.height / 2)
  return Math.hypot(right, down)
}
