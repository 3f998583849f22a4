import { describe, expect, test } from 'vitest'
import { type Chart, chartFigure, formatNumber, logTicks, niceTicks, type Point, thinOut } from './report-chart.ts'

const chart: Chart = {
  title: 'Loss',
  caption: '',
  series: [
    {
      name: 'training',
      points: [
        [0, 1],
        [50, 2],
        [100, 3],
      ],
    },
  ],
  end: 100,
  scale: 'linear',
  range: [1, 3],
}
const line = (html: string) => /<path class="line c0" d="([^"]*)"/.exec(html)?.[1]

describe('chartFigure', () => {
  test('places points between the corners, the lowest value at the bottom', () => {
    expect(line(chartFigure(chart))).toBe('M0 1000L500 500L1000 0')
  })

  test('places equal ratios at equal distances on a log axis', () => {
    const points: Point[] = [
      [0, 0.1],
      [50, 1],
      [100, 10],
    ]
    const { range: _, ...free } = chart
    const d = line(chartFigure({ ...free, scale: 'log', series: [{ name: 'norm', points }] })) ?? ''
    const [a = 0, b = 0, c = 0] = Array.from(d.matchAll(/ ([\d.]+)/g), ([, y]) => Number(y))
    expect(a - b).toBeCloseTo(b - c, 0)
    expect(a - b).toBeGreaterThan(400)
  })

  test('breaks a line at a value that cannot be drawn', () => {
    const points: Point[] = [
      [0, 1],
      [25, Number.NaN],
      [50, 2],
      [100, 3],
    ]
    expect(line(chartFigure({ ...chart, series: [{ name: 'a', points }] }))).toBe('M0 1000M500 500L1000 0')
  })

  test('draws one point as a dot, equal values without dividing by zero, and nothing as nothing', () => {
    const { range: _, ...free } = chart
    expect(chartFigure({ ...free, series: [{ name: 'a', points: [[5, 2]] }] })).toContain(
      'class="dot c0" d="M50 500h0"',
    )
    expect(
      chartFigure({
        ...free,
        series: [
          {
            name: 'a',
            points: [
              [0, 0],
              [9, 0],
            ],
          },
        ],
      }),
    ).not.toMatch(/NaN|Infinity/)
    expect(chartFigure({ ...free, scale: 'log', series: [{ name: 'a', points: [[5, 0]] }] })).toBe('')
  })

  test('gives the hover script every value, a gap as null, and no mark', () => {
    const points: Point[] = [
      [0, 1],
      [50, Number.NaN],
    ]
    const series = [{ name: 'a', points }, { name: 'clip', points, style: 'dashed' } as const]
    const json = /<script type="application\/json">(.*)<\/script>/.exec(chartFigure({ ...chart, series }))?.[1] ?? ''
    expect(JSON.parse(json).series).toEqual([
      {
        item: 0, // of the legend, where the script writes the value
        points: [
          [0, 1],
          [50, null],
        ],
      },
    ])
  })
})

test('ticks are round numbers inside the range', () => {
  expect(niceTicks([0, 1], 5)).toEqual([0, 0.2, 0.4, 0.6, 0.8, 1])
  expect(niceTicks([0, 1800], 4)).toEqual([0, 500, 1000, 1500])
  expect(logTicks([0.4, 3], 5)).toEqual([0.5, 1, 2])
  expect(logTicks([0.001, 1000], 5)).toEqual([0.001, 0.1, 10, 1000])
  expect(logTicks([1.1, 1.9], 4)).toEqual([1.2, 1.4, 1.6, 1.8])
})

test('thinning keeps peaks, order and gaps, and leaves short lines alone', () => {
  const points = Array.from({ length: 10_000 }, (_, step): Point => [step, step === 7777 ? 99 : Math.sin(step)])
  const kept = thinOut(points, 500)
  expect(kept.length).toBeLessThanOrEqual(500)
  expect(kept).toContainEqual([7777, 99])
  expect(kept.every(([step], index) => index === 0 || step > (kept[index - 1]?.[0] ?? 0))).toBe(true)
  const broken = points.map(([step]): Point => [step, Number.NaN])
  expect(thinOut(broken, 500).length).toBeGreaterThan(0)
  expect(thinOut(points.slice(0, 500), 500)).toHaveLength(500)
})

test('formatNumber keeps four digits that count', () => {
  expect([0.182073, 12_000, 4.2e-5, 1, Number.NaN].map(formatNumber)).toEqual([
    '0.1821',
    '12000',
    '4.2e-5',
    '1',
    'not finite',
  ])
})
