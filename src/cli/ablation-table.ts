/** The summary of ablations as a table: aligned lines for a terminal, Markdown for a file. */

import type { Share } from '../evaluation/statistics.ts'
import type { Scores, Summary, VariantSummary } from './ablation-results.ts'
import { alignColumns, formatSeconds } from './terminal.ts'

/** Aligned lines, the head first: the share of right answers with its interval, by group of skills, and what it took. */
export function tableLines(summary: Summary): string[] {
  const rows = [
    ['variant', 'right', '95 % interval', 'change', ...Object.keys(summary.groups), 'seeds', 'steps', 'time'],
    ...summary.variants.flatMap((variant) => [
      [
        variant.name,
        percent(variant.all),
        interval(variant.all),
        change(variant),
        ...Object.values(variant.groups).map(percent),
        ...costs(variant),
      ],
      ...blindRow(variant, ({ all, groups }) => [
        percent(all),
        interval(all),
        '',
        ...Object.values(groups).map(percent),
        ...['', '', ''],
      ]),
    ]),
  ]
  return alignColumns(rows)
}

/** A document: the table with an interval in every cell, the same by skill, what each variant asks, and how it was measured. */
export function tableMarkdown(summary: Summary, { source }: { source: string }): string {
  const { variants, groups, scenes, machines } = summary
  const skills = Object.values(groups).flat()
  const byGroup = [
    ['Variant', 'Right', 'Change', ...Object.keys(groups), 'Seeds', 'Steps', 'Time'],
    ...variants.flatMap((variant) => [
      [variant.name, cell(variant.all), change(variant), ...Object.values(variant.groups).map(cell), ...costs(variant)],
      ...blindRow(variant, (blind) => [cell(blind.all), '', ...Object.values(blind.groups).map(cell), '', '', '']),
    ]),
  ]
  const bySkill = [
    ['Variant', ...skills],
    ...variants.flatMap((variant) => [
      [variant.name, ...Object.values(variant.skills).map(cell)],
      ...blindRow(variant, (blind) => Object.values(blind.skills).map(cell)),
    ]),
  ]
  const meaning = Object.entries(groups).map(([group, names]) => `${group} = ${names.join(', ')}`)
  return `# Ablations: ${source}

Right answers in %, mean over seeds, with the 95 % interval in brackets; ${scenes} unseen scenes per seed, one question of each skill about each.
Change: points more or less than the first variant, seed by seed on the same questions. Time: training of one seed.
${summary.interval}. Groups: ${meaning.join('; ')}.

Machine: ${machines.join('; ')}.

${markdownTable(byGroup)}

By skill:

${markdownTable(bySkill)}

What each variant asks:

${variants.map(({ name, asks }) => `- **${name}**: ${asks}`).join('\n')}
`
}

function blindRow({ name, blind }: VariantSummary, cells: (blind: Scores) => string[]): string[][] {
  return blind === undefined ? [] : [[`${name}, blank picture`, ...cells(blind)]]
}

function costs({ seeds, steps, seconds }: VariantSummary): string[] {
  return [seeds.join(','), String(steps), formatSeconds(seconds)]
}

function change({ change: points }: VariantSummary): string {
  return points === undefined ? '' : `${points < 0 ? '−' : '+'}${Math.abs(100 * points).toFixed(1)}`
}

function percent({ all, share }: Share): string {
  return all === 0 ? '-' : (100 * share).toFixed(1)
}

function interval({ low, high }: Share): string {
  return `${(100 * low).toFixed(1)} – ${(100 * high).toFixed(1)}`
}

function cell(share: Share): string {
  return share.all === 0 ? '-' : `${percent(share)} (${interval(share)})`
}

function markdownTable([head = [], ...rows]: readonly string[][]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((text) => text.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map((_, column) => (column === 0 ? '---' : '---:'))), ...rows.map(line)].join('\n')
}
