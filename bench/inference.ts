/**
 * Answering with LLaVA-1.5-7B shapes on random weights, 8 of 32 layers, two threads: beside what the machine can do, and beside llama.cpp where
 * LLAMA_CPP_BIN names a folder with its programs. Both sides take turns, each in processes of its own.
 */

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { sumsSaturate } from '../src/runtime/integer-sums.ts'
import { disposeTensor, residentTensor } from '../src/runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../src/runtime/session.ts'
import { input, sum, writeOnnx } from '../src/tensor/index.ts'
import { fastestProbe } from './engine.ts'
import { batchRows, type InferenceRun, textTokens } from './inference-run.ts'
import { openLlamaCpp } from './llama-cpp.ts'
import { type BenchResult, median, rounded, time } from './measure.ts'
import { llava7B } from './shapes.ts'

const layers = 8
/** The depth of a second model, from which the time to open all 32 layers is reckoned. */
const fewLayers = 2
const allLayers = 32
const precision = 'mixed'
const script = fileURLToPath(new URL('./inference-run.ts', import.meta.url))

type Peer = { picture: number[]; prompt: number[]; decode: number[]; together: number[] }

export async function inferenceBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const config = llava7B({ language: { depth: layers } })
  const bandwidth = await memoryBandwidth()
  const probe = await fastestProbe({ rounds: 3 })
  await probe.dispose()
  const gflops = Math.max(...probe.all.map((entry) => entry.gflops))

  const peer = await openLlamaCpp(config)
  const theirs: Peer = { picture: [], prompt: [], decode: [], together: [] }
  const singles: InferenceRun[] = []
  const batches: InferenceRun[] = []
  const short: InferenceRun[] = []
  const context = config.visualTokens + textTokens
  for (let round = 0; round < (quick ? 1 : 3); round++) {
    singles.push(await runOurs('single', quick ? 1 : 2))
    if (!('absent' in peer)) {
      theirs.picture.push(await peer.picture())
      theirs.prompt.push(await peer.prompt(context))
      theirs.decode.push(await peer.decode(context))
    }
    batches.push(await runOurs('batch', 1))
    short.push(await runOurs('load', 0, fewLayers))
    const together =
      'absent' in peer ? undefined : await peer.together({ rows: batchRows, context: textTokens, tokens: 24 })
    if (together !== undefined) theirs.together.push(together)
  }
  if (!('absent' in peer)) await peer.close()

  const ours = {
    picture: median(singles.flatMap(({ pictureMs }) => pictureMs)),
    prompt: median(singles.flatMap(({ promptMs, promptTokens }) => promptMs.map((ms) => (promptTokens / ms) * 1000))),
    decode: 1000 / median(singles.flatMap(({ tokenMs }) => tokenMs)),
    together: (batchRows * 1000) / median(batches.flatMap(({ batchStepMs }) => batchStepMs)),
    second: median(
      singles.flatMap(({ firstTurnMs, secondTurnMs }) =>
        secondTurnMs.map((ms, i) => ms / (firstTurnMs[i] ?? Number.NaN)),
      ),
    ),
    memory: median(singles.map(({ peak, weights, cache }) => peak / (weights + cache))),
  }
  const whole = [...singles, ...batches]
  const opening = (at: 'open' | 'ready', unit: 'ms' | 'processorMs') => {
    const seconds = (runs: readonly InferenceRun[]) => median(runs.map((run) => run[at][unit])) / 1000
    const perLayer = Math.max(0, seconds(whole) - seconds(short)) / (layers - fewLayers)
    return { measured: seconds(whole), all: seconds(whole) + (allLayers - layers) * perLayer }
  }
  const [open, packed] = [opening('open', 'ms'), opening('ready', 'ms')]
  const work = { open: opening('open', 'processorMs'), packed: opening('ready', 'processorMs') }
  const peers = {
    picture: median(theirs.picture),
    prompt: median(theirs.prompt),
    decode: median(theirs.decode),
    together: median(theirs.together),
  }
  const single = singles[0]
  const perLayer = 4 * 4096 ** 2 + 3 * 4096 * 11_008
  const operations = 2 * (layers * perLayer * context + 4096 * config.language.vocabulary)
  const read =
    layers * perLayer * (4.25 / 8) + 4096 * config.language.vocabulary * 1.03 + 2 * layers * 4096 * context * 4
  const line = (
    measured: string,
    unit: string,
    a: number,
    b: number,
    ratio: number,
    target: string,
    limit: string,
  ) => ({
    measured,
    'llava-ts': `${rounded(a)} ${unit}`,
    'llama.cpp': Number.isNaN(b) ? '' : `${rounded(b)} ${unit}`,
    ratio: Number.isNaN(ratio) ? '' : rounded(ratio),
    target,
    limit,
  })
  const ratios = {
    image_ratio: peers.picture / ours.picture,
    prompt_ratio: ours.prompt / peers.prompt,
    decode_ratio: ours.decode / peers.decode,
    batch8_ratio: ours.together / peers.together,
    second_turn_fraction: ours.second,
    peak_memory_ratio: ours.memory,
  }
  return {
    table: [
      line('picture, ViT-L/14-336 and projector', 'ms', ours.picture, peers.picture, ratios.image_ratio, '≥ 2.5', ''),
      line(
        `prompt of ${context} tokens`,
        'tokens/s',
        ours.prompt,
        peers.prompt,
        ratios.prompt_ratio,
        '≥ 1.8',
        `${rounded((operations * ours.prompt) / context / 1e9)} of ${rounded(gflops)} GFLOP/s in float32`,
      ),
      line(
        `answer after ${context} tokens`,
        'tokens/s',
        ours.decode,
        peers.decode,
        ratios.decode_ratio,
        '≥ 1.1',
        `${rounded((read * ours.decode) / 1e9)} of ${rounded(bandwidth)} GB/s`,
      ),
      line(
        `${batchRows} answers at a time`,
        'tokens/s',
        ours.together,
        peers.together,
        ratios.batch8_ratio,
        '≥ 1.5',
        '',
      ),
      line('second turn on the same picture', 'of the first', ours.second, Number.NaN, Number.NaN, '≤ 0.05', ''),
      line('peak memory', 'of weights and cache', ours.memory, Number.NaN, Number.NaN, '≤ 1.15', ''),
      line(
        `opening the converted model, ${layers} layers`,
        's',
        open.measured,
        Number.NaN,
        Number.NaN,
        '≤ 3 s',
        `${rounded(work.open.measured)} s of a processor; ${rounded(open.all)} s for ${allLayers} layers`,
      ),
      line(
        'until weights for answers are packed too',
        's',
        packed.measured,
        Number.NaN,
        Number.NaN,
        '',
        `${rounded(work.packed.measured)} s of a processor; ${rounded(packed.all)} s for ${allLayers} layers`,
      ),
    ],
    notes: [
      `Shapes of LLaVA-1.5-7B with ${layers} of 32 layers, random weights, 2 threads; precision ${precision}: pictures and prompts in 8 bits a channel (7 where integer sums saturate, as ${sumsSaturate() ? 'on' : 'not on'} this processor), answers in int4-128. llama.cpp: Q4_0 (head Q6_K), vision encoder in F16.`,
      ...('absent' in peer ? [`llama.cpp was not measured: ${peer.absent}.`] : []),
      ...('absent' in peer || theirs.together.length > 0
        ? []
        : ['llama-server is not there: answers at a time were not compared.']),
      `${batchRows} answers at a time: with ${textTokens} tokens behind each, all rows at each step; llama-server with ${batchRows} slots.`,
      'Limits, measured in this run: the fastest float32 matrix product, and reading 1 GiB once. Integer products can be faster than the first.',
      `Opening: until a prompt can be read; packing goes on meanwhile, and the second token of the first answer waits for it. Files were just written, so they are in the memory of the system. ${allLayers} layers are reckoned from ${fewLayers} and ${layers}.`,
      `Memory: the most that the process held, over ${rounded((single?.weights ?? 0) / 1e9)} GB of weights and ${rounded((single?.cache ?? 0) / 1e9)} GB of KV cache; weights that are mapped and not used count only below the line.`,
    ],
    figures: {
      ...Object.fromEntries(
        Object.entries(ratios).map(([name, value]) => [name, Number.isNaN(value) ? null : rounded(value)]),
      ),
      open_seconds: rounded(open.measured),
      packed_seconds: rounded(packed.measured),
      open_seconds_32_layers: rounded(open.all),
      packed_seconds_32_layers: rounded(packed.all),
      open_processor_seconds: rounded(work.open.measured),
      packed_processor_seconds: rounded(work.packed.measured),
      ours: roundedAll(ours),
      llama_cpp: 'absent' in peer ? null : roundedAll(peers),
      memory_gigabytes_per_second: rounded(bandwidth),
      matmul_gflops: rounded(gflops),
    },
  }
}

function roundedAll(values: Record<string, number>): Record<string, number | null> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, Number.isNaN(value) ? null : rounded(value)]),
  )
}

async function runOurs(mode: 'single' | 'batch' | 'load', rounds: number, depth = layers): Promise<InferenceRun> {
  const command = [...process.execArgv, script, precision, `${depth}`, mode, `${rounds}`]
  const { stdout } = await promisify(execFile)(process.execPath, command)
  return JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as InferenceRun
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
