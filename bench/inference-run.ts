/**
 * One run of the inference bench in a process of its own, whose memory is then that of the model alone:
 * `node inference-run.ts PRECISION LAYERS single|batch|load ROUNDS cpu|webgpu`. The last line is a JSON document.
 */

import { mkdtemp, open, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expectedTensors } from '../src/checkpoint/layouts.ts'
import { closeBatch, openBatch, openRow } from '../src/generation/batch.ts'
import { type CompiledModel, compileSupplied, disposeModel, whenCompiled } from '../src/generation/compiled-model.ts'
import { openContext, readPrompt, readToken } from '../src/generation/context.ts'
import { encodePicture } from '../src/generation/encode-picture.ts'
import { cacheBytesPerToken, capacityFor } from '../src/generation/kv-cache.ts'
import type { Precision } from '../src/generation/precision.ts'
import { type PreparedPicture, type Prompt, preparePicture } from '../src/generation/prompt.ts'
import { type PlacedPart, placeParts, suppliedFrom } from '../src/generation/stored-weights.ts'
import type { LlavaConfig } from '../src/model/config.ts'
import type { Device } from '../src/runtime/device.ts'
import { peakMemory, time, watchOwnMemory } from './measure.ts'
import { llava7B } from './shapes.ts'

export const textTokens = 64
const newTokens = 20
const steps = 12
export const batchRows = 8

export type OpeningTime = { readonly ms: number; readonly processorMs: number }

export type InferenceRun = {
  /** Until a picture can be read, and until the whole model is compiled: by the clock, and processor time of the process. */
  readonly open: OpeningTime
  readonly ready: OpeningTime
  /** Milliseconds; empty where the run did not measure it. */
  readonly pictureMs: readonly number[]
  readonly promptMs: readonly number[]
  readonly promptTokens: number
  readonly tokenMs: readonly number[]
  readonly firstTurnMs: readonly number[]
  readonly secondTurnMs: readonly number[]
  readonly batchStepMs: readonly number[]
  /** Bytes; `own` is the most that was not mapped from files. */
  readonly weights: number
  readonly cache: number
  readonly peak: number
  readonly own: number
}

const [precision = 'mixed', layers = '8', mode = 'single', rounds = '2', device = 'cpu'] = process.argv.slice(2)
if (process.argv[1]?.endsWith('inference-run.ts')) {
  const config = llava7B({ language: { depth: Number(layers) } })
  const result = await inferenceRun(config, {
    precision: precision as Precision,
    mode,
    rounds: Number(rounds),
    device: device as Device,
  })
  console.log(JSON.stringify(result))
}

/** Opens a model of random weights and measures it: `single`, `batch`, or `load` for the opening alone. */
export async function inferenceRun(
  config: LlavaConfig,
  { precision, mode, rounds, device = 'cpu' }: { precision: Precision; mode: string; rounds: number; device?: Device },
): Promise<InferenceRun> {
  const folder = await mkdtemp(join(process.env.LLAVA_BENCH_FOLDER ?? tmpdir(), 'llava-bench-'))
  try {
    const path = join(folder, 'weights.bin')
    const parts = await writeRandomWeights(path, { config, precision, device })
    const memory = watchOwnMemory()
    const since = stopwatch()
    const weights = await suppliedFrom(path, parts)
    const model = await compileSupplied({ config, weights, precision }, { threads: 2, device })
    const open = since()
    await whenCompiled(model)
    const ready = since()
    const measured =
      mode === 'batch' ? await measureBatch(model) : await measureSingle(model, mode === 'load' ? 0 : rounds)
    const own = memory.stop()
    await disposeModel(model)
    const bytes = parts.reduce((sum, { bytes }) => sum + bytes, 0)
    return { open, ready, ...measured, weights: bytes, peak: peakMemory(), own }
  } finally {
    await rm(folder, { recursive: true })
  }
}

/** Tells each time how long it has run, by the clock and in processor time. */
function stopwatch(): () => OpeningTime {
  const [start, used] = [performance.now(), process.cpuUsage()]
  return () => {
    const { user, system } = process.cpuUsage(used)
    return { ms: performance.now() - start, processorMs: (user + system) / 1000 }
  }
}

async function measureSingle(model: CompiledModel, rounds: number) {
  const { config } = model
  const pixels = (seed: number) =>
    Float32Array.from({ length: 3 * config.vision.imageSide ** 2 }, (_, i) => ((i * 31 + seed) % 255) / 127 - 1)
  const [pictureMs, promptMs, tokenMs, firstTurnMs, secondTurnMs]: number[][] = [[], [], [], [], []]
  let promptTokens = 0
  let cache = 0
  if (rounds > 0) await encodePicture(model, preparedPixels(pixels(0), model.config)) // the first run allocates
  for (let round = 1; round <= rounds; round++) {
    const context = openContext(model)
    const prompt = promptOf(config, pixels(round))
    promptTokens = prompt.ids.length
    let reading = await readPrompt(context, prompt)
    pictureMs?.push(reading.imageMs)
    promptMs?.push(reading.promptMs)
    firstTurnMs?.push(reading.imageMs + reading.promptMs)
    for (let token = 0; token < steps; token++) tokenMs?.push(await time(() => readToken(context, 100 + token)))
    const followUp = [...context.read.ids, ...Array.from({ length: newTokens }, (_, i) => 200 + i)]
    reading = await readPrompt(context, { ...prompt, ids: Int32Array.from(followUp) })
    secondTurnMs?.push(reading.imageMs + reading.promptMs)
    cache = cacheBytesPerToken(config.language, model.cacheType) * (context.cache?.capacity ?? 0)
  }
  return {
    pictureMs: pictureMs ?? [],
    promptMs: promptMs ?? [],
    promptTokens,
    tokenMs: tokenMs ?? [],
    firstTurnMs: firstTurnMs ?? [],
    secondTurnMs: secondTurnMs ?? [],
    batchStepMs: [],
    cache,
  }
}

/** Steps of eight conversations, each with a short text behind it. */
async function measureBatch(model: CompiledModel) {
  const { config } = model
  const batch = openBatch({ ...model, contextMemory: Number.MAX_SAFE_INTEGER }, { rows: batchRows })
  const contexts = Array.from({ length: batchRows }, () => openRow(batch))
  const ids = Int32Array.from({ length: textTokens }, (_, i) => 5 + i)
  for (const context of contexts) await readPrompt(context, { ids, pictures: [] })
  const batchStepMs: number[] = []
  for (let token = 0; token < steps; token++) {
    batchStepMs.push(await time(() => Promise.all(contexts.map((context) => readToken(context, 100 + token)))))
  }
  await closeBatch(batch)
  const cache =
    cacheBytesPerToken(config.language, model.cacheType) * capacityFor(textTokens + steps, model) * batchRows
  return {
    pictureMs: [],
    promptMs: [],
    promptTokens: ids.length,
    tokenMs: [],
    firstTurnMs: [],
    secondTurnMs: [],
    batchStepMs,
    cache,
  }
}

function promptOf(config: LlavaConfig, pixels: Float32Array): Prompt {
  const { visualTokens: P, imageToken } = config
  const text = Array.from({ length: textTokens - 1 }, (_, i) => 5 + i)
  const ids = Int32Array.from([1, ...new Array<number>(P).fill(imageToken), ...text])
  return { ids, pictures: [{ ...preparedPixels(pixels, config), start: 1 }] }
}

function preparedPixels(data: Float32Array, config: LlavaConfig): PreparedPicture {
  return preparePicture({ data, views: 1, side: config.vision.imageSide }, config)
}

/** Random codes with scales that keep activations near 1. Speed does not depend on what the weights are. */
async function writeRandomWeights(
  path: string,
  { config, precision, device }: { config: LlavaConfig; precision: Precision; device: Device },
): Promise<PlacedPart[]> {
  const parts = placeParts(config, { shapes: expectedTensors(config) }, { precision, device })
  const noise = new Uint8Array(16 * 2 ** 20)
  let state = 1
  for (let i = 0; i < noise.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    noise[i] = state >>> 24
  }
  const handle = await open(path, 'wx')
  try {
    for (const part of parts) {
      const values = part.dtype === 'uint8' || part.dtype === 'int8' ? noise : new Uint8Array(floats(part).buffer)
      for (let done = 0; done < part.bytes; ) {
        const length = Math.min(values.byteLength, part.bytes - done)
        done += (await handle.write(values, 0, length, part.offset + done)).bytesWritten
      }
    }
    await handle.truncate(parts.reduce((end, { offset, bytes }) => Math.max(end, offset + bytes), 0))
  } finally {
    await handle.close()
  }
  return parts
}

function floats({ name, bytes }: PlacedPart): Float32Array {
  if (name.endsWith('.scales')) return new Float32Array(bytes / 4).fill(/@int4/.test(name) ? 0.003 : 0.0003)
  return Float32Array.from({ length: bytes / 4 }, (_, i) => (/norm\d?\.weight/i.test(name) ? 1 : 0.02 * Math.sin(i)))
}
