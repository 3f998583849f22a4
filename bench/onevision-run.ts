/**
 * One run of the OneVision bench in a process of its own, whose memory is then that of the model alone: `node onevision-run.ts single|batch ROUNDS`.
 * The last line is a JSON document.
 */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { compileSupplied, disposeModel, whenCompiled } from '../src/generation/compiled-model.ts'
import { suppliedFrom } from '../src/generation/stored-weights.ts'
import { type InferenceRun, measureBatch, measureSingle, stopwatch, writeRandomWeights } from './inference-run.ts'
import { peakMemory } from './measure.ts'
import { oneVision05B } from './shapes.ts'

export const precision = 'mixed' // what auto takes for a model of this size

const [mode = 'single', rounds = '1'] = process.argv.slice(2)
if (process.argv[1]?.endsWith('onevision-run.ts')) console.log(JSON.stringify(await oneRun(mode, Number(rounds))))

async function oneRun(mode: string, rounds: number): Promise<InferenceRun> {
  const config = oneVision05B({ language: { context: 2048 } })
  const folder = await mkdtemp(join(process.env.LLAVA_BENCH_FOLDER ?? tmpdir(), 'llava-bench-'))
  try {
    const path = join(folder, 'weights.bin')
    const parts = await writeRandomWeights(path, { config, precision })
    const since = stopwatch()
    const weights = await suppliedFrom(path, parts)
    const model = await compileSupplied({ config, weights, precision }, { threads: 2 })
    const open = since()
    await whenCompiled(model)
    const ready = since()
    const measured = mode === 'batch' ? await measureBatch(model) : await measureSingle(model, rounds)
    await disposeModel(model)
    return {
      open,
      ready,
      ...measured,
      weights: parts.reduce((sum, { bytes }) => sum + bytes, 0),
      peak: await peakMemory(),
    }
  } finally {
    await rm(folder, { recursive: true })
  }
}
