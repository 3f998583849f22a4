/** Counting with honesty: shares with their 95 % intervals. */

export type Share = {
  readonly right: number
  readonly all: number
  readonly share: number
  readonly low: number
  readonly high: number
}

/** Wilson's score interval, which stays inside 0 … 1 and is sound for small counts (Wilson 1927). */
export function shareOf(right: number, all: number): Share {
  if (all === 0) return { right, all, share: Number.NaN, low: 0, high: 1 }
  const z = 1.959963984540054
  const p = right / all
  const center = (p + (z * z) / (2 * all)) / (1 + (z * z) / all)
  const half = (z / (1 + (z * z) / all)) * Math.sqrt((p * (1 - p)) / all + (z * z) / (4 * all * all))
  return { right, all, share: p, low: Math.max(0, center - half), high: Math.min(1, center + half) }
}

/** Precision, recall and F1 of `yes`, and how often `yes` was said: what POPE reports (Li et al. 2023 §4). */
export function yesNoScores(pairs: readonly { readonly expected: boolean; readonly said: boolean }[]): {
  precision: number
  recall: number
  f1: number
  yesRatio: number
} {
  const count = (test: (pair: { expected: boolean; said: boolean }) => boolean) => pairs.filter(test).length
  const truePositives = count(({ expected, said }) => expected && said)
  const saidYes = count(({ said }) => said)
  const expectedYes = count(({ expected }) => expected)
  return {
    precision: ratio(truePositives, saidYes),
    recall: ratio(truePositives, expectedYes),
    f1: ratio(2 * truePositives, saidYes + expectedYes),
    yesRatio: ratio(saidYes, pairs.length),
  }
}

/** 0 when there is nothing to divide by, as POPE's script would fail there and a model that never says yes has found nothing. */
function ratio(part: number, whole: number): number {
  return whole === 0 ? 0 : part / whole
}
