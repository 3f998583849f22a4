/**
 * Prompt lookup (Saxena 2023): a guess at the next tokens by what followed the same words before, in the prompt or in the answer so far.
 *
 * A guess is read together with the token before it, which costs little more than that token alone, because reading the weights is what a token costs.
 * Each token is then chosen as it would have been; as long as it is the guessed one, its successor's logits are there already.
 */

export type Lookup = {
  /** The next token of the sequence. */
  push(token: number): void
  /** At most `most` tokens that may come next; none when the last two have not stood side by side before. */
  guess(most: number): number[]
}

/** Longer matches are looked for first. Guesses after a single token are wrong too often: see docs/experiments.md. */
const matched = [3, 2] as const

/** Looks up in a sequence that begins with `ids`; tokens in `never` are no words, such as the places of pictures. */
export function createLookup(
  ids: ArrayLike<number>,
  { never = [] }: { readonly never?: readonly number[] } = {},
): Lookup {
  const sequence: number[] = []
  const followers = new Map<string, number>() // where the token after the latest such words stands
  const lastWords = (count: number): string | undefined => {
    const words = sequence.slice(-count)
    return words.length === count && !words.some((token) => never.includes(token)) ? String(words) : undefined
  }
  const push = (token: number) => {
    for (const count of matched) {
      const words = lastWords(count)
      if (words !== undefined) followers.set(words, sequence.length)
    }
    sequence.push(token)
  }
  for (const token of Array.from(ids)) push(token)
  return {
    push,
    guess(most) {
      for (const count of matched) {
        const words = lastWords(count)
        const start = words === undefined ? undefined : followers.get(words)
        if (start === undefined) continue
        const following: number[] = []
        while (following.length < most) {
          const at = start + following.length
          const token = sequence[at] ?? following[at - sequence.length] // past the end the words go round in a circle
          if (token === undefined || never.includes(token)) break
          following.push(token)
        }
        return following
      }
      return []
    },
  }
}
