/** A model measured beside llama.cpp, in turns, each side in processes of its own; and what comes of it: speeds of both sides, their ratios, memory. */

import type { LlavaConfig } from '../src/model/config.ts'
import { batchRows, type InferenceRun, textTokens } from './inference-run.ts'
import { openLlamaCpp } from './llama-cpp.ts'
import { median, rounded } from './measure.ts'

/** What both sides are measured by; NaN where a side was not. */
export type Speeds = {
  readonly picture_ms: number
  readonly prompt_tokens_per_s: number
  readonly decode_tokens_per_s: number
  readonly batch8_tokens_per_s: number
}

export type Turns = {
  readonly ours: Speeds & {
    readonly second_turn_fraction: number
    /** Peak memory over weights and KV cache; and the part of it that is not mapped from files. */
    readonly peak_memory_ratio: number
    readonly own_memory_ratio: number
  }
  readonly theirs: Speeds
  /** How many times as fast as llama.cpp. */
  readonly ratios: Readonly<Record<'image_ratio' | 'prompt_ratio' | 'decode_ratio' | 'batch8_ratio', number>>
  readonly runs: readonly InferenceRun[]
  /** Why llama.cpp, or its server, was not measured. */
  readonly absent: readonly string[]
}

/** Measures `rounds` times by turns. `runOurs` starts a process of ours for one conversation or for several at a time. */
export async function takeTurns(
  config: LlavaConfig,
  { rounds, runOurs }: { rounds: number; runOurs: (mode: 'single' | 'batch') => Promise<InferenceRun> },
): Promise<Turns> {
  const context = config.visualTokens + textTokens
  const peer = await openLlamaCpp(config)
  const [singles, batches]: [InferenceRun[], InferenceRun[]] = [[], []]
  const [picture, prompt, decode, together]: number[][] = [[], [], [], []]
  try {
    for (let round = 1; round <= rounds; round++) {
      console.error(`round ${round} …`)
      singles.push(await runOurs('single'))
      if (!('absent' in peer)) {
        picture?.push(await peer.picture())
        prompt?.push(await peer.prompt(context))
        decode?.push(await peer.decode(context))
      }
      batches.push(await runOurs('batch'))
      if (!('absent' in peer)) {
        const rate = await peer.together({ rows: batchRows, context: textTokens, tokens: 24 })
        if (rate !== undefined) together?.push(rate)
      }
    }
  } finally {
    if (!('absent' in peer)) await peer.close()
  }
  const ours = summaryOf(singles, batches)
  const theirs = {
    picture_ms: median(picture ?? []),
    prompt_tokens_per_s: median(prompt ?? []),
    decode_tokens_per_s: median(decode ?? []),
    batch8_tokens_per_s: median(together ?? []),
  }
  const ratios = {
    image_ratio: theirs.picture_ms / ours.picture_ms,
    prompt_ratio: ours.prompt_tokens_per_s / theirs.prompt_tokens_per_s,
    decode_ratio: ours.decode_tokens_per_s / theirs.decode_tokens_per_s,
    batch8_ratio: ours.batch8_tokens_per_s / theirs.batch8_tokens_per_s,
  }
  const absent =
    'absent' in peer
      ? [`llama.cpp was not measured: ${peer.absent}.`]
      : together?.length === 0
        ? ['llama-server is not there: answers at a time were not compared.']
        : []
  return { ours, theirs, ratios, runs: [...singles, ...batches], absent }
}

function summaryOf(singles: readonly InferenceRun[], batches: readonly InferenceRun[]): Turns['ours'] {
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
    own_memory_ratio: median(singles.map(({ own, weights, cache }) => own / (weights + cache))),
  }
}

/** What a bench aims at, and what the machine could do, by the name of the measure. */
export type Remarks = Partial<Readonly<Record<keyof Turns['ours'], { aim?: string; limit?: string }>>>

/** A line for each measure: both sides, the ratio, and the bench's remarks. */
export function tableOf(
  { ours, theirs, ratios }: Turns,
  { picture, context, remarks = {} }: { picture: string; context: number; remarks?: Remarks },
): Record<string, string | number>[] {
  const shown = (value: number, unit: string) => (Number.isNaN(value) ? '' : `${rounded(value)} ${unit}`.trim())
  const line = (
    measured: string,
    { name, unit, ratio = Number.NaN }: { name: keyof Turns['ours']; unit: string; ratio?: number },
  ) => ({
    measured,
    'llava-ts': shown(ours[name], unit),
    'llama.cpp': name in theirs ? shown(theirs[name as keyof Speeds], unit) : '',
    ratio: shown(ratio, ''),
    aim: remarks[name]?.aim ?? '',
    limit: remarks[name]?.limit ?? '',
  })
  const rate = 'tokens/s'
  return [
    line(picture, { name: 'picture_ms', unit: 'ms', ratio: ratios.image_ratio }),
    line(`prompt of ${context} tokens`, { name: 'prompt_tokens_per_s', unit: rate, ratio: ratios.prompt_ratio }),
    line(`answer after ${context} tokens`, { name: 'decode_tokens_per_s', unit: rate, ratio: ratios.decode_ratio }),
    line(`${batchRows} answers at a time`, { name: 'batch8_tokens_per_s', unit: rate, ratio: ratios.batch8_ratio }),
    line('second turn on the same picture', { name: 'second_turn_fraction', unit: 'of the first' }),
    line('peak memory', { name: 'peak_memory_ratio', unit: 'of weights and cache' }),
    line('of it not mapped from the file', { name: 'own_memory_ratio', unit: 'of weights and cache' }),
  ]
}

/** The keys of the JSON document that both benches have. */
export function figuresOf({ ours, theirs, ratios, absent }: Turns): Record<string, unknown> {
  const { second_turn_fraction, peak_memory_ratio, own_memory_ratio } = ours
  const isMeasured = absent.length === 0 || !Number.isNaN(theirs.picture_ms)
  return {
    ...nullable({ ...ratios, second_turn_fraction, peak_memory_ratio, own_memory_ratio }),
    ours: nullable(ours),
    llama_cpp: isMeasured ? nullable(theirs) : null,
  }
}

function nullable(values: Readonly<Record<string, number>>): Record<string, number | null> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, Number.isNaN(value) ? null : rounded(value)]),
  )
}
