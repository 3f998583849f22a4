/**
 * Repeatable random numbers: the generator sfc32 (Chris Doty-Humphrey, PractRand), 128 bits of state.
 *
 * Two different (seed, stream) pairs start in two different states, so scenes of different seeds never
 * share their numbers by accident, which a 32-bit state could not promise for millions of scenes.
 */
export type Random = { a: number; b: number; c: number; counter: number }

/**
 * A fresh generator.
 * @param seed integer from 0 to 2^53 - 1
 * @param stream keeps apart the numbers drawn for different purposes from one seed; integer from 0 to 2^32 - 1
 * @throws RangeError for a seed that is not such an integer
 */
export function createRandom(seed: number, stream = 0): Random {
  if (!Number.isSafeInteger(seed) || seed < 0) {
    throw new RangeError(`Cannot seed random numbers: found ${seed}, expected an integer from 0 to 2^53 - 1`)
  }
  const random = { a: seed | 0, b: Math.floor(seed / 2 ** 32) | 0, c: stream | 0, counter: 1 }
  // The first numbers still resemble the seed; twelve rounds are the author's warm-up.
  for (let round = 0; round < 12; round++) nextInteger(random)
  return random
}

/** The next 32 random bits, as an integer from 0 to 2^32 - 1. */
export function nextInteger(random: Random): number {
  const sum = (((random.a + random.b) | 0) + random.counter) | 0
  random.counter = (random.counter + 1) | 0
  random.a = random.b ^ (random.b >>> 9)
  random.b = (random.c + (random.c << 3)) | 0
  random.c = (((random.c << 21) | (random.c >>> 11)) + sum) | 0
  return sum >>> 0
}

/** A number in [0, 1). */
export function uniform(random: Random): number {
  return nextInteger(random) / 2 ** 32
}

/** A number in [low, high). */
export function between(random: Random, [low, high]: readonly [number, number]): number {
  return low + (high - low) * uniform(random)
}

/** An integer from low to high, both included. */
export function integerBetween(random: Random, [low, high]: readonly [number, number]): number {
  return low + Math.floor(uniform(random) * (high - low + 1))
}

/** True with the given probability. */
export function chance(random: Random, probability: number): boolean {
  return uniform(random) < probability
}

/**
 * One item of a list, all equally likely.
 * @throws RangeError for an empty list
 */
export function choose<T>(random: Random, items: readonly T[]): T {
  const index = Math.floor(uniform(random) * items.length)
  if (index >= items.length) throw new RangeError('Cannot choose an item: the list is empty')
  return items[index] as T
}

/**
 * One item of a list, each as likely as its weight says.
 * @throws RangeError when no item has a positive weight
 */
export function chooseWeighted<T>(random: Random, items: readonly (readonly [T, number])[]): T {
  const total = items.reduce((sum, [, weight]) => sum + weight, 0)
  let rest = uniform(random) * total
  for (const [item, weight] of items) {
    if (rest < weight) return item
    rest -= weight
  }
  throw new RangeError(`Cannot choose an item by weight: the weights of ${items.length} items sum to ${total}`)
}

/** A shuffled copy. */
export function shuffle<T>(random: Random, items: readonly T[]): T[] {
  const copy = [...items]
  for (let last = copy.length - 1; last > 0; last--) {
    const other = integerBetween(random, [0, last])
    const held = copy[last] as T
    copy[last] = copy[other] as T
    copy[other] = held
  }
  return copy
}

/** A 32-bit hash of a text (FNV-1a with a final mix): fixed choices that depend on names only. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index++) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
