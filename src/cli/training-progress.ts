/** The events of a training run in words: a bar that is redrawn on a terminal, a line per event elsewhere. */

import type { Recipe } from '../training/recipe.ts'
import type { TrainingEvent } from '../training/run.ts'
import {
  clearStatus,
  drawStatus,
  formatCount,
  formatSeconds,
  paint,
  printable,
  progressBar,
  type Terminal,
  writeLine,
} from './terminal.ts'

export type TrainingProgress = {
  readonly show: (event: TrainingEvent) => void
  /** Takes the bar away. Safe to repeat. */
  readonly end: () => void
}

/** Skipped samples that are told as they come; the end lists more. */
const skipsTold = 3
const skipsListed = 10

/** Shows a run on `terminal`; `now` gives milliseconds. */
export function trainingProgress(
  recipe: Pick<Recipe, 'name' | 'stage' | 'steps'>,
  { terminal, folder, now = () => performance.now() }: { terminal: Terminal; folder: string; now?: () => number },
): TrainingProgress {
  let begun = { step: 0, at: now() }
  const skipped = new Map<string, { reason: string; times: number }>()
  let bar = ''
  const line = (text: string) => {
    clearStatus(terminal)
    writeLine(terminal, text)
    drawStatus(terminal, bar)
  }
  const show = (event: TrainingEvent) => {
    switch (event.type) {
      case 'start': {
        begun = { step: event.step, at: now() }
        const from = event.step > 0 ? `, going on after step ${event.step}` : ''
        line(
          `Training ${paint(terminal, 'bold', recipe.name)} (stage ${recipe.stage}), ${event.steps} steps, in ${folder}${from}`,
        )
        line(describeWeights(event))
        break
      }
      case 'step': {
        const left = ((now() - begun.at) / (event.step - begun.step)) * (recipe.steps - event.step)
        bar = progressLine(event, { terminal, steps: recipe.steps, secondsLeft: left / 1000 })
        if (terminal.live) drawStatus(terminal, bar)
        else writeLine(terminal, bar)
        break
      }
      case 'validation':
        line(describeValidation(event))
        break
      case 'checkpoint':
        if (!terminal.live) writeLine(terminal, `step ${event.step}: wrote ${event.path}`)
        break
      case 'skipped':
        skipped.set(event.sample, { reason: event.reason, times: (skipped.get(event.sample)?.times ?? 0) + 1 })
        if (skipped.size <= skipsTold && skipped.get(event.sample)?.times === 1) {
          line(`Skipped sample ${printable(event.sample)}: ${printable(event.reason)}`)
        }
        break
      case 'answers':
        line(describeAnswers(event))
        break
      case 'notice':
        line(printable(event.text))
        break
      case 'end': {
        const without = event.skipped > 0 ? `, ${event.skipped} samples skipped (log.jsonl has all)` : ''
        bar = ''
        clearStatus(terminal)
        if (event.step < recipe.steps) break // interrupted: the command says how to go on
        line(`${event.step} steps done in ${formatSeconds(event.seconds)}${without}`)
        for (const text of listSkips(skipped)) line(text)
        break
      }
    }
  }
  return {
    show,
    end: () => {
      if (bar !== '') clearStatus(terminal)
      bar = ''
    },
  }
}

type StepEvent = Extract<TrainingEvent, { type: 'step' }>

function progressLine(
  { step, loss, picturesPerSecond }: StepEvent,
  { terminal, steps, secondsLeft }: { terminal: Terminal; steps: number; secondsLeft: number },
): string {
  const rate = picturesPerSecond < 10 ? picturesPerSecond.toFixed(1) : picturesPerSecond.toFixed(0)
  const left = step === steps ? '' : ` · ${formatSeconds(secondsLeft)} left`
  const figures = `loss ${loss.toFixed(4)} · ${rate} pictures/s${left}`
  if (!terminal.live) return `step ${step}/${steps} · ${figures}`
  const width = Math.min(30, terminal.columns() - figures.length - 24)
  const drawn = width >= 5 ? `${progressBar(step / steps, { width })} ` : ''
  return `${drawn}${step}/${steps} · ${figures}`
}

function describeWeights({ trained, frozen }: Extract<TrainingEvent, { type: 'start' }>): string {
  const parts = Object.entries(trained).map(([part, count]) => `${part} ${formatCount(count)}`)
  return `  learning: ${parts.join(', ')} weights${frozen > 0 ? ` · frozen: ${formatCount(frozen)}` : ''}`
}

function describeValidation({ step, loss, accuracy }: Extract<TrainingEvent, { type: 'validation' }>): string {
  const shares = Object.entries(accuracy).map(([skill, share]) => `${skill} ${(100 * share).toFixed(1)} %`)
  return [`step ${step}: validation loss ${loss.toFixed(4)}`, ...shares].join(' · ')
}

function describeAnswers({ step, answers, accuracy }: Extract<TrainingEvent, { type: 'answers' }>): string {
  const shares = Object.entries(accuracy).map(([skill, share]) => `${skill} ${(100 * share).toFixed(1)} %`)
  const first = answers[0] === undefined ? [] : [`for example "${shortened(printable(answers[0].text))}"`]
  return [`step ${step}: answered ${answers.length} questions by itself`, ...(shares.length > 0 ? shares : first)].join(
    ' · ',
  )
}

/** A line for each sample that was skipped since the command began, however often; the first few of many. */
function listSkips(skipped: ReadonlyMap<string, { reason: string; times: number }>): string[] {
  const lines = Array.from(skipped, ([sample, { reason, times }]) => {
    const often = times > 1 ? ` (${times} times)` : ''
    return `  skipped ${printable(sample)}${often}: ${printable(reason)}`
  })
  const more = lines.length > skipsListed ? [`  and ${lines.length - skipsListed} more`] : []
  return [...lines.slice(0, skipsListed), ...more]
}

function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 59)}…` : text
}
