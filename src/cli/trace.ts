/** `llava trace IMAGE QUESTION --out FILE`: the named intermediates of one prompt, to hold against another implementation. */

import type { Command } from 'commander'
import { writeSafetensors } from '../checkpoint/safetensors-writer.ts'
import { decodeImage } from '../image/decode.ts'
import { readWords } from './ask.ts'
import type { CommandContext } from './context.ts'
import { addModelOptions, type ModelOptions, withModel } from './model-options.ts'
import { expectWritableFile } from './options.ts'
import { paint, quoted, writeLine } from './terminal.ts'

export type NamedArray = { readonly shape: readonly number[]; readonly data: ArrayLike<number> }

export function addTraceCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('trace')
    .description('write every intermediate from pixels to logits into a safetensors file')
    .argument('<image>', 'a picture file')
    .argument('<question>', 'the question')
    .requiredOption('--out <file>', 'the file to write, such as trace.safetensors')
  addModelOptions(command)
    .addHelpText(
      'after',
      `
Example:
  $ llava trace photo.jpg 'What is in the picture?' --out trace.safetensors

The file opens in Python with safetensors.numpy.load_file('trace.safetensors').`,
    )
    .action((image: string, question: string, options: ModelOptions & { out: string }) =>
      trace([image, question], options, context),
    )
}

async function trace(
  words: readonly string[],
  options: ModelOptions & { out: string },
  context: CommandContext,
): Promise<void> {
  const { stdout, watch } = context
  const { pictures, question } = await readWords(words)
  await expectWritableFile('--out', options.out)
  const image = await decodeImage(pictures[0] ?? '', { signal: watch.signal })
  await withModel(options, context, async (llava) => {
    const arrays = await llava.trace({ image, question, signal: watch.signal })
    if (watch.signal.aborted) return
    await writeSafetensors(options.out, arrays, { metadata: { question } })
    const [head = '', ...rows] = traceTable(arrays)
    writeLine(stdout, paint(stdout, 'bold', head))
    for (const row of rows) writeLine(stdout, row)
    writeLine(stdout, `${arrays.size} arrays in ${quoted(options.out)}`)
  })
}

type Row = readonly [name: string, shape: string, mean: string, deviation: string]

/** Aligned lines: name, shape, mean and standard deviation of each array. */
export function traceTable(arrays: ReadonlyMap<string, NamedArray>): string[] {
  const rows: Row[] = [['name', 'shape', 'mean', 'std']]
  for (const [name, { shape, data }] of arrays) {
    const { mean, deviation } = momentsOf(data)
    rows.push([name, `[${shape.join(', ')}]`, mean.toFixed(5), deviation.toFixed(5)])
  }
  const width = (column: 0 | 1 | 2 | 3) => Math.max(...rows.map((row) => row[column].length))
  return rows.map(([name, shape, mean, deviation]) =>
    [name.padEnd(width(0)), shape.padEnd(width(1)), mean.padStart(width(2)), deviation.padStart(width(3))].join('  '),
  )
}

function momentsOf(data: ArrayLike<number>): { mean: number; deviation: number } {
  let sum = 0
  for (let i = 0; i < data.length; i++) sum += data[i] ?? 0
  const mean = sum / data.length
  let squares = 0
  for (let i = 0; i < data.length; i++) squares += ((data[i] ?? 0) - mean) ** 2
  return { mean, deviation: Math.sqrt(squares / data.length) }
}
