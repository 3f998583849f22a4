/** A scene told in sentences: five captions as in COCO, each true and none bound to be complete, and a description. */
import { categoryNamed } from './categories.ts'
import { capitalize, countPhrase, joinList, listPhrase, numberWord } from './language.ts'
import { directionPhrase, directionsFrom, fieldOf, placePhrase, settingPhrase } from './places.ts'
import { choose, createRandom, type Random, shuffle } from './random.ts'
import { countCategories, type Scene, streams, uniqueObjects } from './scene.ts'

/**
 * Five captions in five styles: listing (complete, alphabetical), sentence, setting first, relation or number, short.
 * Like those people write, they leave things out; they never say what is not there.
 */
export function captions(scene: Scene, options: { seed: number }): string[] {
  const random = createRandom(scene.seed, streams.captions + 16 * options.seed)
  return [
    capitalize(listPhrase(countCategories(scene))),
    oneSentence(scene),
    settingFirst(random, scene),
    relationOrNumber(random, scene),
    shortest(random, scene),
  ].map((text) => (text.endsWith('.') ? text : `${text}.`))
}

/** All things and where they are: `A cat and two dogs in a field.` */
export function oneSentence(scene: Scene): string {
  return `${capitalize(listPhrase(countCategories(scene)))} ${settingPhrase(scene.setting)}.`
}

/**
 * Two to six sentences: things and setting, up to three places, one relation, the total.
 * Always in the same order (alphabetical by category), so that there is one right text to learn.
 */
export function describeInDetail(scene: Scene): string {
  const unique = [...uniqueObjects(scene)].sort((one, other) => (one.category < other.category ? -1 : 1))
  const places = unique.flatMap(({ category, box }) => {
    const field = fieldOf(box, scene.side)
    return field ? [`The ${category} is ${placePhrase(field)}.`] : []
  })
  const total = scene.objects.length
  return [
    `The picture shows ${listPhrase(countCategories(scene))} ${settingPhrase(scene.setting)}.`,
    ...places.slice(0, 3),
    ...relations(scene).slice(0, 1),
    `There ${total === 1 ? 'is one thing' : `are ${numberWord(total)} things`} in all.`,
  ].join(' ')
}

/** Every clear relation between two things that occur once, in alphabetical order, horizontal before vertical. */
function relations(scene: Scene): string[] {
  const unique = [...uniqueObjects(scene)].sort((one, other) => (one.category < other.category ? -1 : 1))
  return unique.flatMap((one, index) =>
    unique.slice(index + 1).flatMap((other) => {
      const { horizontal, vertical } = directionsFrom(one.box, { other: other.box, side: scene.side })
      return [horizontal, vertical]
        .filter((direction) => direction !== undefined)
        .map((direction) => `The ${one.category} is ${directionPhrase(direction)} the ${other.category}.`)
    }),
  )
}

function settingFirst(random: Random, scene: Scene): string {
  const some = shuffle(random, [...countCategories(scene)]).slice(0, 2)
  const verb = some[0]?.[1] === 1 ? 'is' : 'are'
  const list = joinList(some.map(([name, count]) => countPhrase(name, count)))
  return `${capitalize(settingPhrase(scene.setting))}, there ${verb} ${list}.`
}

function relationOrNumber(random: Random, scene: Scene): string {
  const known = relations(scene)
  if (known.length > 0) return choose(random, known)
  const [name, count] = choose(random, [...countCategories(scene)])
  const { plural } = categoryNamed(name)
  return count === 1 ? `There is one ${name}.` : `There are ${numberWord(count)} ${plural}.`
}

function shortest(random: Random, scene: Scene): string {
  const places = uniqueObjects(scene).flatMap(({ category, box }) => {
    const field = fieldOf(box, scene.side)
    return field ? [`${capitalize(countPhrase(category, 1))} ${placePhrase(field)}.`] : []
  })
  if (places.length > 0) return choose(random, places)
  const [name, count] = choose(random, [...countCategories(scene)])
  return `${capitalize(countPhrase(name, count))}.`
}
