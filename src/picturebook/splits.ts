/**
 * Train and test splits, and what is held out: pairs of categories, counts of a category, a drawing style, phrasings.
 *
 * A held-out pair or count is a combination of familiar parts, as in the CoGenT splits of CLEVR (Johnson et al., 2017).
 */
import { categories } from './categories.ts'
import { hashText } from './random.ts'

/** The order is part of every scene seed: append, never insert. */
export const splits = [
  'train',
  'iid',
  'held-out-pairs',
  'held-out-style',
  'held-out-counts',
  'held-out-phrasing',
] as const
export type Split = (typeof splits)[number]

// A scene asks about hundreds of pairs and counts of categories: hashing their names each time took most of its making.
const partners = new Map(
  categories.map(({ name }) => {
    const held = categories.filter((other) => other.name !== name && hashesToHeldOut(name, other.name))
    return [name, new Set(held.map((other) => other.name))] as const
  }),
)
const counts = new Map(categories.map(({ name }) => [name, hashedCount(name)] as const))

/** About a tenth of all pairs of categories: they stand together only in pictures of the split `held-out-pairs`. */
export function isHeldOutPair(one: string, other: string): boolean {
  return partners.get(one)?.has(other) ?? false
}

/** The number, 2, 3 or 4, in which a category occurs only in pictures of the split `held-out-counts`. */
export function heldOutCount(name: string): number {
  return counts.get(name) ?? hashedCount(name)
}

/** All held-out pairs, by name. */
export const heldOutPairs: readonly (readonly [string, string])[] = categories.flatMap((one, index) =>
  categories
    .slice(index + 1)
    .filter((other) => isHeldOutPair(one.name, other.name))
    .map((other) => [one.name, other.name] as const),
)

function hashesToHeldOut(one: string, other: string): boolean {
  return hashText([one, other].sort().join(' and ')) % 10 === 0
}

function hashedCount(name: string): number {
  return 2 + (hashText(`several ${name}`) % 3)
}
