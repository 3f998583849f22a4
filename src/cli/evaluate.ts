/** `llava evaluate [MODEL]`: the picturebook benchmark, each skill beside the score of a blank picture. */

import type { Command } from 'commander'
import { evaluatePicturebook, type PicturebookReport } from '../evaluation/picturebook.ts'
import type { Share } from '../evaluation/statistics.ts'
import { type Split, splits } from '../picturebook/splits.ts'
import type { CommandContext } from './context.ts'
import { addModelOptions, type ModelOptions, withModel } from './model-options.ts'
import { objectRange, oneOf, wholeNumber } from './options.ts'
import { clearStatus, drawStatus, paint, progressBar, writeLine } from './terminal.ts'

type EvaluateOptions = ModelOptions & {
  scenes: number
  split: Split
  seed: number
  blind: boolean
  json?: boolean
  objects?: readonly [number, number]
}

export function addEvaluateCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('evaluate')
    .description('score a model on picturebook scenes it has not seen, with and without the picture')
    .option('--scenes <n>', 'scenes, one question of each skill about each', wholeNumber('--scenes', { from: 1 }), 200)
    .option('--split <name>', splits.join(', '), oneOf('--split', splits), 'iid' as Split)
    .option('--seed <n>', 'other scenes of the same split', wholeNumber('--seed', { from: 0, to: 9 }), 0)
    .option('--objects <min-max>', 'things in a picture (default: 1-4)', objectRange)
    .option('--no-blind', 'leave out the blank picture, which takes half of the time')
    .option('--json', 'print one JSON object')
  addModelOptions(command)
    .addHelpText(
      'after',
      `
Examples:
  $ llava evaluate --scenes 500
  $ llava evaluate --scenes 200 --objects 5-8
  $ llava evaluate --model runs/picturebook-instruction-tuning/model --split held-out-style`,
    )
    .action((options: EvaluateOptions) => evaluate(options, context))
}

async function evaluate(options: EvaluateOptions, context: CommandContext): Promise<void> {
  const { stdout, stderr, watch } = context
  await withModel(options, context, async (llava, { name }) => {
    const started = performance.now()
    const answerer = async (question: Parameters<Parameters<typeof evaluatePicturebook>[0]>[0]) => {
      const { answer } = await llava.ask({
        image: question.picture,
        question: question.question,
        temperature: 0,
        maxTokens: 80,
        signal: watch.signal,
      })
      return answer
    }
    const report = await evaluatePicturebook(answerer, {
      scenes: options.scenes,
      side: llava.config.vision.imageSide,
      split: options.split,
      seed: options.seed,
      blind: options.blind,
      ...(options.objects && { objects: options.objects }),
      signal: watch.signal,
      onProgress: ({ scenes, right, asked }) => {
        const bar = progressBar(scenes / options.scenes, { width: 24 })
        drawStatus(stderr, `${bar} ${scenes} of ${options.scenes} scenes, ${percent(right / asked)} right`)
      },
    }).finally(() => clearStatus(stderr))
    const seconds = (performance.now() - started) / 1000
    if (options.json)
      writeLine(
        stdout,
        JSON.stringify({
          benchmark: 'picturebook',
          model: name,
          precision: llava.precision.precision,
          device: llava.device,
          seconds,
          ...report,
        }),
      )
    else {
      const [head = '', ...rows] = reportTable(report)
      writeLine(stdout, `${name}, split ${report.split}, ${report.scenes} scenes, ${seconds.toFixed(0)} s`)
      writeLine(stdout, paint(stdout, 'bold', head))
      for (const row of rows) writeLine(stdout, row)
    }
  })
}

/** Aligned lines: each skill with its share of right answers, the 95 % interval, the same blind, and the number of questions. */
function reportTable({ skills, existence, counts, descriptions }: PicturebookReport): string[] {
  const rows = [['skill', 'right', '95 % interval', 'blind', 'questions']]
  for (const { skill, blind, mirrored: _, ...share } of skills) {
    rows.push([
      skill,
      percent(share.share),
      interval(share),
      blind === undefined ? '' : percent(blind.share),
      `${share.all}`,
    ])
  }
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0))
  const lines = rows.map((row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(width(0)) : cell.padStart(width(column)))).join('  '),
  )
  const negatives = Object.entries(existence.byNegative).map(([kind, share]) => `${kind} ${percent(share.share)}`)
  lines.push(`existence: F1 ${percent(existence.f1)}, yes said ${percent(existence.yesRatio)} of the time`)
  if (negatives.length > 0) lines.push(`absent things rightly denied: ${negatives.join(', ')}`)
  const numbers = Object.entries(counts).map(([number, share]) => `${number}: ${percent(share.share)}`)
  if (numbers.length > 0) lines.push(`counts by the true number: ${numbers.join(', ')}`)
  const mirrors = skills.flatMap(({ skill, mirrored }) => (mirrored ? [`${skill} ${percent(mirrored.share)}`] : []))
  if (mirrors.length > 0) lines.push(`right in the mirror image as well: ${mirrors.join(', ')}`)
  if (descriptions.descriptions > 0) {
    const { f1, chairI, chairS } = descriptions
    lines.push(
      `things in detailed descriptions: F1 ${percent(f1)}, invented ${percent(chairI)} of those named (CHAIR-i), in ${percent(chairS)} of descriptions (CHAIR-s)`,
    )
  }
  return lines
}

function percent(share: number): string {
  return Number.isNaN(share) ? '-' : `${(100 * share).toFixed(1)} %`
}

function interval({ low, high }: Share): string {
  return `${(100 * low).toFixed(1)} – ${(100 * high).toFixed(1)}`
}
