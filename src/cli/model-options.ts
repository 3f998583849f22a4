/** Options that all commands with a model share, and the model they open. */

import type { Command } from 'commander'
import { type CacheType, cacheTypes } from '../generation/kv-cache.ts'
import { type Precision, precisions } from '../generation/precision.ts'
import { Llava } from '../llava.ts'
import { type Device, devices } from '../runtime/device.ts'
import type { CommandContext } from './context.ts'
import { decimalNumber, oneOf, threadCount, wholeNumber } from './options.ts'
import { clearStatus, drawStatus, formatSeconds, paint, printable, progressBar, writeLine } from './terminal.ts'

export type ModelOptions = {
  model?: string
  threads?: number
  device?: Device
  precision?: Precision | 'auto'
  pictureCache?: boolean
  kvCache?: CacheType
}

export type SamplingChoices = {
  maxTokens?: number
  temperature?: number
  topP?: number
  topK?: number
  seed?: number
  lookup?: boolean
}

export function addModelOptions(command: Command): Command {
  return command
    .option(
      '-m, --model <name|folder>',
      'a built-in model, a Hugging Face folder or ORG/NAME that was pulled (default: picturebook)',
    )
    .option(
      '--precision <name>',
      `bits of the weights: ${[...precisions, 'auto'].join(', ')} (default: auto, by model size and free memory)`,
      oneOf('--precision', [...precisions, 'auto'] as const),
    )
    .option(
      '--kv-cache <type>',
      `numbers of the KV cache: ${cacheTypes.join(', ')} (default: float32, or float16 where memory is short)`,
      oneOf('--kv-cache', cacheTypes),
    )
    .option('--device <name>', `where the model runs: ${devices.join(', ')} (default: cpu)`, oneOf('--device', devices))
    .option('--threads <n>', 'processor threads', threadCount)
    .option('--no-picture-cache', 'encode every picture again, and keep nothing of it on disk')
}

export function addSamplingOptions(command: Command): Command {
  return command
    .option('--max-tokens <n>', 'longest answer in tokens', wholeNumber('--max-tokens', { from: 1 }))
    .option(
      '--temperature <t>',
      '0: always the likeliest word; 1: as the model spreads',
      decimalNumber('--temperature', { from: 0 }),
    )
    .option('--top-p <p>', 'only the likeliest tokens that sum to p', decimalNumber('--top-p', { above: 0, to: 1 }))
    .option('--top-k <k>', 'only the k likeliest tokens', wholeNumber('--top-k', { from: 1 }))
    .option('--seed <n>', 'the same seed, the same answer', wholeNumber('--seed'))
    .option('--no-lookup', 'read the answer token by token, without guessing what was said before')
}

/** Only what sampling needs of a command's options. */
export function samplingOf({ maxTokens, temperature, topP, topK, seed, lookup }: SamplingChoices): SamplingChoices {
  return {
    ...(maxTokens !== undefined && { maxTokens }),
    ...(temperature !== undefined && { temperature }),
    ...(topP !== undefined && { topP }),
    ...(topK !== undefined && { topK }),
    ...(seed !== undefined && { seed }),
    ...(lookup === false && { lookup }),
  }
}

/** Opens the model, telling so on a terminal while it lasts, and frees it after `use`. */
export async function withModel<T>(
  { model, threads, device, precision, pictureCache, kvCache }: ModelOptions,
  { stderr, watch }: Pick<CommandContext, 'stderr' | 'watch'>,
  use: (llava: Llava, opened: { name: string; loadMs: number }) => Promise<T>,
): Promise<T> {
  const name = model ?? 'picturebook'
  const started = performance.now()
  drawStatus(stderr, `opening ${printable(name)} …`)
  const llava = await Llava.load(model, {
    threads,
    device,
    precision,
    ...(pictureCache === false && { pictureCache }),
    cacheType: kvCache,
    signal: watch.signal,
    onConversion: ({ done, all }) => {
      const seconds = (performance.now() - started) / 1000
      const left = formatSeconds((seconds * (all - done)) / done)
      drawStatus(stderr, `${progressBar(done / all, { width: 24 })} converting the weights, once, ${left} left`)
    },
  }).finally(() => clearStatus(stderr))
  // The exact numbers of a small model need no word.
  if (precision !== undefined || device !== undefined || llava.precision.precision !== 'f32') {
    const place = device === undefined ? '' : `device ${llava.device}, `
    const { precision, reason } = llava.precision
    writeLine(stderr, paint(stderr, 'dim', `${place}precision ${precision}: ${reason}`))
  }
  try {
    return await use(llava, { name, loadMs: performance.now() - started })
  } finally {
    await llava.dispose()
  }
}
