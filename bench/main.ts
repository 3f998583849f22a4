/**
 * Runs a bench: a table for people, and one JSON document as the last line.
 *
 *     npm run bench -- engine
 *     npm run bench -- train --quick                     fewer repetitions
 *     npm run bench -- instruction-data --rows 1000000   so many rows, where a bench has rows
 */

import { checkpointingBench } from './checkpointing.ts'
import { conversionBench } from './conversion.ts'
import { engineBench } from './engine.ts'
import { inferenceBench } from './inference.ts'
import { instructionDataBench } from './instruction-data.ts'
import { type BenchResult, surroundings } from './measure.ts'
import { oneVisionBench } from './onevision.ts'
import { precisionBench } from './precision.ts'
import { trainBench } from './train.ts'
import { transformersJsBench } from './transformers-js.ts'
import { webGpuBench } from './webgpu.ts'

type BenchOptions = { readonly quick: boolean; readonly rows: number | undefined }
type Bench = { readonly about: string; readonly run: (options: BenchOptions) => Promise<BenchResult> }

const benches: Readonly<Record<string, Bench>> = {
  engine: { about: 'training step and cached attention, against what the machine can do', run: engineBench },
  checkpointing: { about: 'memory and time with inner values kept or computed again', run: checkpointingBench },
  conversion: { about: 'memory and time of converting a 7B model, and of opening it again', run: conversionBench },
  inference: { about: 'answering with a 7B model, against the machine and llama.cpp', run: inferenceBench },
  'instruction-data': {
    about: 'instruction data from COCO files: time a row apart from the teacher, and memory',
    run: instructionDataBench,
  },
  onevision: { about: 'answering with the whole of OneVision-0.5B, against llama.cpp', run: oneVisionBench },
  precision: { about: 'what fewer bits per weight do to the answers', run: precisionBench },
  'transformers-js': {
    about: 'answering with our export in transformers.js, and without it',
    run: transformersJsBench,
  },
  train: { about: 'the whole trainer, against the matmul rate and PyTorch', run: trainBench },
  webgpu: { about: 'answering with a 7B model on a GPU, against what the GPU can do', run: webGpuBench },
}

const [name = '', ...flags] = process.argv.slice(2)
const bench = Object.hasOwn(benches, name) ? benches[name] : undefined
if (bench === undefined) {
  console.error(name === '' ? 'Which bench?' : `There is no bench ${JSON.stringify(name)}`)
  for (const [known, { about }] of Object.entries(benches)) console.error(`  npm run bench -- ${known}    ${about}`)
  process.exitCode = 1
} else {
  const before = surroundings()
  const { table, notes, figures } = await bench.run({ quick: flags.includes('--quick'), rows: rowsIn(flags) })
  printTable(table)
  for (const note of notes) console.log(`- ${note}`)
  const { load_average } = surroundings()
  console.log(JSON.stringify({ bench: name, ...figures, machine: { ...before, load_average_after: load_average } }))
}

/** @throws RangeError unless `--rows` is followed by a whole number */
function rowsIn(words: readonly string[]): number | undefined {
  const at = words.indexOf('--rows')
  if (at < 0) return undefined
  const text = words[at + 1] ?? ''
  if (/^[1-9]\d*$/.test(text)) return Number(text)
  throw new RangeError(`Cannot use --rows ${text || "''"}: expected a whole number from 1`)
}

function printTable(table: BenchResult['table']): void {
  const header = Object.keys(table[0] ?? {})
  const lines = [header, ...table.map((row) => header.map((column) => String(row[column] ?? '')))]
  const widths = header.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  for (const line of lines)
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
}
