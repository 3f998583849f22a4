/** The curves of a training run's report: which figures there are, and what is drawn in each. */

import { type Chart, formatNumber, type Point } from './report-chart.ts'
import type { Pace } from './run-folder.ts'
import type { RunLog } from './run-log.ts'

/** What the curves need of a recipe. */
export type CurveRecipe = {
  readonly rates: Readonly<Record<string, number>>
  readonly optimizer?: { readonly clip: number } | undefined
}

export function chartsOf(
  { rates, optimizer }: CurveRecipe,
  { steps, validations, answers }: RunLog,
  { paces }: { paces: readonly Pace[] },
): Chart[] {
  const end = Math.max(
    0,
    ...[steps.at(-1)?.step, validations.at(-1)?.step, answers.at(-1)?.step].filter((last) => last !== undefined),
  )
  const raw = steps.map((one): Point => [one.step, one.loss])
  const validation = validations.map((one): Point => [one.step, one.loss])
  const losses = [...raw, ...validation].map(([, loss]) => loss).filter(Number.isFinite)
  const wide = losses.every((loss) => loss > 0) && lowest(losses) * 10 < highest(losses)
  const pace = (title: string, { color, of }: { color: number; of: (one: Pace) => number }): Chart => ({
    title,
    caption: 'Between log lines, without the time for validation.',
    series: [{ name: title.toLowerCase(), points: paces.map((one): Point => [one.step, of(one)]), color }],
    end,
    scale: 'linear',
    range: [0, 1.1 * Math.max(1e-9, ...paces.map(of))],
  })
  const clip = optimizer?.clip
  const skills = [...new Set([...validations, ...answers].flatMap(({ accuracy }) => Object.keys(accuracy)))].sort()
  return [
    {
      title: 'Loss',
      caption: `Training: mean between log lines (thin) and smoothed. Validation: samples that are not trained on.${wide ? ' Log axis.' : ''}`,
      series: [
        { name: 'training', points: raw, style: 'thin', color: 0 },
        { name: 'training, smoothed', points: smooth(raw, { halfLife: halfLifeOf(raw.length) }), color: 0 },
        ...(validation.length > 0
          ? [{ name: 'validation', points: validation, style: 'dots', color: 1 } as const]
          : []),
      ],
      end,
      scale: wide ? 'log' : 'linear',
    },
    {
      title: 'Accuracy per skill, by itself',
      caption: 'Share of questions that the model answers right by itself. Point at a name to pick out its curve.',
      ...skillCurves(answers, { skills }),
      end,
    },
    {
      title: 'Accuracy per skill, word for word',
      caption: 'Share of validation answers of which it would say every word, given the right words before.',
      ...skillCurves(validations, { skills }),
      end,
    },
    {
      title: 'Gradient norm',
      caption: 'Over all weights that learn, before clipping, at the logged steps. Log axis.',
      series: [
        { name: 'gradient norm', points: steps.map((one) => [one.step, one.gradientNorm]), color: 2 },
        ...(clip === undefined || steps.length === 0
          ? []
          : [
              {
                name: `clipped above ${formatNumber(clip)}`,
                points: [
                  [0, clip],
                  [end, clip],
                ],
                style: 'dashed',
                color: 9,
              } as const,
            ]),
      ],
      end,
      scale: 'log',
    },
    {
      title: 'Learning rate',
      caption: 'Of each part that learns, at the logged steps.',
      series: [...new Set(Object.values(rates))].map((peak, index) => ({
        name: partsAt(rates, peak),
        points: steps.map((one): Point => [one.step, one.schedule * peak]),
        color: 7 + index,
      })),
      end,
      scale: 'linear',
      range: [0, Math.max(...Object.values(rates))],
    },
    pace('Pictures per second', { color: 5, of: (one) => one.picturesPerSecond }),
    pace('Tokens per second', { color: 4, of: (one) => one.tokensPerSecond }),
  ]
}

/** A curve per skill; a skill has the same colour in both charts. */
function skillCurves(
  measured: readonly { readonly step: number; readonly accuracy: Readonly<Record<string, number>> }[],
  { skills }: { skills: readonly string[] },
): Pick<Chart, 'series' | 'scale' | 'range' | 'percent'> {
  const known = new Set(measured.flatMap(({ accuracy }) => Object.keys(accuracy)))
  const series = skills.flatMap((skill, color) => {
    const points = measured.map((one): Point => [one.step, one.accuracy[skill] ?? Number.NaN])
    return known.has(skill) ? [{ name: skill, points, style: 'dots', color } as const] : []
  })
  return { series, scale: 'linear', range: [0, 1], percent: true }
}

function partsAt(rates: Readonly<Record<string, number>>, peak: number): string {
  const parts = Object.entries(rates).flatMap(([part, rate]) => (rate === peak ? part : []))
  return parts.join(', ')
}

/** Mean of the points on both sides, whose weight halves every `halfLife` points: it does not lag. Gaps stay gaps. */
export function smooth(points: readonly Point[], { halfLife }: { halfLife: number }): Point[] {
  const keep = 0.5 ** (1 / halfLife)
  const before = runningSums(points, keep)
  const after = runningSums(points.toReversed(), keep).reverse()
  return points.map(([at, one], index) => {
    const [left, right] = [before[index], after[index]]
    if (!Number.isFinite(one) || left === undefined || right === undefined) return [at, Number.NaN]
    return [at, (left.sum + right.sum - one) / (left.weight + right.weight - 1)] // both hold the point itself
  })
}

/** Points after which the smoothed curve has forgotten half: a sixtieth of the run. */
export function halfLifeOf(points: number): number {
  return Math.max(1, points / 60)
}

function runningSums(points: readonly Point[], keep: number): { sum: number; weight: number }[] {
  let [sum, weight] = [0, 0]
  return points.map(([, value]) => {
    const present = Number.isFinite(value) ? 1 : 0
    sum = sum * keep + (present === 1 ? value : 0)
    weight = weight * keep + present
    return { sum, weight }
  })
}

function lowest(values: readonly number[]): number {
  return values.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY)
}

function highest(values: readonly number[]): number {
  return values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
}
