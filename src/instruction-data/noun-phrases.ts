/**
 * The paper's filter for caption corpora (§4.1 and its appendix: CC3M to 595K): captions are chosen so that rare things and frequent ones are both there.
 *
 * Tagging is wink-nlp's: it takes an eighth of a millisecond a caption, other libraries for JavaScript take many times that, and corpora have millions.
 */

import type { ItemToken, ItsFunction } from 'wink-nlp'
import { shareOf } from './requests.ts'

type TaggedWord = { readonly word: string; readonly tag: string; readonly singular: string }

/** Opens the tagger, which takes half a second, only when it is needed. */
async function openTagger(): Promise<(text: string) => TaggedWord[]> {
  const [{ default: winkNLP }, { default: model }] = await Promise.all([
    import('wink-nlp'),
    import('wink-eng-lite-web-model'),
  ])
  const nlp = winkNLP(model, ['sbd', 'pos'])
  // The package declares them with other arguments than it takes.
  const [partOfSpeech, lemma] = [nlp.its.pos, nlp.its.lemma] as unknown as [ItsFunction<string>, ItsFunction<string>]
  return (text) => {
    const words: TaggedWord[] = []
    const note = (token: ItemToken) =>
      void words.push({ word: token.out(), tag: token.out(partOfSpeech), singular: token.out(lemma) })
    nlp.readDoc(text).tokens().each(note)
    return words
  }
}

/**
 * A function that gives the noun phrases of a caption: adjectives and nouns in a row, without articles and numbers, the last noun in the singular:
 * `red bus`, `bus station`.
 */
export async function nounPhraseFinder(): Promise<(caption: string) => string[]> {
  const tagged = await openTagger()
  return (caption) => phrasesOf(tagged(caption.toLowerCase()))
}

function phrasesOf(words: readonly TaggedWord[]): string[] {
  const phrases = new Set<string>()
  let begin = 0
  for (let at = 0; at <= words.length; at++) {
    if (isInside(words[at]?.tag)) continue
    let end = at // without adjectives that no noun follows
    while (end > begin && !isNoun(words[end - 1]?.tag)) end -= 1
    const last = words[end - 1]
    if (end > begin && last !== undefined)
      phrases.add([...words.slice(begin, end - 1).map(({ word }) => word), last.singular].join(' '))
    begin = at + 1
  }
  return [...phrases]
}

export type BalanceOptions = {
  /** Phrases that fewer captions have are left out of account. */
  readonly rare: number
  /** A phrase that more captions have brings in so many of them, drawn at random. */
  readonly frequent: number
  readonly seed: number
}

export type BalanceSummary = {
  readonly captions: number
  readonly kept: number
  readonly phrases: number
  readonly phrasesKept: number
}

/** As in the paper. */
export const paperBalance = { rare: 3, frequent: 100, seed: 0 } as const satisfies BalanceOptions

/**
 * Which captions to keep, by their numbers: beginning with the rarest phrase, every phrase brings in its captions, frequent ones a random part.
 *
 * Memory: the phrases, and four bytes for each time that one occurs.
 */
export async function balanceByNounPhrases(
  captions: AsyncIterable<string>,
  { rare, frequent, seed }: BalanceOptions,
): Promise<BalanceSummary & { isKept: (caption: number) => boolean }> {
  const nounPhrases = await nounPhraseFinder()
  const numbers = new Map<string, number>()
  const places: number[][] = [] // by number of the phrase: the captions that have it
  let count = 0
  for await (const caption of captions) {
    for (const phrase of nounPhrases(caption)) {
      const number = numbers.get(phrase) ?? numbers.size
      numbers.set(phrase, number)
      const found = places[number]
      if (found === undefined) places[number] = [count]
      else found.push(count)
    }
    count += 1
  }
  const kept = new Uint8Array(count)
  const counted = places.filter((found) => found.length >= rare).sort((one, other) => one.length - other.length)
  for (const found of counted) {
    const chosen = found.length <= frequent ? found : drawn(found, { count: frequent, seed })
    for (const caption of chosen) kept[caption] = 1
  }
  return {
    captions: count,
    kept: kept.reduce((sum, one) => sum + one, 0),
    phrases: numbers.size,
    phrasesKept: counted.length,
    isKept: (caption) => kept[caption] === 1,
  }
}

/** So many of the captions, the same ones for a seed. */
function drawn(captions: readonly number[], { count, seed }: { count: number; seed: number }): number[] {
  return captions
    .map((caption) => ({ caption, place: shareOf(`${seed} balance ${caption}`) }))
    .sort((one, other) => one.place - other.place)
    .slice(0, count)
    .map(({ caption }) => caption)
}

function isInside(tag: string | undefined): boolean {
  return tag === 'ADJ' || isNoun(tag)
}

function isNoun(tag: string | undefined): boolean {
  return tag === 'NOUN' || tag === 'PROPN'
}
