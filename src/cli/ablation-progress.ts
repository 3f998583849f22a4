/** Where a set of runs stands: which run of how many, what it does, and about how long all of it will still take. */

import type { PlannedRun, PlannedStage } from '../training/ablation-plan.ts'
import { clearStatus, drawStatus, formatSeconds, paint, progressBar, type Terminal, writeLine } from './terminal.ts'

/** What is to be done, in units that take about equally long: tokens learned from, scenes asked about. */
export type Work = { readonly tokens: number; readonly scenes: number }

export type Estimate = {
  /** Work of one kind begins: the clock runs for it. */
  readonly begin: (kind: keyof Work) => void
  /** So much of it was done since it began, or since the last such call. */
  readonly done: (amount: number) => void
  /** Of all work that is left; undefined while nothing has been measured. Work of a kind that was not measured yet is not counted. */
  readonly secondsLeft: () => number | undefined
}

/** `now` gives milliseconds. */
export function estimateWork(work: Work, { now = () => performance.now() } = {}): Estimate {
  const left = { ...work }
  const spent = { tokens: { amount: 0, seconds: 0 }, scenes: { amount: 0, seconds: 0 } }
  let kind: keyof Work = 'tokens'
  let since = now()
  return {
    begin: (next) => {
      kind = next
      since = now()
    },
    done: (amount) => {
      left[kind] -= amount
      spent[kind] = { amount: spent[kind].amount + amount, seconds: spent[kind].seconds + (now() - since) / 1000 }
      since = now()
    },
    secondsLeft: () => {
      const measured = (['tokens', 'scenes'] as const).filter((one) => spent[one].amount > 0)
      if (measured.length === 0) return undefined
      return measured.reduce((sum, one) => sum + (left[one] * spent[one].seconds) / spent[one].amount, 0)
    },
  }
}

/** Tokens of one step. Pictures that are learned from as pixels take longer; the estimate says "about". */
export function tokensPerStep({ recipe: { batch, accumulate, length } }: PlannedStage): number {
  return batch * accumulate * length
}

export type AblationProgress = {
  readonly stage: (stage: PlannedStage) => void
  /** Redraws the line where lines can be redrawn. */
  readonly draw: (doing: string, share: number) => void
  readonly result: (text: string) => void
  readonly end: () => void
}

/** Lines about one run, the `number`-th of `count`. */
export function runProgress(
  run: PlannedRun,
  { terminal, number, count, estimate }: { terminal: Terminal; number: number; count: number; estimate: Estimate },
): AblationProgress {
  const name = `${number} of ${count}: ${run.variant.name}, seed ${run.seed}`
  const line = (text: string) => {
    clearStatus(terminal)
    writeLine(terminal, text)
  }
  const left = () => {
    const seconds = estimate.secondsLeft()
    return seconds === undefined ? '' : ` · about ${formatSeconds(seconds)} left for all`
  }
  return {
    stage: (stage) => line(`${name} · ${stage.name}, ${stage.recipe.steps} steps${left()}`),
    draw: (doing, share) => drawStatus(terminal, `${progressBar(share, { width: 20 })} ${name} · ${doing}${left()}`),
    result: (text) => line(paint(terminal, 'bold', `${name} · ${text}`)),
    end: () => clearStatus(terminal),
  }
}
