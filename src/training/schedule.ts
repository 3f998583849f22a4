/** The learning rate over a run: linear warm-up, then a curve down to a floor. */

export type Schedule = {
  readonly curve: 'cosine' | 'linear' | 'constant'
  /** Share of all steps that warm up; the paper's 3 % is 0.03. */
  readonly warmup: number
  /** What remains of the peak at the end, as a share of it; the paper decays to 0. */
  readonly floor: number
}

/** The factor, 0 to 1, on every peak learning rate at `step` (counted from 0) of `steps`. */
export function scheduleFactor(schedule: Schedule, { step, steps }: { step: number; steps: number }): number {
  const warmup = Math.ceil(steps * schedule.warmup)
  if (step < warmup) return (step + 1) / (warmup + 1)
  const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup))
  return schedule.floor + (1 - schedule.floor) * remaining(schedule.curve, progress)
}

function remaining(curve: Schedule['curve'], progress: number): number {
  switch (curve) {
    case 'cosine':
      return (1 + Math.cos(Math.PI * progress)) / 2
    case 'linear':
      return 1 - progress
    case 'constant':
      return 1
  }
}
