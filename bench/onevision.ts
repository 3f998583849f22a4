/**
 * The whole of LLaVA-OneVision-0.5B (SigLIP so400m-384, Qwen2 0.5B) on random weights, two threads: a view of a picture, the prompt, the answer, a second turn, memory;
 * beside llama.cpp where LLAMA_CPP_BIN names a folder with its programs. Both sides take turns, each in processes of its own.
 */

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { batchRows, type InferenceRun, textTokens } from './inference-run.ts'
import { openLlamaCpp } from './llama-cpp.ts'
import { type BenchResult, median, rounded } from './measure.ts'
import { precision } from './onevision-run.ts'
import { oneVision05B } from './shapes.ts'

const script = fileURLToPath(new URL('./onevision-run.ts', import.meta.url))

export async function oneVisionBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const config = oneVision05B()
  const context = config.visualTokens + textTokens
  const peer = await openLlamaCpp(config)
  const theirs: Record<'picture' | 'prompt' | 'decode' | 'together', number[]> = {
    picture: [],
    prompt: [],
    decode: [],
    together: [],
  }
  const [singles, batches]: InferenceRun[][] = [[], []]
  for (let round = 1; round <= (quick ? 1 : 3); round++) {
    console.error(`round ${round} …`)
    singles?.push(await runOurs('single', quick ? 1 : 2))
    if (!('absent' in peer)) {
      theirs.picture.push(await peer.picture())
      theirs.prompt.push(await peer.prompt(context))
      theirs.decode.push(await peer.decode(context))
    }
    batches?.push(await runOurs('batch', 1))
    if (!('absent' in peer)) {
      const together = await peer.together({ rows: batchRows, context: textTokens, tokens: 24 })
      if (together !== undefined) theirs.together.push(together)
    }
  }
  if (!('absent' in peer)) await peer.close()
  const ours = summaryOf(singles ?? [], batches ?? [])
  const peers = {
    picture_ms: median(theirs.picture),
    prompt_tokens_per_s: median(theirs.prompt),
    decode_tokens_per_s: median(theirs.decode),
    batch8_tokens_per_s: median(theirs.together),
  }
  const ratios = {
    image_ratio: peers.picture_ms / ours.picture_ms,
    prompt_ratio: ours.prompt_tokens_per_s / peers.prompt_tokens_per_s,
    decode_ratio: ours.decode_tokens_per_s / peers.decode_tokens_per_s,
    batch8_ratio: ours.batch8_tokens_per_s / peers.batch8_tokens_per_s,
  }
  const shown = (value: number, unit: string) => (Number.isNaN(value) ? '' : `${rounded(value)} ${unit}`)
  const line = (measured: string, unit: string, values: readonly [number, number?, number?]) => {
    const [mine, other = Number.NaN, ratio = Number.NaN] = values
    return { measured, 'llava-ts': shown(mine, unit), 'llama.cpp': shown(other, unit), ratio: shown(ratio, '') }
  }
  return {
    table: [
      line('a view of a picture, SigLIP so400m-384 and projector', 'ms', [
        ours.picture_ms,
        peers.picture_ms,
        ratios.image_ratio,
      ]),
      line(`prompt of ${context} tokens`, 'tokens/s', [
        ours.prompt_tokens_per_s,
        peers.prompt_tokens_per_s,
        ratios.prompt_ratio,
      ]),
      line(`answer after ${context} tokens`, 'tokens/s', [
        ours.decode_tokens_per_s,
        peers.decode_tokens_per_s,
        ratios.decode_ratio,
      ]),
      line(`${batchRows} answers at a time`, 'tokens/s', [
        ours.batch8_tokens_per_s,
        peers.batch8_tokens_per_s,
        ratios.batch8_ratio,
      ]),
      line('second turn on the same picture', 'of the first', [ours.second_turn_fraction]),
      line('peak memory', 'of weights and cache', [ours.peak_memory_ratio]),
      line('opening the converted model', 'ms', [ours.open_ms]),
    ],
    notes: [
      `Shapes of LLaVA-OneVision-0.5B, all 26 and 24 blocks, random weights, 2 threads; precision ${precision}. llama.cpp: Q4_0 (head Q8_0), vision encoder in F16.`,
      'One view per picture, as OneVision reads several pictures; tiles are further views of the same cost, and their arrangement is not compared.',
      ...('absent' in peer ? [`llama.cpp was not measured: ${peer.absent}.`] : []),
    ],
    figures: { ...nullable(ratios), ours: nullable(ours), llama_cpp: 'absent' in peer ? null : nullable(peers) },
  }
}

function summaryOf(singles: readonly InferenceRun[], batches: readonly InferenceRun[]) {
  const fractions = singles.flatMap(({ firstTurnMs, secondTurnMs }) =>
    secondTurnMs.map((ms, i) => ms / (firstTurnMs[i] ?? Number.NaN)),
  )
  const prompts = singles.flatMap(({ promptMs, promptTokens }) => promptMs.map((ms) => (promptTokens / ms) * 1000))
  return {
    picture_ms: median(singles.flatMap(({ pictureMs }) => pictureMs)),
    prompt_tokens_per_s: median(prompts),
    decode_tokens_per_s: 1000 / median(singles.flatMap(({ tokenMs }) => tokenMs)),
    batch8_tokens_per_s: (batchRows * 1000) / median(batches.flatMap(({ batchStepMs }) => batchStepMs)),
    second_turn_fraction: median(fractions),
    peak_memory_ratio: median(singles.map(({ peak, weights, cache }) => peak / (weights + cache))),
    open_ms: median(singles.map(({ open }) => open.ms)),
  }
}

function nullable(values: Record<string, number>): Record<string, number | null> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, Number.isNaN(value) ? null : rounded(value)]),
  )
}

async function runOurs(mode: 'single' | 'batch', rounds: number): Promise<InferenceRun> {
  const { stdout } = await promisify(execFile)(process.execPath, [...process.execArgv, script, mode, `${rounds}`])
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as InferenceRun
}
