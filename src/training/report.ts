/** The report of a training run: its log and recipe as one HTML page that needs nothing else, not even a network. */

import { z } from 'zod'
import { tellWrongFields } from '../wrong-fields.ts'
import { chartFigure, chartScript, chartStyle, escapeHtml, formatNumber, type Point } from './report-chart.ts'
import { chartsOf, halfLifeOf, smooth } from './report-curves.ts'
import { gallerySection, galleryStyle } from './report-gallery.ts'
import type { Pace } from './run-folder.ts'
import { isGroup, type RunLog } from './run-log.ts'

/** What the page needs of a recipe; the rest goes into its table as it is. */
const recipeSchema = z.looseObject({
  name: z.string(),
  stage: z.string(),
  steps: z.number().int().positive(),
  rates: z.record(z.string(), z.number()),
  optimizer: z.looseObject({ clip: z.number().positive() }).optional(),
})

const skipsListed = 100

/**
 * The whole page.
 * @param recipe the content of recipe.json
 * @param options `paces`: how fast the run went; `pictures`: PNG bytes of the samples that the model was asked about, by their names in the log
 * @throws TypeError when the recipe lacks its name, stage, steps or rates
 */
export function reportPage(
  recipe: unknown,
  log: RunLog,
  { paces = [], pictures = new Map() }: { paces?: readonly Pace[]; pictures?: ReadonlyMap<string, Uint8Array> } = {},
): string {
  const found = recipeSchema.safeParse(recipe)
  if (!found.success) throw new TypeError(`Cannot use the recipe of the run: ${tellWrongFields(found.error, recipe)}`)
  const { name, stage } = found.data
  const settings = isGroup(recipe) ? recipe : found.data // in the order of the file
  const figures = chartsOf(found.data, log, { paces }).map(chartFigure).filter(Boolean)
  const empty =
    figures.length === 0
      ? '<p class="empty">Nothing is logged yet: the run has not come to its first log line.</p>'
      : ''
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<title>${escapeHtml(name)}: training report</title>
<style>${pageStyle}${chartStyle}${galleryStyle}</style>
</head>
<body>
<header><h1>${escapeHtml(name)}</h1><p>Training report, stage ${escapeHtml(stage)}</p></header>
<dl class="summary">${summaryOf(found.data, log, { paces })
    .map(([what, figure, note]) => `<div><dt>${what}</dt><dd>${figure}<small>${note}</small></dd></div>`)
    .join('')}</dl>
${empty}<main>${figures.join('\n')}</main>
${gallerySection(log, { pictures })}
${skippedSection(log.skipped)}
<section><h2>Recipe</h2><table>${recipeRows(settings)
    .map(([key, text]) => `<tr><th scope="row">${escapeHtml(key)}</th><td>${escapeHtml(text)}</td></tr>`)
    .join('')}</table></section>
<script>${chartScript}</script>
</body>
</html>
`
}

/** A recipe as rows: nested settings by their dotted names, a group of plain values in one row. */
export function recipeRows(group: Readonly<Record<string, unknown>>, prefix = ''): [name: string, text: string][] {
  return Object.entries(group).flatMap(([key, setting]): [string, string][] => {
    const name = `${prefix}${key}`
    if (isGroup(setting) && Object.values(setting).some((inner) => typeof inner === 'object' && inner !== null)) {
      return recipeRows(setting, `${name}.`)
    }
    return [[name, settingText(setting)]]
  })
}

type ReportRecipe = z.infer<typeof recipeSchema>

function summaryOf(
  recipe: ReportRecipe,
  { steps, validations, answers, skipped }: RunLog,
  { paces }: { paces: readonly Pace[] },
): [string, string, string][] {
  const last = Math.max(0, steps.at(-1)?.step ?? 0, validations.at(-1)?.step ?? 0)
  const raw = steps.map((one): Point => [one.step, one.loss])
  const training = smooth(raw, { halfLife: halfLifeOf(raw.length) }).at(-1)
  const finite = validations.filter(({ loss }) => Number.isFinite(loss))
  const best = finite.reduce<RunLog['validations'][number] | undefined>(
    (low, one) => (low === undefined || one.loss < low.loss ? one : low),
    undefined,
  )
  const said = answers.at(-1)?.answers.flatMap(({ right }) => right ?? [])
  const seconds = paces.at(-1)?.seconds
  return [
    ['Step', String(last), `of ${recipe.steps}`],
    ...(training === undefined
      ? []
      : [['Training loss', formatNumber(training[1]), 'smoothed'] as [string, string, string]]),
    ...(best === undefined
      ? []
      : [['Best validation loss', formatNumber(best.loss), `at step ${best.step}`] as [string, string, string]]),
    ...(said === undefined || said.length === 0
      ? []
      : [
          [
            'Right by itself',
            `${said.filter(Boolean).length} of ${said.length}`,
            `at step ${answers.at(-1)?.step}`,
          ] as [string, string, string],
        ]),
    ...(seconds === undefined ? [] : [['Time', formatDuration(seconds), ''] as [string, string, string]]),
    ['Skipped samples', String(skipped.length), ''],
  ]
}

function skippedSection(skipped: RunLog['skipped']): string {
  if (skipped.length === 0) return ''
  const rows = skipped.slice(0, skipsListed).map(({ sample, reason }) => {
    return `<tr><th scope="row">${escapeHtml(sample)}</th><td>${escapeHtml(reason)}</td></tr>`
  })
  const rest =
    skipped.length > skipsListed ? `<p>The first ${skipsListed} of ${skipped.length}; log.jsonl has all.</p>` : ''
  return `<section><h2>Skipped samples</h2><table>${rows.join('')}</table>${rest}</section>`
}

function formatDuration(seconds: number): string {
  const [hours, minutes, rest] = [
    Math.floor(seconds / 3600),
    Math.floor((seconds % 3600) / 60),
    Math.floor(seconds % 60),
  ]
  if (hours > 0) return `${hours} h ${minutes} min`
  return minutes > 0 ? `${minutes} min ${rest} s` : `${rest} s`
}

function settingText(setting: unknown): string {
  if (Array.isArray(setting)) return setting.map(settingText).join(', ')
  if (!isGroup(setting)) return String(setting)
  const inner = Object.entries(setting).map(([key, one]) => `${key} ${settingText(one)}`)
  return inner.length === 0 ? 'none' : inner.join(', ')
}

const pageStyle = `
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1c2127; --soft: #5f6872; --line: #dfe3e8 }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --card: #1c2026; --ink: #e8eaed; --soft: #9aa4af; --line: #323941 } }
* { box-sizing: border-box }
body { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
h1 { margin: 0; font-size: 26px; line-height: 1.2; overflow-wrap: anywhere }
h2 { margin: 0; font-size: 16px }
header p { margin: 4px 0 0; color: var(--soft) }
.summary { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 10px; margin: 18px 0 }
.summary div { padding: 10px 14px; background: var(--card); border: 1px solid var(--line); border-radius: 10px }
.summary dt { color: var(--soft); font-size: 13px }
.summary dd { margin: 0; font-size: 22px; font-weight: 600; font-variant-numeric: tabular-nums }
.summary small { display: inline-block; margin-left: 6px; color: var(--soft); font-size: 13px; font-weight: 400 }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 14px }
section { margin-top: 28px }
table { width: 100%; margin-top: 8px; border-collapse: collapse; background: var(--card); border: 1px solid var(--line); font-size: 14px }
th, td { padding: 5px 12px; border-top: 1px solid var(--line); text-align: left; vertical-align: top; overflow-wrap: anywhere }
th { width: 34%; color: var(--soft); font-weight: 500 }
`
