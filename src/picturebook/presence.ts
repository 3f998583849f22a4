/** Askers for what is there: whether, how many, and which things. */
import { categoryNamed } from './categories.ts'
import { drawCategory } from './composition.ts'
import { type Context, type Exchange, words } from './exchange.ts'
import { capitalize, countPhrase, listPhrase, numberWord } from './language.ts'
import { chance, choose, chooseWeighted } from './random.ts'
import { absentCategories, countCategories } from './scene.ts'

/** Even the last of several questions is "yes" half of the time: when all present things are known, none is asked. */
export function askExistence(context: Context): Exchange | undefined {
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

/** How a yes or no goes on, and how often. */
const existenceVerbs = [
  ['there is', 3],
  ['the picture shows', 1],
  ['I can see', 1],
] as const

function existence(context: Context, { name, expected }: { name: string; expected: 'yes' | 'no' }): Exchange {
  const a = countPhrase(name, 1)
  const verb = chooseWeighted(context.random, existenceVerbs)
  const sentence = expected === 'yes' ? `Yes, ${verb} ${a}.` : `No, ${verb} no ${name}.`
  const texts = { form: 'existence', slots: { a }, sentence, word: capitalize(expected) } as const
  return { skill: 'existence', ...words(context, texts), subject: name, expected }
}

/** How likely a count question is kept, by its answer: rarer answers more often, so that in scenes of up to four things 1 to 4 come out alike. */
const keptCounts = [0.3, 0.24, 0.66, 0.56, 0.9, 0.8, 0.8] as const
/** Which of several counts of a scene is asked for: hardly ever that of a single thing. */
const countWeights = [1, 1, 16, 16, 16, 10, 8] as const

export function askCount(context: Context): Exchange | undefined {
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

export function askListing(context: Context): Exchange {
  const list = listPhrase(countCategories(context.scene))
  const texts = { form: 'listing', slots: {}, sentence: `The picture shows ${list}.`, word: list } as const
  return { skill: 'listing', ...words(context, texts), expected: list }
}
