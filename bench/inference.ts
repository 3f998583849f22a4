/**
 * Answering with LLaVA-1.5-7B shapes on random weights, 8 of 32 layers, two threads: beside what the machine can do, and beside llama.cpp where
 * LLAMA_CPP_BIN names a folder with its programs. Both sides take turns, each in processes of its own.
 */

import { sumsSaturate } from '../src/runtime/integer-sums.ts'
import { disposeTensor, residentTensor } from '../src/runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../src/runtime/session.ts'
import { input, sum, writeOnnx } from '../src/tensor/index.ts'
import { fastestProbe } from './engine.ts'
import { batchRows, type InferenceRun, textTokens } from './inference-run.ts'
import { type BenchResult, median, rounded, runScript, time } from './measure.ts'
import { llava7B } from './shapes.ts'
import { figuresOf, type Remarks, type Turns, tableOf, takeTurns } from './turns.ts'

const layers = 8
/** The depth of a second model, from which the time to open all 32 layers is reckoned. */
const fewLayers = 2
const allLayers = 32
const precision = 'mixed'

const config = llava7B({ language: { depth: layers } })
const context = config.visualTokens + textTokens

/** What the machine can do at best: billions of float32 operations and bytes read in a second. */
type Limits = { readonly gflops: number; readonly gigabytes: number }

export async function inferenceBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const limits = await measureLimits()
  const rounds = quick ? 1 : 3
  const turns = await takeTurns(config, { rounds, runOurs: (mode) => runOurs(mode, quick ? 1 : 2) })
  const short: InferenceRun[] = []
  for (let round = 0; round < rounds; round++) short.push(await runOurs('load', 0, fewLayers))
  const opening = openingTimes(turns.runs, short)
  const { weights = Number.NaN, cache = Number.NaN } = turns.runs[0] ?? {}
  const picture = 'picture, ViT-L/14-336 and projector'
  return {
    table: [
      ...tableOf(turns, { picture, context, remarks: remarksOn(turns, limits) }),
      openingLine(`opening the converted model, ${layers} layers`, { ...opening.open, aim: '≤ 3 s' }),
      openingLine('until weights for answers are packed too', { ...opening.packed, aim: '' }),
    ],
    notes: [
      `Shapes of LLaVA-1.5-7B with ${layers} of ${allLayers} layers, random weights, 2 threads; precision ${precision}: pictures and prompts in 8 bits a channel (7 where integer sums saturate, as ${sumsSaturate() ? 'on' : 'not on'} this processor), answers in int4-128. llama.cpp: Q4_0 (head Q6_K), vision encoder in F16.`,
      ...turns.absent,
      `${batchRows} answers at a time: with ${textTokens} tokens behind each, all rows at each step; llama-server with ${batchRows} slots.`,
      'Limits, measured in this run: the fastest float32 matrix product, and reading 1 GiB once. Integer products can be faster than the first.',
      `Opening: until a prompt can be read; packing goes on meanwhile, and the second token of the first answer waits for it. Files were just written, so they are in the memory of the system. ${allLayers} layers are reckoned from ${fewLayers} and ${layers}.`,
      `Memory: the most that the process held, over ${rounded(weights / 1e9)} GB of weights and ${rounded(cache / 1e9)} GB of KV cache; weights that are mapped and not used count only below the line.`,
    ],
    figures: {
      ...figuresOf(turns),
      open_seconds: rounded(opening.open.seconds),
      packed_seconds: rounded(opening.packed.seconds),
      open_seconds_32_layers: rounded(opening.open.all),
      packed_seconds_32_layers: rounded(opening.packed.all),
      open_processor_seconds: rounded(opening.open.processor),
      packed_processor_seconds: rounded(opening.packed.processor),
      memory_gigabytes_per_second: rounded(limits.gigabytes),
      matmul_gflops: rounded(limits.gflops),
    },
  }
}

/** Aims, and how near to the machine's limits we come: operations of a prompt, bytes of weights and cache that a token reads. */
function remarksOn({ ours }: Turns, { gflops, gigabytes }: Limits): Remarks {
  const { width, mlpWidth, vocabulary } = config.language
  const perLayer = 4 * width ** 2 + 3 * width * mlpWidth
  const operations = (2 * (layers * perLayer * context + width * vocabulary)) / context // a token
  const bytes = layers * perLayer * (4.25 / 8) + width * vocabulary * 1.03 + 2 * layers * width * context * 4
  const computed = rounded((operations * ours.prompt_tokens_per_s) / 1e9)
  const read = rounded((bytes * ours.decode_tokens_per_s) / 1e9)
  return {
    picture_ms: { aim: '≥ 2.5' },
    prompt_tokens_per_s: { aim: '≥ 1.8', limit: `${computed} of ${rounded(gflops)} GFLOP/s in float32` },
    decode_tokens_per_s: { aim: '≥ 1.1', limit: `${read} of ${rounded(gigabytes)} GB/s` },
    batch8_tokens_per_s: { aim: '≥ 1.5' },
    second_turn_fraction: { aim: '≤ 0.05' },
    peak_memory_ratio: { aim: '≤ 1.15' },
  }
}

/** Seconds by the clock, for all layers as reckoned, and of a processor. */
type Opening = { readonly seconds: number; readonly all: number; readonly processor: number }

function openingTimes(
  whole: readonly InferenceRun[],
  short: readonly InferenceRun[],
): Record<'open' | 'packed', Opening> {
  const times = (at: 'open' | 'ready'): Opening => {
    const clock = (runs: readonly InferenceRun[]) => median(runs.map((run) => run[at].ms)) / 1000
    const perLayer = Math.max(0, clock(whole) - clock(short)) / (layers - fewLayers)
    return {
      seconds: clock(whole),
      all: clock(whole) + (allLayers - layers) * perLayer,
      processor: median(whole.map((run) => run[at].processorMs)) / 1000,
    }
  }
  return { open: times('open'), packed: times('ready') }
}

function openingLine(measured: string, { seconds, all, processor, aim }: Opening & { aim: string }) {
  return {
    measured,
    'llava-ts': `${rounded(seconds)} s`,
    'llama.cpp': '',
    ratio: '',
    aim,
    limit: `${rounded(processor)} s of a processor; ${rounded(all)} s for ${allLayers} layers`,
  }
}

function runOurs(mode: 'single' | 'batch' | 'load', rounds: number, depth = layers): Promise<InferenceRun> {
  return runScript('inference-run.ts', [precision, `${depth}`, mode, `${rounds}`])
}

async function measureLimits(): Promise<Limits> {
  const gigabytes = await memoryBandwidth()
  const probe = await fastestProbe({ rounds: 3 })
  await probe.dispose()
  return { gigabytes, gflops: Math.max(...probe.all.map((entry) => entry.gflops)) }
}

/** GB/s of reading a large array once, the best of a few times. */
async function memoryBandwidth(): Promise<number> {
  const shape = [4096, 65_536]
  const x = residentTensor('float32', shape)
  const graph = writeOnnx({ y: sum(input('x', 'float32', shape), { axes: [-1] }) }, { parameters: 'inputs' })
  const session = await createSession(graph.model, { threads: 2 })
  const times: number[] = []
  for (let round = 0; round < 6; round++) times.push(await time(() => run(session, { x })))
  await disposeSession(session)
  disposeTensor(x)
  return x.data.byteLength / Math.min(...times) / 1e6
}
