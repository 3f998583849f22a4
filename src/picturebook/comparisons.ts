/** Askers that weigh categories against one another: more, as many, and which thing does not belong. */
import { categoryNamed, type Group } from './categories.ts'
import { type Context, drawAbsent, type Exchange, words } from './exchange.ts'
import { capitalize, numberWord } from './language.ts'
import { chance, choose, shuffle } from './random.ts'
import { countCategories } from './scene.ts'

type Counted = { name: string; count: number }
type Pair = readonly [Counted, Counted]

/** Share of comparisons that ask whether there are as many, where the scene holds two categories in equal number. */
const asManyShare = 0.3
/** How often a present thing is compared with an absent one, where no two present numbers differ. */
const absentPairShare = 0.25

/** Ties are only for the question of as many; whether a pair is named in one order or the other is left to chance. */
export function askComparison(context: Context): Exchange | undefined {
  const { scene, random } = context
  const counted = [...countCategories(scene)].map(([name, count]) => ({ name, count }))
  const pairs = counted.flatMap((one, index) => counted.slice(index + 1).map((other): Pair => [one, other]))
  const ties = pairs.filter(([one, other]) => one.count === other.count)
  const unequal = pairs.filter(([one, other]) => one.count !== other.count)
  if (ties.length > 0 && chance(random, asManyShare)) {
    if (chance(random, 0.5)) return asMany(context, choose(random, ties))
    return asMany(context, unequal.length > 0 ? choose(random, unequal) : withAbsent(context, choose(random, counted)))
  }
  if (unequal.length === 0 && !chance(random, absentPairShare)) return undefined
  const pair = unequal.length > 0 ? choose(random, unequal) : withAbsent(context, choose(random, counted))
  return chance(random, 0.5) ? more(context, pair) : most(context, pair)
}

function withAbsent(context: Context, one: Counted): Pair {
  return [one, { name: drawAbsent(context), count: 0 }]
}

function asMany(context: Context, pair: Pair): Exchange {
  const [one, other] = shuffle(context.random, pair) as [Counted, Counted]
  const expected = one.count === other.count ? 'yes' : 'no'
  const word = capitalize(expected)
  const texts = {
    form: 'asMany',
    slots: pluralsOf(one, other),
    sentence: `${word}, ${thereAre(one, other)}.`,
    word,
  } as const
  return comparison(context, { texts, one, other, relation: 'as many', expected })
}

function more(context: Context, pair: Pair): Exchange {
  const [one, other] = shuffle(context.random, pair) as [Counted, Counted]
  const expected = one.count > other.count ? 'yes' : 'no'
  const word = capitalize(expected)
  const texts = {
    form: 'more',
    slots: pluralsOf(one, other),
    sentence: `${word}, ${thereAre(one, other)}.`,
    word,
  } as const
  return comparison(context, { texts, one, other, relation: 'more', expected })
}

function most(context: Context, pair: Pair): Exchange {
  const [one, other] = shuffle(context.random, pair) as [Counted, Counted]
  const [winner, loser] = one.count > other.count ? [one, other] : [other, one]
  const [plural, others] = [categoryNamed(winner.name).plural, categoryNamed(loser.name).plural]
  const sentence = `There are more ${plural} than ${others}.`
  const texts = { form: 'most', slots: pluralsOf(one, other), sentence, word: plural } as const
  return comparison(context, { texts, one, other, relation: 'most', expected: winner.name })
}

function comparison(
  context: Context,
  told: { texts: Parameters<typeof words>[1]; one: Counted; other: Counted; relation: string; expected: string },
): Exchange {
  const { texts, one, other, relation, expected } = told
  const about = { subject: one.name, other: other.name, relation, expected }
  return { skill: 'comparison', ...words(context, texts), ...about }
}

function pluralsOf(one: Counted, other: Counted): { plural: string; others: string } {
  return { plural: categoryNamed(one.name).plural, others: categoryNamed(other.name).plural }
}

/** `there are three cats and one dog`, `there is one cat and no dogs`. */
function thereAre(one: Counted, other: Counted): string {
  return `there ${one.count === 1 ? 'is' : 'are'} ${numbered(one)} and ${numbered(other)}`
}

function numbered({ name, count }: Counted): string {
  return `${numberWord(count)} ${count === 1 ? name : categoryNamed(name).plural}`
}

/** Groups that have an everyday name, so that what belongs together can be said. */
const groupNames: Partial<Record<Group, string>> = { animal: 'animals', food: 'food', vehicle: 'vehicles' }

/** Only where all categories but one, which occurs once, are of one group. */
export function askOddOneOut(context: Context): Exchange | undefined {
  const counts = countCategories(context.scene)
  const names = [...counts.keys()]
  if (names.length < 3) return undefined
  const odd = names.find((name) => counts.get(name) === 1 && commonGroup(names.filter((other) => other !== name)))
  const group = odd && commonGroup(names.filter((other) => other !== odd))
  const others = group && groupNames[group]
  if (!odd || !others || categoryNamed(odd).group === group) return undefined
  const sentence = `The ${odd} does not belong: the others are ${others}.`
  const texts = { form: 'oddOneOut', slots: {}, sentence, word: odd } as const
  return { skill: 'odd-one-out', ...words(context, texts), expected: odd }
}

function commonGroup(names: readonly string[]): Group | undefined {
  const groups = new Set(names.map((name) => categoryNamed(name).group))
  return groups.size === 1 ? [...groups][0] : undefined
}
