/** The small English of the picturebook: numbers, things with articles, lists. */
import { categories, categoryNamed, colors } from './categories.ts'

const numberWords = ['no', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight'] as const

/** `no`, `one`, ... `eight`; digits beyond. */
export function numberWord(count: number): string {
  return numberWords[count] ?? String(count)
}

/** `a cat`, `an owl`, `two cats`, `no cats`. */
export function countPhrase(name: string, count: number): string {
  const { article, plural } = categoryNamed(name)
  return count === 1 ? `${article} ${name}` : `${numberWord(count)} ${plural}`
}

/** `a`, `a and b`, `a, b and c`. */
export function joinList(parts: readonly string[]): string {
  const last = parts.at(-1) ?? ''
  return parts.length < 2 ? last : `${parts.slice(0, -1).join(', ')} and ${last}`
}

/** `a cat, two dogs and a tree`, in the order of the map. */
export function listPhrase(counts: ReadonlyMap<string, number>): string {
  return joinList([...counts].map(([name, count]) => countPhrase(name, count)))
}

export function capitalize(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/** Lower-case words of a text, without punctuation. */
export function wordsOf(text: string): string[] {
  return text.toLowerCase().match(/[a-z]+(?:'[a-z]+)?|\d+/g) ?? []
}

/** The number that a word or digits stand for; articles count as one, `no` and `zero` as none. */
export function numberOf(word: string): number | undefined {
  if (/^\d+$/.test(word)) return Number(word)
  if (word === 'a' || word === 'an') return 1
  if (word === 'zero') return 0
  const count = (numberWords as readonly string[]).indexOf(word)
  return count < 0 ? undefined : count
}

const nameOfWord = new Map(categories.flatMap(({ name, plural }) => [[name, name] as const, [plural, name] as const]))
const adjectives = new Set<string>([...colors, 'small', 'medium', 'large', 'big', 'little'])

/**
 * The things that a text says there are, with their numbers: `two red cars and a cat` gives car 2, cat 1.
 *
 * A thing without a number (`the cat`, `cats`) is kept as 1 unless another mention counts it; `no cats` is not kept.
 * Where a thing is counted twice the larger number stays.
 */
export function thingsSaid(text: string): Map<string, number> {
  const counted = new Map<string, number>()
  const referred = new Set<string>()
  const words = wordsOf(text)
  for (const [index, word] of words.entries()) {
    const name = nameOfWord.get(word)
    if (name === undefined) continue
    let before = index - 1
    while (before >= 0 && adjectives.has(words[before] as string)) before -= 1
    const count = before < 0 ? undefined : numberOf(words[before] as string)
    if (count === undefined) referred.add(name)
    else if (count > 0) counted.set(name, Math.max(count, counted.get(name) ?? 0))
  }
  for (const name of referred) if (!counted.has(name)) counted.set(name, 1)
  return counted
}
