/** Answering on a GPU against answering on the CPU: several turns, batches, aborts, fewer bits, and what the GPU lacks. */

import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { closeBatch, openBatch, openRow } from '../src/generation/batch.ts'
import { type CompiledModel, compileModel, disposeModel, weightSource } from '../src/generation/compiled-model.ts'
import {
  closeContext,
  type GenerationContext,
  openContext,
  readPrompt,
  readToken,
  readTokens,
  rewind,
} from '../src/generation/context.ts'
import { encodeGraph, languageGraph } from '../src/generation/graphs.ts'
import { type Prompt, preparePicture } from '../src/generation/prompt.ts'
import { greedy } from '../src/generation/sampling.ts'
import { choosePrecisionOnWebGpu } from '../src/generation/webgpu.ts'
import { Llava } from '../src/llava.ts'
import { loadDrawings, makeScene, renderScene } from '../src/picturebook/index.ts'
import type { Device } from '../src/runtime/device.ts'
import type { ResidentTensor } from '../src/runtime/resident-tensor.ts'
import { createSession, disposeSession, type Session } from '../src/runtime/session.ts'
import { writeOnnx } from '../src/tensor/index.ts'
import { relativeDifference } from './references.ts'
import { restoredWeights } from './restored-weights.ts'
import { randomView, randomWeights, tinyConfig } from './tiny-model.ts'
import { keepDevice, missingDriver } from './webgpu-driver.ts'

await keepDevice()

/** Largest difference relative to the largest logit. */
const tolerance = 1e-4

const config = tinyConfig({ language: { keyValueHeads: 2 } })
const weights = randomWeights(config)

/** Words, and a picture after the first where a seed is given. */
function promptOf(words: readonly number[], { picture }: { picture?: number } = {}): Prompt {
  if (picture === undefined) return { ids: Int32Array.from(words), pictures: [] }
  const placeholders = new Array<number>(config.visualTokens).fill(config.imageToken)
  const shown = { ...preparePicture(randomView(config, { seed: picture }), config), start: 1 }
  return { ids: Int32Array.from([words[0]!, ...placeholders, ...words.slice(1)]), pictures: [shown] }
}

function words(count: number, seed: number): number[] {
  return Array.from({ length: count }, (_, i) => 10 + ((seed * 31 + i * 17) % 300))
}

/** Reads a prompt and answers with a few greedy tokens: all logits on the way. */
async function answer(context: GenerationContext, prompt: Prompt, count: number) {
  const first = await readPrompt(context, prompt)
  const logits = [first.logits]
  const tokens: number[] = []
  while (tokens.length < count) {
    tokens.push(greedy(logits.at(-1)!))
    logits.push(await readToken(context, tokens.at(-1)!))
  }
  return { tokens, logits: logits.flatMap((row) => [...row]), reused: first.reused }
}

/** Three turns, of which the last is longer than the first cache; the prefix is reused. */
async function threeTurns(model: CompiledModel) {
  const context = openContext(model)
  const turns: Awaited<ReturnType<typeof answer>>[] = []
  let spoken = words(6, 1)
  for (const length of [0, 5, 300]) {
    spoken = [...spoken, ...words(length, turns.length + 2)]
    const turn = await answer(context, promptOf(spoken, { picture: 5 }), 6)
    turns.push(turn)
    spoken = [...spoken, ...turn.tokens]
  }
  closeContext(context)
  return turns
}

describe.skipIf(missingDriver !== undefined)('on device webgpu', () => {
  const models = {} as Record<Device, CompiledModel>
  beforeAll(async () => {
    for (const device of ['cpu', 'webgpu'] as const) {
      models[device] = await compileModel({ config, weights }, { threads: 1, device })
    }
  })
  afterAll(() => Promise.all(Object.values(models).map(disposeModel)))

  test('several turns read what the CPU reads, the prefix once', async () => {
    const [cpu, gpu] = [await threeTurns(models.cpu), await threeTurns(models.webgpu)]
    for (const [index, turn] of cpu.entries()) {
      expect(gpu[index]).toMatchObject({ tokens: turn.tokens, reused: turn.reused })
      expect(relativeDifference(gpu[index]!.logits, turn.logits)).toBeLessThan(tolerance)
    }
    expect(cpu[2]!.reused).toBeGreaterThan(20)
  })

  test('a batch answers as each conversation alone on the CPU, joining and leaving at any time', async () => {
    const conversations = [
      { prompt: promptOf(words(5, 1)), count: 9 },
      { prompt: promptOf(words(30, 2), { picture: 5 }), count: 12 },
      { prompt: promptOf(words(250, 3)), count: 10 }, // grows the cache while others are in it
      { prompt: promptOf(words(9, 4), { picture: 6 }), count: 4 },
    ]
    const batch = openBatch(models.webgpu, { rows: 2 })
    const todo = conversations.map((conversation, index) => ({ ...conversation, index }))
    const together: number[][] = []
    const worker = async () => {
      for (let next = todo.shift(); next !== undefined; next = todo.shift()) {
        const context = openRow(batch)
        together[next.index] = (await answer(context, next.prompt, next.count)).tokens
        closeContext(context)
      }
    }
    await Promise.all([worker(), worker()])
    await closeBatch(batch)
    const alone: number[][] = []
    for (const { prompt, count } of conversations) {
      const context = openContext(models.cpu)
      alone.push((await answer(context, prompt, count)).tokens)
      closeContext(context)
    }
    expect(together).toEqual(alone)
  })

  test('an abort in the middle of a prompt leaves the context as it was', async () => {
    const context = openContext(models.webgpu)
    const before = await answer(context, promptOf(words(6, 1)), 2)
    const longer = promptOf([...words(6, 1), ...before.tokens, ...words(200, 7)])
    const controller = new AbortController()
    const reading = readPrompt(context, longer, { signal: controller.signal })
    const outcome = expect(reading).rejects.toThrow('enough')
    setImmediate(() => controller.abort(new Error('enough'))) // the first part is being read by then
    await outcome
    const after = await answer(context, longer, 3)
    closeContext(context)
    const twin = openContext(models.cpu)
    expect(after.tokens).toEqual((await answer(twin, longer, 3)).tokens)
    expect(after.reused).toBeGreaterThan(0)
    closeContext(twin)
  })

  test('tokens that are guessed and read at once are read as one by one on the CPU, wrong ones taken back', async () => {
    const prompt = promptOf(words(20, 1), { picture: 5 })
    const alone = openContext(models.cpu)
    const { tokens, logits } = await answer(alone, prompt, 4)
    const context = openContext(models.webgpu)
    const { logits: first } = await readPrompt(context, prompt)
    const before = context.read.ids.length
    await readTokens(context, [tokens[0]!, 11, 12, 13])
    rewind(context, before + 1)
    const [second, ...rest] = await readTokens(context, tokens.slice(1))
    const found = [...first, ...second!, ...rest.flatMap((row) => [...row])]
    const V = config.language.vocabulary
    const expected = [...logits.slice(0, V), ...logits.slice(2 * V)]
    expect(found.length).toBe(expected.length)
    expect(relativeDifference(found, expected)).toBeLessThan(tolerance)
    closeContext(context)
    closeContext(alone)
  })

  // What is left is the rounding of activations, where the driver multiplies in 8 bits.
  test.each(['int8', 'int4', 'int4-128'] as const)('%s computes what its codes stand for', async (precision) => {
    const coded = await compileModel({ config, weights }, { threads: 1, device: 'webgpu', precision })
    const restored = restoredWeights(weights, precision, { device: 'webgpu' })
    const plain = await compileModel({ config, weights: restored }, { threads: 1 })
    const given = promptOf(words(5, 3), { picture: 4 })
    const found = await answer(openContext(coded), given, 2)
    const expected = await answer(openContext(plain), given, 2)
    expect(relativeDifference(found.logits, expected.logits)).toBeLessThan(0.06)
    await disposeModel(coded)
    await disposeModel(plain)
  })

  test.each(['f32', 'int4'] as const)('in %s nothing but sizes is computed on the CPU', async (precision) => {
    const folder = await mkdtemp(join(tmpdir(), 'llava-profile-'))
    const model =
      precision === 'f32' ? models.webgpu : await compileModel({ config, weights }, { device: 'webgpu', precision })
    const nodes = await profiledNodes(model, folder)
    await rm(folder, { recursive: true })
    if (precision !== 'f32') await disposeModel(model)
    expect(nodes.filter(({ provider }) => provider === 'WebGpuExecutionProvider').length).toBeGreaterThan(20)
    const elsewhere = nodes.filter(({ provider }) => provider !== 'WebGpuExecutionProvider')
    expect(elsewhere.filter(({ bytes }) => bytes > 64)).toEqual([])
  })

  test('what the device cannot do is refused in one sentence that names what it can', async () => {
    await expect(choosePrecisionOnWebGpu(config, { wanted: 'mixed' })).rejects.toThrow(
      /^Cannot load the weights in mixed on device webgpu: it has no products of 8-bit integers, expected --precision f32, (f16, )?int8, int4 or int4-128$/,
    )
    await expect(choosePrecisionOnWebGpu(config, { wanted: 'f32', memory: 1000 })).rejects.toThrow(
      /of main memory on their way there/,
    )
    expect((await choosePrecisionOnWebGpu(config)).precision).toBe('f32')
  })

  test('the embedded model answers as on the CPU', async () => {
    const questions = ['What is in the picture?', 'How many things are there?']
    const drawings = await loadDrawings({ side: 96 })
    const pictures = [1, 2].map((number) =>
      renderScene(makeScene(2_000_000 + number, { side: 96, split: 'iid', objects: [1, 4] }), drawings),
    )
    const answers = async (device: Device) => {
      await using llava = await Llava.load('picturebook', { device })
      expect(llava.device).toBe(device)
      const all: string[] = []
      for (const image of pictures) {
        for (const question of questions)
          all.push((await llava.ask({ image, question, temperature: 0, maxTokens: 24 })).answer)
      }
      return all
    }
    const expected = await answers('cpu')
    expect(await answers('webgpu')).toEqual(expected)
    expect(new Set(expected).size).toBeGreaterThan(2)
  })
})

type ProfiledNode = { readonly name: string; readonly provider: string; readonly bytes: number }

/** Where each node of both graphs ran while a picture and a prompt were read, and how many bytes it made. */
async function profiledNodes(model: CompiledModel, folder: string): Promise<ProfiledNode[]> {
  const graphs = {
    encode: encodeGraph(config, weightSource(model, 'encoder')),
    prefill: languageGraph(config, weightSource(model, 'prompt'), 'float32'),
  }
  const sessions: Session[] = []
  for (const [name, outputs] of Object.entries(graphs)) {
    const graph = writeOnnx(outputs, { parameters: 'initializers', operators: 'gpu', name })
    const initializers = Object.fromEntries(
      graph.parameters.map((parameter) => [parameter.name, model.weights.get(parameter.name) as ResidentTensor]),
    )
    sessions.push(await createSession(graph.model, { initializers, device: 'webgpu', profile: join(folder, name) }))
  }
  const [encode, prefill] = sessions as [Session, Session]
  const profiled = {
    ...model,
    sessions: { ...model.sessions, encode, prefill: Promise.resolve(prefill), step: Promise.resolve(prefill) },
    recentPictures: new Map(),
  }
  const context = openContext(profiled)
  await answer(context, promptOf(words(5, 1), { picture: 3 }), 1)
  closeContext(context)
  await Promise.all(sessions.map(disposeSession))
  type Event = { cat: string; name: string; args?: { provider?: string; output_size?: string } }
  const files = await readdir(folder)
  const events: Event[][] = await Promise.all(
    files.map(async (file) => JSON.parse(await readFile(join(folder, file), 'utf8'))),
  )
  return events.flat().flatMap(({ cat, name, args }) => {
    if (cat !== 'Node' || args?.provider === undefined) return []
    return [{ name, provider: args.provider, bytes: Number(args.output_size) }]
  })
}
