/**
 * Answering on a GPU through WebGPU with the whole of LLaVA-1.5-7B, random weights: beside what the same GPU does at best in a copy and in a matrix
 * product, measured in the same run through the same interface. On a software driver it takes very long and means nothing.
 */

import type { Precision } from '../src/generation/precision.ts'
import { disposeTensor, residentTensor } from '../src/runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../src/runtime/session.ts'
import { input, matmul, scaleBy, sum, type Tensor, writeOnnx } from '../src/tensor/index.ts'
import { type InferenceRun, textTokens } from './inference-run.ts'
import { type BenchResult, median, rounded, runScript, time } from './measure.ts'
import { llava7B } from './shapes.ts'

const layers = 32
const precisions: readonly Precision[] = ['int4', 'int4-128', 'int8', 'f16']

export async function webGpuBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const config = llava7B({ language: { depth: layers, context: 2048 } })
  const context = config.visualTokens + textTokens
  const limits = { gigabytes: await copyRate(), gflops: await matmulRate() }
  const perLayer = 4 * 4096 ** 2 + 3 * 4096 * 11_008
  const operations = 2 * (layers * perLayer * context + 4096 * config.language.vocabulary)
  const rows = []
  for (const precision of quick ? precisions.slice(0, 1) : precisions) {
    console.error(`${precision} …`)
    rows.push({ precision, ...figuresOf(await runOurs(precision)) })
  }
  return {
    table: rows.map((row) => ({
      precision: row.precision,
      'picture, ms': rounded(row.picture_ms),
      [`prompt of ${context} tokens, tokens/s`]: rounded(row.prompt_tokens_per_s),
      'of the matmul rate': rounded((operations * row.prompt_tokens_per_s) / context / 1e9 / limits.gflops, 2),
      'answer, tokens/s': rounded(row.decode_tokens_per_s),
      'of the copy rate': rounded((row.weights * row.decode_tokens_per_s) / 1e9 / limits.gigabytes, 2),
      'second turn': rounded(row.second_turn_fraction),
      'open, s': rounded(row.open_ms / 1000),
    })),
    notes: [
      `Shapes of LLaVA-1.5-7B, all ${layers} layers, random weights, one answer after ${context} tokens; vision encoder and cache on the GPU too.`,
      `Limits, measured in this run through WebGPU: ${rounded(limits.gflops)} GFLOP/s in a float32 matrix product of 4096³, ${rounded(limits.gigabytes)} GB/s read and written when 256 MB are scaled. Decoding reads all weights once for each token; it is compared with that rate.`,
    ],
    figures: {
      copy_gigabytes_per_second: rounded(limits.gigabytes),
      matmul_gflops: rounded(limits.gflops),
      precisions: Object.fromEntries(
        rows.map(({ precision, ...figures }) => [
          precision,
          Object.fromEntries(Object.entries(figures).map(([name, value]) => [name, rounded(value)])),
        ]),
      ),
    },
  }
}

function figuresOf(measured: InferenceRun) {
  const { pictureMs, promptMs, promptTokens, tokenMs, firstTurnMs, secondTurnMs, open, weights } = measured
  return {
    picture_ms: median(pictureMs),
    prompt_tokens_per_s: (promptTokens * 1000) / median(promptMs),
    decode_tokens_per_s: 1000 / median(tokenMs),
    second_turn_fraction: median(secondTurnMs.map((ms, i) => ms / (firstTurnMs[i] ?? Number.NaN))),
    open_ms: open.ms,
    weights,
  }
}

function runOurs(precision: Precision): Promise<InferenceRun> {
  return runScript('inference-run.ts', [precision, `${layers}`, 'single', '4', 'webgpu'])
}

/** GB/s read and written by an operator on each number of a large tensor. */
async function copyRate(): Promise<number> {
  const numbers = 64 * 2 ** 20
  const ms = await timeOfOne((x) => scaleBy(x, 0.99), { shape: [numbers / 4096, 4096], times: 64 })
  return (2 * 4 * numbers) / ms / 1e6
}

async function matmulRate(): Promise<number> {
  const n = 4096
  const ms = await timeOfOne((x) => matmul(x, x), { shape: [n, n], times: 16 })
  return (2 * n ** 3) / ms / 1e6
}

/** Milliseconds for one step of a chain: a chain of `times` + 1 less one of 1, so that what both do besides does not count. */
async function timeOfOne(
  step: (x: Tensor) => Tensor,
  { shape, times }: { shape: readonly number[]; times: number },
): Promise<number> {
  const chain = async (length: number) => {
    let y: Tensor = input('x', 'float32', shape)
    for (let i = 0; i < length; i++) y = step(y)
    const graph = writeOnnx({ y: sum(y) }, { parameters: 'inputs', name: 'limit', operators: 'gpu' })
    const session = await createSession(graph.model, { device: 'webgpu' })
    const x = residentTensor('float32', shape)
    const times: number[] = []
    for (let round = 0; round < 4; round++) {
      times.push(await time(async () => Object.values(await run(session, { x })).forEach(disposeTensor)))
    }
    await disposeSession(session)
    disposeTensor(x)
    return Math.min(...times)
  }
  return ((await chain(times + 1)) - (await chain(1))) / times
}
