/**
 * Converting a model of 7B shapes: memory and time, and how long the converted model takes to open. The checkpoint has random weights in two float16
 * shards and 2 of 32 layers (1 with --quick): memory depends on the largest tensor, not on how many there are. Opening is measured with all 32.
 */

import { mkdtemp, open, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expectedTensors, toForeign } from '../src/checkpoint/layouts.ts'
import { toHuggingFaceConfig } from '../src/model/config.ts'
import type { ConversionRun } from './conversion-run.ts'
import type { InferenceRun } from './inference-run.ts'
import { type BenchResult, rounded, runScript } from './measure.ts'
import { llava7B } from './shapes.ts'

export async function conversionBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const folder = await mkdtemp(join(process.env.LLAVA_BENCH_FOLDER ?? tmpdir(), 'llava-bench-'))
  try {
    const layers = quick ? 1 : 2
    await writeRandomCheckpoint(join(folder), layers)
    const conversions: ConversionRun[] = []
    for (const precision of ['int8', 'int4', 'mixed']) {
      conversions.push(await runScript<ConversionRun>('conversion-run.ts', [folder, `${layers}`, precision]))
    }
    const whole = await runScript<InferenceRun>('inference-run.ts', ['int4', '32', 'load', '1'])
    const seconds = (ms: number) => rounded(ms / 1000)
    return {
      table: [
        ...conversions.map(({ precision, weights, convertMs, openMs, peak }) => ({
          measured: `${precision}, ${rounded(weights / 1e6)} million weights`,
          'convert, s': seconds(convertMs),
          'open again, s': seconds(openMs),
          'peak memory, GB': rounded(peak / 1e9),
        })),
        {
          measured: 'int4, all 32 layers, converted before',
          'convert, s': '',
          'open again, s': `${seconds(whole.open.ms)}; packed after ${seconds(whole.ready.ms)}`,
          'peak memory, GB': rounded(whole.peak / 1e9),
        },
      ],
      notes: [
        `Shapes of LLaVA-1.5-7B with ${layers} of 32 layers, random weights in float16, two shards; each conversion in a process of its own, whose peak memory is given.`,
        'Open again: from the converted files to compiled graphs; the files were just written, so they are in the memory of the system.',
        'The last line opens random codes of the whole size: open is when a picture can be read, packed when the language model is compiled, which goes on meanwhile.',
      ],
      figures: {
        conversions: conversions.map(({ precision, weights, convertMs, openMs, peak }) => ({
          precision,
          weights,
          convert_s: seconds(convertMs),
          open_s: seconds(openMs),
          peak_gb: rounded(peak / 1e9),
        })),
        open_7b_int4_s: seconds(whole.open.ms),
        packed_7b_int4_s: seconds(whole.ready.ms),
      },
    }
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** config.json and two shards of float16 weights with an index, a piece at a time. */
async function writeRandomCheckpoint(folder: string, layers: number): Promise<void> {
  const config = llava7B({ language: { depth: layers } })
  await writeFile(join(folder, 'config.json'), JSON.stringify(toHuggingFaceConfig(config)))
  const tensors = [...expectedTensors(config)].map(([name, shape]) => [toForeign(name, 'hugging-face'), shape] as const)
  const half = Math.ceil(tensors.length / 2)
  const shards = [tensors.slice(0, half), tensors.slice(half)]
  const placed: [string, string][] = []
  // Halves between 2^−9 and 2^−5 of both signs.
  const noise = Uint16Array.from({ length: 2 ** 22 }, (_, i) => {
    const random = Math.imul(i + 1, 2_654_435_761) >>> 8
    return 0x1800 + (random & 0xfff) + (random & 0x10000 ? 0x8000 : 0)
  })
  for (const [index, shard] of shards.entries()) {
    const file = `model-${index + 1}-of-2.safetensors`
    let offset = 0
    const entries = shard.map(([name, shape]) => {
      placed.push([name, file])
      const start = offset
      offset += 2 * shape.reduce((product, size) => product * size, 1)
      return [name, { dtype: 'F16', shape, data_offsets: [start, offset] }] as const
    })
    const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)))
    const head = Buffer.alloc(8)
    head.writeBigUInt64LE(BigInt(json.length))
    const handle = await open(join(folder, file), 'wx')
    try {
      await handle.write(Buffer.concat([head, json]))
      for (let done = 0; done < offset; ) {
        done += (await handle.write(noise, 0, Math.min(noise.byteLength, offset - done))).bytesWritten
      }
    } finally {
      await handle.close()
    }
  }
  const index = JSON.stringify({ weight_map: Object.fromEntries(placed) })
  await writeFile(join(folder, 'model.safetensors.index.json'), index)
}
