/**
 * Instruction data from made-up COCO files, with the offline teacher: what the pipeline costs a row apart from the teacher, and how much memory it takes.
 *
 *     npm run bench -- instruction-data --rows 1000000
 */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { InstructionDataRun } from './instruction-data-run.ts'
import { writeMadeUpCoco } from './made-up-coco.ts'
import { type BenchResult, rounded, runScript } from './measure.ts'

const usualRows = 20_000
const quickRows = 1000

export async function instructionDataBench({
  quick,
  rows: pictures = quick ? quickRows : usualRows,
}: {
  quick: boolean
  rows: number | undefined
}): Promise<BenchResult> {
  const folder = await mkdtemp(join(process.env.LLAVA_BENCH_FOLDER ?? tmpdir(), 'llava-bench-'))
  try {
    await writeMadeUpCoco(folder, pictures)
    const first = await run(folder, 'generate', pictures)
    const again = await run(folder, 'generate', pictures)
    const teacher = await run(folder, 'teacher', pictures)
    const perRow = ({ cpuMs, rows: count }: InstructionDataRun) => cpuMs / count
    const rest = perRow(first) - perRow(teacher)
    const line = (measured: string, { cpuMs, wallMs, peak, rows: count }: InstructionDataRun) => ({
      measured,
      rows: count,
      'processor, ms a row': rounded(cpuMs / count),
      'time, s': rounded(wallMs / 1000),
      'peak memory, MB': rounded(peak / 1e6),
    })
    return {
      table: [
        line('generate, from COCO files to data', first),
        line('of it the rules teacher alone', teacher),
        {
          measured: 'the rest: the pipeline',
          rows: first.rows,
          'processor, ms a row': rounded(rest),
          'time, s': '',
          'peak memory, MB': '',
        },
        line('the same command again, all answered', again),
      ],
      notes: [
        `${pictures} made-up pictures with five captions and four boxes each, a response for each; every line in a process of its own.`,
        'Processor: user and system time of all threads, without the start of the program; other work on the machine changes it less than the time on the clock.',
        'The teacher was asked alone about at most 20,000 of the same tasks.',
      ],
      figures: {
        rows: first.rows,
        pipeline_ms_per_row: rounded(rest),
        generate: figuresOf(first),
        teacher: figuresOf(teacher),
        again: figuresOf(again),
      },
    }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function figuresOf({ rows, cpuMs, wallMs, peak }: InstructionDataRun) {
  return { rows, cpu_ms_per_row: rounded(cpuMs / rows), seconds: rounded(wallMs / 1000), peak_mb: rounded(peak / 1e6) }
}

function run(folder: string, what: 'generate' | 'teacher', rows: number): Promise<InstructionDataRun> {
  return runScript('instruction-data-run.ts', [folder, what, String(rows)])
}
