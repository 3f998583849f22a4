/**
 * Gradient checkpointing: what it saves in memory and costs in time, at 12 blocks of width 256 over 8 × 512 tokens.
 *
 * Each way of running has processes of its own, because a process never gives back all that it once used; they take turns.
 */

import { type BenchResult, median, rounded, runScript } from './measure.ts'

type Mode = 'kept' | 'recomputed'
type Measured = {
  readonly loss: number
  readonly parameters: number
  /** Milliseconds of each step. */
  readonly times: readonly number[]
  /** Resident bytes: with the weights and the compiled step, at most during the first step, and at most during all. */
  readonly before: number
  readonly first: number
  readonly peak: number
}

export async function checkpointingBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const runs: Record<Mode, Measured[]> = { kept: [], recomputed: [] }
  for (let round = 0; round < (quick ? 1 : 3); round++) {
    for (const mode of ['kept', 'recomputed'] as const) runs[mode].push(await measure(mode, quick ? 1 : 5))
  }
  const of = (mode: Mode, value: (run: Measured) => number) => median(runs[mode].map(value))
  const summaryOf = (mode: Mode) => ({
    mode,
    ms: of(mode, ({ times }) => median(times)),
    first: of(mode, ({ first, before }) => first - before),
    peak: of(mode, ({ peak, before }) => peak - before),
    before: of(mode, ({ before }) => before),
    loss: of(mode, ({ loss }) => loss),
  })
  const [kept, recomputed] = [summaryOf('kept'), summaryOf('recomputed')]
  const mebibytes = (bytes: number) => Math.round(bytes / 2 ** 20)
  return {
    table: [kept, recomputed].map(({ mode, ms, first, peak, before }) => ({
      'inner values': mode,
      'ms per step': Math.round(ms),
      'first step, MiB': mebibytes(first),
      'all steps, MiB': mebibytes(peak),
      'resident before, MiB': mebibytes(before),
    })),
    notes: [
      `Model: 12 LLaMA blocks of width 256, ${runs.kept[0]?.parameters} parameters, batch 8 × 512 tokens; a step is forward and backward.`,
      'Memory: the most that the process ever held, without what it held before the first step; each way in processes of its own.',
      'ONNX Runtime notes during the first step what is needed when, and then takes that much at once, beside what the first step had.',
    ],
    figures: {
      kept: { ms: rounded(kept.ms), first_mib: mebibytes(kept.first), peak_mib: mebibytes(kept.peak) },
      recomputed: {
        ms: rounded(recomputed.ms),
        first_mib: mebibytes(recomputed.first),
        peak_mib: mebibytes(recomputed.peak),
      },
      first_memory_ratio: rounded(recomputed.first / kept.first),
      memory_ratio: rounded(recomputed.peak / kept.peak),
      time_ratio: rounded(recomputed.ms / kept.ms),
      same_loss: kept.loss === recomputed.loss,
    },
  }
}

function measure(mode: Mode, steps: number): Promise<Measured> {
  return runScript('checkpointing-run.ts', [mode, String(steps)])
}
