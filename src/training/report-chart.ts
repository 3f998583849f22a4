/** Line charts over training steps as HTML with inline SVG: stretched to any width, with labels that keep their size; the legend tells the values under the pointer. */

export type Point = readonly [step: number, value: number]

export type Series = {
  readonly name: string
  /** In order of steps. A value that is not finite leaves a gap. */
  readonly points: readonly Point[]
  /** `dots` marks every point of a line; `dashed` is a mark to read against and has no values on hover. */
  readonly style?: 'line' | 'thin' | 'dots' | 'dashed'
  /** Which of the page's colours, from 0; the place in the chart when left out. */
  readonly color?: number
}

export type Chart = {
  readonly title: string
  readonly caption: string
  readonly series: readonly Series[]
  /** Last step of the axis, which begins at 0. */
  readonly end: number
  readonly scale: 'linear' | 'log'
  /** Lowest and highest value of the axis; those of the series when left out. */
  readonly range?: readonly [low: number, high: number]
  readonly percent?: boolean
}

type Axis = { readonly place: (value: number) => number; readonly ticks: readonly number[] }

const colors = 10
const mostPoints = 1200 // per series: what a screen can show

/** One chart as a `figure` element, or nothing when no series has a finite value. */
export function chartFigure(chart: Chart): string {
  const series = chart.series.map((one) => ({ ...one, points: thinOut(drawable(one.points, chart.scale)) }))
  const values = series.flatMap(({ points }) => points.map(([, value]) => value)).filter(Number.isFinite)
  if (values.length === 0) return ''
  const drawn = { ...chart, series }
  const x = linearAxis([0, Math.max(1, chart.end)], { ticks: 4 })
  const y = verticalAxis(chart, values)
  const label = (value: number) => escapeHtml(formatValue(value, chart))
  const marks = series.map((one, index) => seriesPath(one, { x, y, color: colorOf(one, index) })).join('')
  return `<figure>
<figcaption><h2>${escapeHtml(chart.title)}</h2><p>${escapeHtml(chart.caption)}</p></figcaption>
<div class="plot" tabindex="0" role="img" aria-label="${escapeHtml(describe(drawn))}">
<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" aria-hidden="true">${y.ticks
    .map((tick) => `<path class="grid" d="M0 ${across(1 - y.place(tick))}H1000"/>`)
    .join('')}${marks}</svg>
${y.ticks.map((tick) => `<span class="y" style="bottom:${percentage(y.place(tick))}">${label(tick)}</span>`).join('')}
${x.ticks.map((tick) => `<span class="x" style="left:${percentage(x.place(tick))}">${formatNumber(tick)}</span>`).join('')}
<i class="cursor" hidden></i><div class="tip" hidden></div>
</div>
${legend(drawn)}
<script type="application/json">${hoverData(drawn)}</script>
</figure>`
}

/** Text as it may stand in HTML, between tags or in a quoted attribute. */
export function escapeHtml(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;')
}

/** At most four digits that count: `0.1821`, `12000`, `4.2e-5`. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return 'not finite'
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return String(value)
  const short = Number(value.toPrecision(4))
  return Math.abs(short) < 1e-3 ? short.toExponential() : String(short)
}

/** Ticks at 1, 2 or 5 times a power of ten, at most about `count` of them. */
export function niceTicks([low, high]: readonly [number, number], count: number): number[] {
  const rough = (high - low) / count
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = ([1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999) ?? 10) * power
  const ticks: number[] = []
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; i++) ticks.push(roundOff(i * step))
  return ticks
}

/** Ticks of a log axis: 1, 2 and 5 times powers of ten where there is room, powers of ten alone otherwise. */
export function logTicks([low, high]: readonly [number, number], count: number): number[] {
  const ticks: number[] = []
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const factor of [1, 2, 5]) ticks.push(roundOff(factor * 10 ** power))
  }
  const inside = ticks.filter((tick) => tick >= low && tick <= high)
  if (inside.length < 2) return niceTicks([low, high], count)
  if (inside.length <= count + 1) return inside
  const powers = inside.filter((tick) => /^[^2-9]*$/.test(tick.toExponential(0).replace(/e.*/, '')))
  const every = Math.ceil(powers.length / count)
  return powers.filter((_, index) => index % every === 0)
}

/** Keeps the lowest and the highest of every few points, so that a long line looks the same and stays small. */
export function thinOut(points: readonly Point[], most: number = mostPoints): readonly Point[] {
  if (points.length <= most) return points
  const bucket = Math.ceil((points.length / most) * 2)
  const kept: Point[] = []
  for (let start = 0; start < points.length; start += bucket) {
    const here = points.slice(start, start + bucket)
    const ordered = here.filter(([, value]) => Number.isFinite(value)).sort((a, b) => a[1] - b[1])
    const ends = [ordered[0] ?? here[0], ordered.at(-1)].filter((point) => point !== undefined)
    kept.push(...new Set(ends.sort((a, b) => a[0] - b[0])))
  }
  return kept
}

/** A log axis has no place for zero and below. */
function drawable(points: readonly Point[], scale: Chart['scale']): readonly Point[] {
  return scale === 'linear' ? points : points.map(([step, value]) => [step, value > 0 ? value : Number.NaN])
}

function verticalAxis({ scale, range }: Chart, values: readonly number[]): Axis {
  const low = range?.[0] ?? values.reduce((a, b) => Math.min(a, b))
  const high = range?.[1] ?? values.reduce((a, b) => Math.max(a, b))
  if (range !== undefined) return linearAxis([low, high], { ticks: 5 })
  if (scale === 'linear') {
    const room = high > low ? (high - low) * 0.05 : Math.abs(high) * 0.1 || 1
    return linearAxis([low - room, high + room], { ticks: 5 })
  }
  const room = high > low ? (high / low) ** 0.05 : 1.5
  const [from, to] = [Math.log(low / room), Math.log(high * room)]
  return {
    place: (value) => (Math.log(value) - from) / (to - from),
    ticks: logTicks([low / room, high * room], 5),
  }
}

function linearAxis([low, high]: readonly [number, number], { ticks }: { ticks: number }): Axis {
  return { place: (value) => (value - low) / (high - low), ticks: niceTicks([low, high], ticks) }
}

function seriesPath({ points, style = 'line' }: Series, { x, y, color }: { x: Axis; y: Axis; color: number }): string {
  let line = ''
  let dots = ''
  let pen = false
  for (const [step, value] of points) {
    const spot = Number.isFinite(value) ? `${across(x.place(step))} ${across(1 - y.place(value))}` : undefined
    if (spot !== undefined) line += `${pen ? 'L' : 'M'}${spot}`
    if (spot !== undefined && (style === 'dots' || points.length === 1)) dots += `M${spot}h0` // round caps make a dot
    pen = spot !== undefined
  }
  const path = (kind: string, d: string) => (d === '' ? '' : `<path class="${kind} c${color}" d="${d}"/>`)
  return path(style === 'dots' ? 'line' : style, line) + path('dot', dots)
}

function legend({ series, ...chart }: Chart): string {
  const items = series.map((one, index) => {
    const last = one.points.findLast(([, value]) => Number.isFinite(value))
    const value = last === undefined || one.style === 'dashed' ? '' : formatValue(last[1], chart)
    const kind = one.style === 'dashed' || one.style === 'thin' ? ` ${one.style}` : ''
    return `<li data-color="${colorOf(one, index)}"><i class="key${kind} c${colorOf(one, index)}"></i>${escapeHtml(one.name)} <b>${value}</b></li>`
  })
  return `<ul class="legend">${items.join('')}</ul>`
}

function hoverData({ series, end, percent = false }: Chart): string {
  const shown = series.flatMap((one, index) =>
    one.style === 'dashed' || one.points.length === 0
      ? []
      : [{ item: index, points: one.points.map(([x, y]) => [x, shorten(y)]) }],
  )
  return JSON.stringify({ end: Math.max(1, end), percent, series: shown }).replaceAll('<', '\\u003c')
}

/** The chart in words, for those who cannot see it. */
function describe({ title, series, ...chart }: Chart): string {
  const lines = series.flatMap(({ name, points, style }) => {
    const finite = points.filter(([, value]) => Number.isFinite(value))
    const [first, last] = [finite[0], finite.at(-1)]
    if (first === undefined || last === undefined || style === 'dashed') return []
    return `${name} from ${formatValue(first[1], chart)} at step ${first[0]} to ${formatValue(last[1], chart)} at step ${last[0]}`
  })
  return `${title}: ${lines.join('; ')}`
}

function formatValue(value: number, { percent = false }: { readonly percent?: boolean }): string {
  return percent ? `${Number((value * 100).toFixed(1))} %` : formatNumber(value)
}

function colorOf({ color }: Series, index: number): number {
  return (color ?? index) % colors
}

/** A share of the drawing's side in its own units. */
function across(share: number): number {
  return Number((share * 1000).toFixed(1))
}

function percentage(share: number): string {
  return `${Number((share * 100).toFixed(2))}%`
}

function shorten(value: number): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(5)) : null
}

function roundOff(value: number): number {
  return Number(value.toPrecision(12))
}

export const chartStyle = `
:root { --c0: #2466d1; --c1: #d9480f; --c2: #2b8a3e; --c3: #a832c1; --c4: #a67c00; --c5: #0b8599; --c6: #d6246e; --c7: #5f3dc4; --c8: #7a5a3a; --c9: #6c757d }
@media (prefers-color-scheme: dark) {
  :root { --c0: #74a9ff; --c1: #ff9457; --c2: #69db7c; --c3: #e599f7; --c4: #ffd43b; --c5: #3bc9db; --c6: #ff80ab; --c7: #b197fc; --c8: #d3a97c; --c9: #adb5bd }
}
${Array.from({ length: colors }, (_, index) => `.c${index} { --color: var(--c${index}) }`).join('\n')}
figure { margin: 0; min-width: 0; padding: 14px 16px; background: var(--card); border: 1px solid var(--line); border-radius: 10px }
figcaption p { margin: 2px 0 10px; color: var(--soft); font-size: 13px }
.plot { position: relative; height: 220px; margin: 16px 10px 28px 46px; touch-action: pan-y; cursor: crosshair }
.plot:focus-visible { outline: 2px solid var(--c0); outline-offset: 4px }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible }
.plot path { fill: none; stroke: var(--color); stroke-width: 2; stroke-linejoin: round; vector-effect: non-scaling-stroke; transition: opacity .15s }
.plot path.grid { stroke: var(--line); stroke-width: 1 }
.plot path.thin { stroke-width: 1; opacity: .4 }
.plot path.dot { stroke-width: 6; stroke-linecap: round }
.plot path.dashed { stroke-width: 1.5; stroke-dasharray: 6 5 }
.plot.picked path:not(.grid):not(.pick) { opacity: .12 }
.plot span { position: absolute; color: var(--soft); font-size: 12px; line-height: 1; font-variant-numeric: tabular-nums; white-space: nowrap }
.plot .y { right: calc(100% + 8px); transform: translateY(50%) }
.plot .x { top: calc(100% + 9px); transform: translateX(-50%) }
.cursor { position: absolute; top: 0; bottom: 0; width: 0; border-left: 1px solid var(--soft); pointer-events: none }
.tip { position: absolute; top: 4px; z-index: 1; padding: 1px 8px; background: var(--card); border: 1px solid var(--line); border-radius: 6px; box-shadow: 0 2px 8px #0003; font-size: 12px; line-height: 1.5; pointer-events: none; white-space: nowrap; font-variant-numeric: tabular-nums }
.key { display: inline-block; width: 14px; margin-right: 6px; border-top: 3px solid var(--color); border-radius: 2px; vertical-align: middle }
.key.thin { border-top-width: 1px; opacity: .6 }
.key.dashed { width: 19px; border-top: 2px dashed var(--color); border-radius: 0 }
.legend { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0; padding: 0; list-style: none; font-size: 13px }
.legend li { cursor: default }
.legend b { font-weight: 600; font-variant-numeric: tabular-nums }
`

/** Runs in the page: values under the pointer (or at the arrow keys), one series picked out by its name in the legend. */
export const chartScript = `
for (const figure of document.querySelectorAll('figure')) {
  const plot = figure.querySelector('.plot'), cursor = plot.querySelector('.cursor'), tip = plot.querySelector('.tip')
  const { end, percent, series } = JSON.parse(figure.querySelector('script').textContent)
  const steps = [...new Set(series.flatMap(({ points }) => points.map(([step]) => step)))].sort((a, b) => a - b)
  const nearest = (list, at, stepOf) => list.reduce((best, one) => Math.abs(stepOf(one) - at) < Math.abs(stepOf(best) - at) ? one : best)
  const words = (value) => value === null ? 'not finite' : percent ? Number((value * 100).toFixed(1)) + ' %' : value !== 0 && Math.abs(value) < 1e-3 ? Number(value.toPrecision(4)).toExponential() : String(Number(value.toPrecision(4)))
  const values = Array.from(figure.querySelectorAll('.legend li'), (item) => item.querySelector('b')), last = values.map((value) => value.textContent)
  let shown
  const show = (step) => {
    shown = step
    tip.textContent = 'step ' + step
    for (const { item, points } of series) {
      const [at, value] = nearest(points, step, (point) => point[0])
      values[item].textContent = words(value) + (at === step ? '' : ' at ' + at)
    }
    cursor.hidden = tip.hidden = false
    const share = step / end
    cursor.style.left = share * 100 + '%'
    tip.style.left = share < 0.5 ? 'calc(' + share * 100 + '% + 10px)' : 'auto'
    tip.style.right = share < 0.5 ? 'auto' : 'calc(' + (1 - share) * 100 + '% + 10px)'
  }
  const hide = () => {
    cursor.hidden = tip.hidden = true
    values.forEach((value, index) => { value.textContent = last[index] })
  }
  const point = (event) => {
    const { left, width } = plot.getBoundingClientRect()
    show(nearest(steps, (event.clientX - left) / width * end, (step) => step))
  }
  plot.addEventListener('pointermove', point)
  plot.addEventListener('pointerdown', point)
  plot.addEventListener('pointerleave', hide)
  plot.addEventListener('blur', hide)
  plot.addEventListener('keydown', ({ key }) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[key]
    if (move === undefined) return
    const index = shown === undefined ? (move > 0 ? 0 : steps.length - 1) : steps.indexOf(shown) + move
    show(steps[Math.min(steps.length - 1, Math.max(0, index))])
  })
  for (const item of figure.querySelectorAll('.legend li')) {
    const pick = (on) => () => {
      plot.classList.toggle('picked', on)
      for (const path of plot.querySelectorAll('path.c' + item.dataset.color)) path.classList.toggle('pick', on)
    }
    item.addEventListener('pointerenter', pick(true))
    item.addEventListener('pointerleave', pick(false))
  }
}
`
