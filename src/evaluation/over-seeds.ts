/** One score from several runs that differ only in their seed, with an interval that says how far to trust it. */

import { type Share, shareOf } from './statistics.ts'

/** Right answers of one run. */
export type Count = { readonly right: number; readonly all: number }

/** Fewer runs say too little about how much runs differ. */
export const fewestSeeds = 3

/**
 * The mean share over runs and its 95 % interval.
 *
 * From three runs on, the interval is Student's t over the runs, which counts the luck of training and of the questions; it is never narrower than
 * Wilson's interval over all questions together. With fewer runs it is Wilson's alone, which counts only the luck of the questions. Runs without
 * questions are left out.
 */
export function overSeeds(counts: readonly Count[]): Share {
  const asked = counts.filter(({ all }) => all > 0)
  const sum = (of: (count: Count) => number) => asked.reduce((total, count) => total + of(count), 0)
  const pooled = shareOf(
    sum(({ right }) => right),
    sum(({ all }) => all),
  )
  const n = asked.length
  if (n < 2) return pooled
  const share = sum(({ right, all }) => right / all) / n
  if (n < fewestSeeds) return { ...pooled, share }
  const variance = sum(({ right, all }) => (right / all - share) ** 2) / (n - 1)
  const half = studentQuantile(n - 1) * Math.sqrt(variance / n)
  return {
    ...pooled,
    share,
    low: Math.max(0, Math.min(pooled.low, share - half)),
    high: Math.min(1, Math.max(pooled.high, share + half)),
  }
}

/** 97.5 % quantiles of Student's t with 1, 2, … degrees of freedom. */
const quantiles = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.306, 2.2622]

/** The table, and from 10 degrees on the expansion in 1/degrees (Abramowitz & Stegun 26.7.5), exact to three decimals there. */
function studentQuantile(degrees: number): number {
  const z = 1.959963984540054
  const terms = [
    z,
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
  ]
  return quantiles[degrees - 1] ?? terms.reduce((sum, term, power) => sum + term / degrees ** power, 0)
}
