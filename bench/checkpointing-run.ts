/** One process of the checkpointing bench: trains a few steps and prints what they took. Arguments: kept or recomputed, then steps. */

import { readFileSync } from 'node:fs'
import { time } from './measure.ts'
import { type BenchModel, createBenchStep } from './training-model.ts'

const [mode = '', steps = ''] = process.argv.slice(2)
const model: BenchModel = { depth: 12, width: 256, mlpWidth: 704, heads: 8, vocabulary: 1024, batch: 8, length: 512 }
const checkpointing = mode === 'recomputed'

const { gradients, parameters, flops, dispose } = await createBenchStep(model, { checkpointing })
const before = memory()
const loss = await gradients()
const first = memory()
const times: number[] = []
for (let step = 0; step < Number(steps); step++) times.push(await time(gradients))
const { peak } = memory()
await dispose()
console.log(JSON.stringify({ mode, loss, parameters, flops, times, before: before.now, first: first.peak, peak }))

/** Resident bytes of this process: now, and the most there ever were. */
function memory(): { now: number; peak: number } {
  const status = readFileSync('/proc/self/status', 'utf8')
  const bytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024
  return { now: bytes('VmRSS'), peak: bytes('VmHWM') }
}
