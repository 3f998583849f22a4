/** What descriptions name, against what there is: hallucinated and forgotten things. */

import { type Exchange, thingsSaid } from '../picturebook/index.ts'

export type DescriptionScores = {
  readonly descriptions: number
  /** Of the things named in all descriptions together, those that are there; of those that are there, the named ones; their harmonic mean. */
  readonly precision: number
  readonly recall: number
  readonly f1: number
  /** Share of the named things that are not there, and of the descriptions that name one (Rohrbach et al. 2018 §3.1). */
  readonly chairI: number
  readonly chairS: number
}

/** Scores over categories: each counts once per description, whatever its number. */
export function scoreDescriptions(
  told: readonly { readonly exchange: Exchange; readonly said: string }[],
): DescriptionScores {
  const counted = told.map(({ exchange, said }) => {
    const truth = thingsSaid(exchange.expected)
    const named = [...thingsSaid(said).keys()]
    return { named: named.length, right: named.filter((name) => truth.has(name)).length, there: truth.size }
  })
  const sum = (of: (one: (typeof counted)[number]) => number) => counted.reduce((total, one) => total + of(one), 0)
  const [named, right, there] = [sum((one) => one.named), sum((one) => one.right), sum((one) => one.there)]
  return {
    descriptions: told.length,
    precision: ratio(right, named),
    recall: ratio(right, there),
    f1: ratio(2 * right, named + there),
    chairI: ratio(named - right, named),
    chairS: ratio(counted.filter((one) => one.named > one.right).length, told.length),
  }
}

/** 0 when there is nothing to divide by: nothing named is nothing invented. */
function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole
}
