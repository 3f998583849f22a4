import { afterAll, describe, expect, test } from 'vitest'
import { randomView, randomWeights, tinyConfig, tinySiglipConfig } from '../../tests/tiny-model.ts'
import type { LlavaConfig } from '../model/config.ts'
import { type CompiledModel, compileModel, disposeModel } from './compiled-model.ts'
import { closeContext, openContext, readPrompt, readToken, rewind } from './context.ts'
import { encodePicture } from './encode-picture.ts'
import { allocateCache, cacheRow, capacityFor, disposeCache, growCache } from './kv-cache.ts'
import { prefill, step } from './language-calls.ts'
import { type Prompt, preparePicture } from './prompt.ts'
import { greedy } from './sampling.ts'
import { generateUncached } from './uncached.ts'

const models: CompiledModel[] = []
afterAll(async () => {
  for (const model of models) await disposeModel(model)
})

async function compile(config: LlavaConfig, seed = 1): Promise<CompiledModel> {
  const model = await compileModel({ config, weights: randomWeights(config, { seed }) }, { threads: 1 })
  models.push(model)
  return model
}

/** Text, each picture after a few words, and text again. */
function promptOf(
  config: LlavaConfig,
  { pictures, length = 6 }: { pictures: readonly number[]; length?: number },
): Prompt {
  const ids: number[] = [1]
  const word = () => ids.push(10 + ((ids.length * 37) % 300))
  const placed = pictures.map((seed) => {
    for (let i = 0; i < 3; i++) word()
    const start = ids.length
    for (let i = 0; i < config.visualTokens; i++) ids.push(config.imageToken)
    return { ...preparePicture(randomView(config, { seed }), config), start }
  })
  for (let i = 0; i < length; i++) word()
  return { ids: Int32Array.from(ids), pictures: placed }
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length)
  return a.reduce((largest, value, i) => Math.max(largest, Math.abs(value - b[i]!)), 0)
}

async function generateCached(model: CompiledModel, prompt: Prompt, maxTokens: number) {
  const context = openContext(model)
  const chosen: { token: number; logits: Float32Array }[] = []
  let { logits } = await readPrompt(context, prompt)
  while (true) {
    chosen.push({ token: greedy(logits), logits })
    if (chosen.length === maxTokens) break
    logits = await readToken(context, chosen.at(-1)!.token)
  }
  closeContext(context)
  return chosen
}

const variants: [string, LlavaConfig][] = [
  ['CLIP, MLP projector, LLaMA', tinyConfig()],
  ['a linear projector', tinyConfig({ projector: { layers: 1, bias: false } })],
  ['fewer key-value heads', tinyConfig({ language: { keyValueHeads: 2 } })],
  ['one key-value head', tinyConfig({ language: { keyValueHeads: 1, headSize: 32 } })],
  ['SigLIP, biases, tied head (Qwen2)', tinySiglipConfig()],
  ['the class token among the visual tokens', tinyConfig({ featureSelect: 'full' })],
]

describe('cached generation equals uncached', () => {
  describe.each(variants)('%s', (_, config) => {
    test.each([[[]], [[5]], [[5, 6]]])('pictures %j', async (pictures) => {
      const model = await compile(config)
      const prompt = promptOf(config, { pictures })
      const [fast, slow] = [
        await generateCached(model, prompt, 12),
        await generateUncached(model, prompt, { maxTokens: 12 }),
      ]
      expect(fast.map(({ token }) => token)).toEqual(slow.map(({ token }) => token))
      expect(new Set(fast.map(({ token }) => token)).size).toBeGreaterThan(2) // a constant answer would prove little
      for (const [i, { logits }] of fast.entries())
        expect(largestDifference(logits, slow[i]!.logits)).toBeLessThan(1e-4)
    })
  })
})

describe('the cache', () => {
  test('a second prompt of several tokens goes on where the first ended', async () => {
    for (const config of [tinyConfig(), tinySiglipConfig()]) {
      const model = await compile(config)
      const prompt = promptOf(config, { pictures: [5, 6], length: 20 })
      const whole = await readPrompt(openContext(model), prompt)
      const context = openContext(model)
      const first = { ids: prompt.ids.slice(0, 9), pictures: prompt.pictures.slice(0, 1) }
      await readPrompt(context, first)
      const second = await readPrompt(context, prompt)
      expect(second.reused).toBe(9)
      expect(largestDifference(second.logits, whole.logits)).toBeLessThan(1e-4)
    }
  })

  test('grows without losing anything, beyond its smallest size', async () => {
    const config = tinyConfig({ language: { context: 700, depth: 1 } })
    const model = await compile(config)
    const prompt = promptOf(config, { pictures: [5], length: 240 })
    const context = openContext(model)
    let { logits } = await readPrompt(context, prompt)
    expect(context.cache?.capacity).toBe(256)
    const tokens: number[] = []
    for (let i = 0; i < 20; i++) {
      tokens.push(greedy(logits))
      logits = await readToken(context, tokens.at(-1)!)
    }
    expect(context.cache?.capacity).toBe(512)
    const ids = Int32Array.from([...prompt.ids, ...tokens])
    const { logits: expected } = await readPrompt(openContext(model), { ...prompt, ids })
    expect(largestDifference(logits, expected)).toBeLessThan(1e-4)
    expect(capacityFor(513, config.language)).toBe(700)
    expect(() => capacityFor(701, config.language)).toThrow(RangeError)
  })

  test('rows of different lengths step together as each would alone', async () => {
    for (const config of [tinyConfig(), tinySiglipConfig()]) {
      const model = await compile(config)
      const lengths = [3, 17, 8]
      const prompts = lengths.map((length, i) => promptOf(config, { pictures: [], length: length + i }).ids)
      const batched = allocateCache(config.language, { capacity: 64, batch: 3 })
      const alone = lengths.map(() => allocateCache(config.language, { capacity: 64 }))
      const start: number[] = []
      for (const [row, ids] of prompts.entries()) {
        const together = await prefill(model, { ids, pictures: [], cache: cacheRow(batched, row), past: 0 })
        const single = await prefill(model, { ids, pictures: [], cache: alone[row]!, past: 0 })
        expect(largestDifference(together, single)).toBeLessThan(1e-5)
        start.push(greedy(together))
      }
      const past = prompts.map((ids) => ids.length)
      let together = await step(model, { ids: start, past, cache: batched })
      let tokens = start
      for (let round = 1; round <= 3; round++) {
        const V = config.language.vocabulary
        const rows = tokens.map((_, row) => together.subarray(row * V, (row + 1) * V))
        for (const [row, logits] of rows.entries()) {
          const at = past[row]! + round - 1
          const single = await step(model, { ids: [tokens[row]!], past: [at], cache: alone[row]! })
          expect(largestDifference(logits, single)).toBeLessThan(1e-4)
        }
        tokens = rows.map(greedy)
        together = await step(model, { ids: tokens, past: past.map((length) => length + round), cache: batched })
      }
      for (const cache of [batched, ...alone]) disposeCache(cache)
    }
  })

  test('what lies behind the length after going back is not looked at', async () => {
    const config = tinyConfig()
    const model = await compile(config)
    const prompt = promptOf(config, { pictures: [5], length: 12 })
    const context = openContext(model)
    const { logits } = await readPrompt(context, prompt)
    for (const token of [20, 21, 22]) await readToken(context, token)
    rewind(context, 10)
    const again = await readPrompt(context, prompt)
    expect(again.reused).toBe(10)
    expect(largestDifference(again.logits, logits)).toBeLessThan(1e-4)
  })

  test('refuses to shrink', () => {
    const { language } = tinyConfig()
    const cache = allocateCache(language, { capacity: 64 })
    expect(() => growCache(language, { cache, capacity: 32, length: 8 })).toThrow(/expected more/)
  })
})

test('patch features come with the visual tokens on request', async () => {
  const config = tinyConfig()
  const model = await compile(config)
  const picture = preparePicture(randomView(config, { seed: 5 }), config)
  const { visualTokens, patchFeatures } = await encodePicture(model, picture, { features: true })
  expect([visualTokens.length, patchFeatures?.length]).toEqual([4 * 32, 4 * 16])
  expect((await encodePicture(model, picture)).patchFeatures).toBeUndefined()
})

test('a signal ends the waiting for a graph that is still being compiled', async () => {
  const config = tinyConfig()
  const model = await compile(config)
  const never = new Promise<never>(() => {})
  const compiling: CompiledModel = { ...model, sessions: { ...model.sessions, step: never } }
  const cache = allocateCache(config.language, { capacity: 8 })
  const abort = new AbortController()
  const stepping = step(compiling, { ids: [5], past: [0], cache }, { signal: abort.signal })
  abort.abort(new Error('enough'))
  await expect(stepping).rejects.toThrow('enough')
  disposeCache(cache)
})

test('says when attention heads are too small for the cache or a weight is missing', async () => {
  const small = tinyConfig({ language: { headSize: 8 } })
  await expect(compileModel({ config: small, weights: randomWeights(small) })).rejects.toThrow(
    /size 8, expected a multiple of 16/,
  )
  const config = tinyConfig()
  const weights = new Map(randomWeights(config))
  weights.delete('languageModel.norm.weight')
  await expect(compileModel({ config, weights })).rejects.toThrow(/weight languageModel.norm.weight is missing/)
})
