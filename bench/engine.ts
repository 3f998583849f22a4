/**
 * The engine against the machine: a training step as a fraction of the matmul rate, cached attention against reading its cache once.
 *
 * Whatever else the machine is doing disturbs every measurement, so nothing is compared that was not measured side by side: steps and probes take
 * turns, each step is divided by the probes just before and after it, and the medians of these ratios are reported.
 */

import { cachedAttentionStep, cacheReader } from './cached-attention.ts'
import { matmulProbe, type Probe } from './matmul-probe.ts'
import { type BenchResult, median, rounded, time } from './measure.ts'
import { benchModel, createBenchStep } from './training-model.ts'

const rounds = 15
const decodeRounds = 400

export async function engineBench(): Promise<BenchResult> {
  const training = await measureTraining()
  const decoding = []
  for (const tokens of [640, 2048]) decoding.push(await measureDecoding(tokens))
  const [short, long] = decoding
  const { flops, probe } = training
  return {
    table: [
      ...training.probes.map(({ shape, gflops }) => ({
        measured: `matmul ${shape}`,
        ms: '',
        rate: `${rounded(gflops)} GFLOP/s`,
        against: shape === probe ? 'the probe' : '',
      })),
      {
        measured: 'forward and backward',
        ms: rounded(training.gradientTime),
        rate: `${Math.round(training.tokensPerSecond)} tokens/s`,
        against: `${rounded(training.fraction)} of the matmul rate`,
      },
      {
        measured: 'with optimizer',
        ms: rounded(training.stepTime),
        rate: `${Math.round(training.tokensPerSecondWithOptimizer)} tokens/s`,
        against: `${rounded(training.fractionWithOptimizer)} of the matmul rate`,
      },
      ...decoding.map(({ tokens, ms, gigabytesPerSecond, ratio }) => ({
        measured: `cached attention, ${tokens} tokens`,
        ms: rounded(ms),
        rate: `${rounded(gigabytesPerSecond)} GB/s`,
        against: `${rounded(ratio)} times reading the cache`,
      })),
    ],
    notes: [
      `Model: LLaMA blocks, ${training.parameters} parameters, batch ${benchModel.batch} × ${benchModel.length} tokens, trained through the stage instruction-tuning.`,
      `Operations of a step: ${rounded(flops / 1e9, 4)} GFLOP, multiply and add counted apart, matrix products only: forward, and twice as much backward; attention as it is computed, without leaving out what the mask hides.`,
      `The matmul rate is that of ${probe}, the fastest of the products above when they take turns, so the hardest to come near; both factors are given anew at every run, as weights are in training.`,
      'Cached attention: one layer, 32 heads of 128, float32, one token per call, over caches too many for the processor to keep; reading is the faster of two reductions over the same memory.',
    ],
    figures: {
      matmul_gflops: rounded(training.matmulGflops),
      matmul_shape: probe,
      step_gflop: rounded(flops / 1e9, 4),
      tokens_per_second: Math.round(training.tokensPerSecond),
      tokens_per_second_with_optimizer: Math.round(training.tokensPerSecondWithOptimizer),
      train_fraction: rounded(training.fraction),
      train_with_optimizer_fraction: rounded(training.fractionWithOptimizer),
      decode_attention_ratio: rounded(Math.max(short?.ratio ?? Number.NaN, long?.ratio ?? Number.NaN)),
      decode_attention: decoding.map(({ tokens, ms, ratio }) => ({ tokens, ms: rounded(ms), ratio: rounded(ratio) })),
    },
  }
}

async function measureTraining() {
  const probe = await fastestProbe({ rounds: 7 })
  const { step, flops, tokens, parameters, gradients, update, dispose } = await createBenchStep()
  for (let warm = 0; warm < 2; warm++) await step()

  const samples: { matmul: number; gradient: number; both: number }[] = []
  let before = await time(probe.best.run)
  for (let round = 0; round < rounds; round++) {
    const gradient = await time(gradients)
    const optimizer = await time(update)
    const after = await time(probe.best.run)
    samples.push({ matmul: (before + after) / 2, gradient, both: gradient + optimizer })
    before = after
  }
  await dispose()
  await probe.dispose()
  const fractionOf = (key: 'gradient' | 'both') =>
    median(samples.map((sample) => flops / sample[key] / (probe.best.flops / sample.matmul)))
  const gradientTime = median(samples.map(({ gradient }) => gradient))
  const stepTime = median(samples.map(({ both }) => both))
  return {
    probes: probe.all,
    probe: probe.best.shape,
    matmulGflops: probe.best.flops / median(samples.map(({ matmul }) => matmul)) / 1e6,
    flops,
    parameters,
    gradientTime,
    stepTime,
    tokensPerSecond: (tokens / gradientTime) * 1000,
    tokensPerSecondWithOptimizer: (tokens / stepTime) * 1000,
    fraction: fractionOf('gradient'),
    fractionWithOptimizer: fractionOf('both'),
  }
}

/** Tries matrix products of several shapes in turns; the one with the best sustained rate becomes the probe. */
export async function fastestProbe({ rounds }: { rounds: number }) {
  const probes: Probe[] = []
  for (const shape of [
    [1536, 256, 704],
    [1024, 1024, 1024],
    [2048, 2048, 2048],
    [640, 4096, 4096],
  ] as const) {
    probes.push(await matmulProbe(shape))
  }
  const times = probes.map((): number[] => [])
  for (const probe of probes) await probe.run()
  for (let round = 0; round < rounds; round++) {
    for (const [index, probe] of probes.entries()) times[index]?.push(await time(probe.run))
  }
  const all = probes.map(({ shape, flops }, index) => ({ shape, gflops: flops / median(times[index] ?? []) / 1e6 }))
  const fastest = all.reduce((best, { gflops }, index) => (gflops > (all[best]?.gflops ?? 0) ? index : best), 0)
  const best = probes[fastest]
  if (best === undefined) throw new Error('There is no probe')
  return { best, all, dispose: async () => void (await Promise.all(probes.map((probe) => probe.dispose()))) }
}

async function measureDecoding(tokens: number) {
  const attention = await cachedAttentionStep(tokens)
  const readers = [await cacheReader(attention, 'ReduceSum'), await cacheReader(attention, 'ReduceMax')]
  const samples: { attend: number; reads: number[] }[] = []
  const count = Math.ceil(decodeRounds / Math.ceil(tokens / 640))
  for (let round = 0; round < count + 10; round++) {
    // Attention never follows a reader of the same cache: each time it must come from memory.
    const reads: number[] = []
    for (const reader of readers) reads.push(await time(() => reader.run(reader.next())))
    const attend = await time(() => attention.run(attention.next()))
    if (round >= 10) samples.push({ attend, reads })
  }
  await attention.dispose()
  for (const reader of readers) await reader.dispose()
  // The reader that is faster as a whole is the yardstick.
  const perReader = readers.map((_, index) => median(samples.map(({ reads }) => reads[index] ?? Number.NaN)))
  const fastest = perReader.indexOf(Math.min(...perReader))
  const ms = median(samples.map(({ attend }) => attend))
  return {
    tokens,
    ms,
    gigabytesPerSecond: attention.bytes / ms / 1e6,
    ratio: median(samples.map(({ attend, reads }) => attend / (reads[fastest] ?? Number.NaN))),
  }
}
