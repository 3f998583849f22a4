/** What a scene consists of: how many objects, which categories, how often each. */
import { type Category, categories, type Group } from './categories.ts'
import { chance, choose, chooseWeighted, type Random, shuffle } from './random.ts'
import { heldOutCount, heldOutPairs, isHeldOutPair, type Split } from './splits.ts'

/** Share of scenes of two or more objects in which some category is repeated. */
const repeatedShare = 0.5
/** Objects of one category in one scene, at most. */
const mostOfOne = 6
/** Share of scenes with a theme, and of the objects in such a scene that follow it: why some things go together. */
const themedShare = 0.5
const followingShare = 0.6

const weights: readonly (readonly [Category, number])[] = categories.map((category) => [category, weightOf(category)])
const weightsOfGroup = new Map<Group, readonly (readonly [Category, number])[]>(
  [...new Set(categories.map((category) => category.group))].map((group) => [
    group,
    weights.filter(([category]) => category.group === group),
  ]),
)
const groupWeights = [...weightsOfGroup].map(
  ([group, members]) => [group, members.reduce((sum, [, weight]) => sum + weight, 0)] as const,
)

/**
 * Draws the category names of one scene, one for each object.
 * @throws RangeError when a split needs two objects and fewer are allowed
 */
export function drawComposition(
  random: Random,
  { objects, split }: { objects: readonly [number, number]; split: Split },
): string[] {
  const [fewest, most] = objects
  const needsTwo = split === 'held-out-pairs' || split === 'held-out-counts'
  if (needsTwo && most < 2) throw new RangeError(`Cannot make a scene of split ${split} with fewer than 2 objects`)
  const total = drawTotal(random, [needsTwo ? Math.max(2, fewest) : fewest, most])
  const counts = new Map<string, number>()
  if (split === 'held-out-counts') forceCount(random, { counts, most })
  if (split === 'held-out-pairs') forcePair(random, counts)
  const theme = chance(random, themedShare) ? chooseWeighted(random, groupWeights) : undefined
  for (const count of partition(random, total - sumOf(counts))) {
    const allowed = (name: string) =>
      !counts.has(name) &&
      count !== heldOutCount(name) &&
      [...counts.keys()].every((other) => !isHeldOutPair(name, other))
    counts.set(drawCategory(random, { theme, allowed }).name, count)
  }
  return shuffle(
    random,
    [...counts].flatMap(([name, count]) => Array.from({ length: count }, () => name)),
  )
}

/**
 * One category as scenes draw them: common ones more often, and those of the theme if there is one.
 * @param options.allowed says which names may be drawn; some must be
 */
export function drawCategory(
  random: Random,
  { theme, allowed }: { theme?: Group | undefined; allowed: (name: string) => boolean },
): Category {
  const all = weights.filter(([category]) => allowed(category.name))
  if (theme && chance(random, followingShare)) {
    const followers = (weightsOfGroup.get(theme) ?? []).filter(([category]) => allowed(category.name))
    if (followers.length > 0) return chooseWeighted(random, followers)
  }
  return chooseWeighted(random, all)
}

function weightOf(category: Category): number {
  return category.common ? 2 : 1
}

/** A number of things; higher ones are likelier, or many of a kind would be too rare to learn counting from. */
function drawTotal(random: Random, [fewest, most]: readonly [number, number]): number {
  const totals = Array.from({ length: most - fewest + 1 }, (_, index) => [fewest + index, index + 1] as const)
  return chooseWeighted(random, totals)
}

/** Splits a number of objects into counts of different categories. */
function partition(random: Random, total: number): number[] {
  const counts: number[] = []
  let rest = total
  let repeating = repeatedShare
  while (rest > 0) {
    const repeated = rest >= 2 && chance(random, repeating)
    const count = repeated ? drawTotal(random, [2, Math.min(mostOfOne, rest)]) : 1
    counts.push(count)
    rest -= count
    // A second repeated category is rarer; without a first one there is none later either.
    repeating = repeated ? 0.3 : 0
  }
  return counts
}

function forceCount(random: Random, { counts, most }: { counts: Map<string, number>; most: number }): void {
  const { name } = drawCategory(random, { allowed: (candidate) => heldOutCount(candidate) <= most })
  counts.set(name, heldOutCount(name))
}

function forcePair(random: Random, counts: Map<string, number>): void {
  for (const name of choose(random, heldOutPairs)) counts.set(name, 1)
}

function sumOf(counts: Map<string, number>): number {
  return [...counts.values()].reduce((sum, count) => sum + count, 0)
}
