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

/** Skipped samples that are told one by one; the rest is only counted. */
const skipsTold = 3

/** Shows a run on `terminal`; `now` gives milliseconds. */
export function trainingProgress(
  recipe: Pick<Recipe, 'name' | 'stage' | 'steps'>,
  { terminal, folder, now = () => performance.now() }: { terminal: Terminal; folder: string; now?: () => number },
): TrainingProgress {
  let begun = { step: 0, at: now() }
  let skipped = 0
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
        skipped++
        if (skipped <= skipsTold) line(`Skipped sample ${printable(event.sample)}: ${printable(event.reason)}`)
        break
      case 'end': {
        const without = event.skipped > 0 ? `, ${event.skipped} samples skipped` : ''
        bar = ''
        clearStatus(terminal)
        if (event.step < recipe.steps) break // interrupted: the command says how to go on
        line(`${event.step} steps done in ${formatSeconds(event.seconds)}${without}`)
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
