import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { randomView, randomWeights, tinyConfig, tinyFiles } from '../../tests/tiny-model.ts'
import { decode } from '../conversation/text-stream.ts'
import { loadTokenizer, type Tokenizer } from '../conversation/tokenizer.ts'
import { type CompiledModel, compileModel, disposeModel } from './compiled-model.ts'
import { closeContext, openContext } from './context.ts'
import {
  type GenerationOptions,
  type GenerationResult,
  type GenerationSetting,
  generate,
  type Piece,
} from './generate.ts'
import { createLookup } from './lookup.ts'
import { type Prompt, preparePicture } from './prompt.ts'
import { trace } from './trace.ts'
import { generateUncached } from './uncached.ts'

const config = tinyConfig({ language: { context: 96 } })
let model: CompiledModel
let tokenizer: Tokenizer
beforeAll(async () => {
  model = await compileModel({ config, weights: randomWeights(config) }, { threads: 1 })
  tokenizer = loadTokenizer({ tokenizerJson: JSON.parse(tinyFiles(config)['tokenizer.json']!) })
})
afterAll(() => disposeModel(model))

const picture = preparePicture(randomView(config, { seed: 5 }), config)
const prompt: Prompt = { ids: Int32Array.of(1, 50, 60, 3, 3, 3, 3, 70, 80), pictures: [{ ...picture, start: 3 }] }

async function collect(
  options: GenerationOptions & Partial<GenerationSetting> = {},
  given: Prompt = prompt,
): Promise<{ pieces: Piece[]; text: string; tokens: number[]; result: GenerationResult }> {
  const pieces: Piece[] = []
  const generator = generate(model, given, { tokenizer, stopTokens: [], maxTokens: 16, ...options })
  for (let next = await generator.next(); ; next = await generator.next()) {
    if (next.done) {
      const tokens = pieces.map(({ token }) => token)
      return { pieces, tokens, text: pieces.map(({ text }) => text).join(''), result: next.value }
    }
    pieces.push(next.value)
  }
}

describe('an answer', () => {
  test('is the greedy one of the naive twin, and its texts add up to the decoded tokens', async () => {
    const { tokens, text, result } = await collect()
    const slow = await generateUncached(model, prompt, { maxTokens: 16 })
    expect(tokens).toEqual(slow.map(({ token }) => token))
    expect(text).toBe(decode(tokenizer, tokens, { leadingSpace: 'trim' }))
    expect(result.finishReason).toBe('length')
    expect(result.usage).toEqual({ promptTokens: 9, imageTokens: 4, reusedTokens: 0, completionTokens: 16 })
    for (const ms of Object.values(result.timings)) expect(ms).toBeGreaterThan(0)
  })

  test('ends with a stop token, whose text is not part of it', async () => {
    const { tokens: all } = await collect()
    const end = all.findIndex((token, i) => i >= 4 && all.indexOf(token) === i)
    const { tokens, text, result } = await collect({ stopTokens: [all[end]!] })
    expect(tokens).toEqual(all.slice(0, end + 1))
    expect(text).toBe(decode(tokenizer, all.slice(0, end), { leadingSpace: 'trim' }))
    expect([result.finishReason, result.usage.completionTokens]).toEqual(['stop', end + 1])
  })

  test('ends before a stop string that straddles tokens', async () => {
    const { pieces, text: whole } = await collect()
    const border = pieces.slice(0, 6).reduce((length, { text }) => length + text.length, 0)
    const stop = whole.slice(border - 1, border + 2)
    const { text, result } = await collect({ stop: [stop] })
    expect(text).toBe(whole.slice(0, whole.indexOf(stop)))
    expect(result.finishReason).toBe('stop')
    expect(result.usage.completionTokens).toBeLessThan(16)
  })

  test('is the same for the same seed', async () => {
    const drawn = (seed: number) => collect({ temperature: 1.5, topK: 50, seed })
    const [first, again, other] = [await drawn(1), await drawn(1), await drawn(2)]
    expect(first.tokens).toEqual(again.tokens)
    expect(first.tokens).not.toEqual(other.tokens)
  })

  test('never repeats a token under a heavy repetition penalty', async () => {
    const { tokens } = await collect({ repetitionPenalty: 1e9 })
    expect(new Set(tokens).size).toBe(16)
  })

  test('comes with log-probabilities on request', async () => {
    const { pieces } = await collect({ logprobs: 3 })
    for (const { token, logprob, alternatives } of pieces) {
      expect(alternatives).toHaveLength(3)
      expect(alternatives?.[0]).toEqual({ token, logprob })
      expect(logprob).toBeLessThan(0)
    }
    expect((await collect()).pieces[0]).not.toHaveProperty('logprob')
  })

  test('ends where the context is full', async () => {
    const { result } = await collect({ maxTokens: undefined })
    expect(result.usage.completionTokens).toBe(96 - 9)
    expect(result.finishReason).toBe('length')
  })
})

describe('guessing by lookup', () => {
  /** A model of random weights soon goes in circles. */
  const long: GenerationOptions = { maxTokens: 60 }
  /** Where the answer goes on with a token that was guessed. */
  const guessedIn = (ids: Int32Array, tokens: readonly number[]): number[] => {
    const lookup = createLookup(ids, { never: [config.imageToken] })
    let guessed: number[] = []
    return [...tokens.keys()].filter((i) => {
      lookup.push(tokens[i]!)
      const right = guessed[0] === tokens[i]
      guessed = right ? guessed.slice(1) : lookup.guess(3)
      return right
    })
  }
  const both = async (options: GenerationOptions & Partial<GenerationSetting>) => {
    const held: (readonly number[])[] = []
    const answers: Awaited<ReturnType<typeof collect>>[] = []
    for (const lookup of [false, true]) {
      const context = openContext(model)
      answers.push(await collect({ ...long, ...options, lookup, context }))
      held.push([...context.read.ids])
      closeContext(context)
    }
    const [plain, guessed] = answers
    expect(guessed!.tokens).toEqual(plain!.tokens)
    expect(guessed!.pieces.map(({ text }) => text)).toEqual(plain!.pieces.map(({ text }) => text))
    expect(guessed!.result).toMatchObject({ usage: plain!.result.usage, finishReason: plain!.result.finishReason })
    expect(held[1]).toEqual(held[0])
    return guessed!
  }

  test.each([
    ['greedily', {}],
    ['under a repetition penalty', { repetitionPenalty: 1.1 }],
    ['drawn with a seed', { temperature: 0.3, topK: 3, seed: 4 }],
    ['to the end of the context', { maxTokens: undefined }],
  ])('gives the same answer, %s', async (_, options) => {
    const { tokens } = await both(options)
    if (Object.keys(options).length === 0) expect(guessedIn(prompt.ids, tokens).length).toBeGreaterThan(5)
  })

  test('ends where it would have ended, in the middle of what was guessed too', async () => {
    const { tokens, pieces } = await both({})
    const right = guessedIn(prompt.ids, tokens)
    const inside = right.filter((i) => right.includes(i - 1) && right.includes(i + 1))
    const [at = -1] = inside
    expect(at).toBeGreaterThan(0)
    expect((await both({ maxTokens: at + 1 })).tokens).toHaveLength(at + 1)
    const before = pieces.slice(0, at).reduce((length, { text }) => length + text.length, 0)
    const whole = pieces.map(({ text }) => text).join('')
    await both({ stop: [whole.slice(before - 30, before + 1)] })
    await both({ stopTokens: [tokens[at]!] })

    const controller = new AbortController()
    const context = openContext(model)
    const generator = generate(model, prompt, { tokenizer, stopTokens: [], context, signal: controller.signal })
    for (let i = 0; i <= at; i++) await generator.next()
    controller.abort()
    const { value } = await generator.next()
    expect(value).toMatchObject({ finishReason: 'abort', usage: { completionTokens: at + 1 } })
    expect(context.read.ids.length).toBeLessThanOrEqual(prompt.ids.length + at + 1)
    closeContext(context)
  })

  test('gives each token the log-probabilities that it has alone', async () => {
    const { pieces } = await both({ logprobs: 1 })
    const alone = await collect({ ...long, logprobs: 1, lookup: false })
    for (const [i, { logprob }] of pieces.entries()) expect(logprob).toBeCloseTo(alone.pieces[i]!.logprob!, 4)
  })
})

test('a prompt longer than the context is refused before anything is computed', async () => {
  const ids = new Int32Array(120).fill(10)
  ids.fill(config.imageToken, 3, 7)
  const fresh = { ...model, recentPictures: new Map() }
  const long = { ids, pictures: prompt.pictures }
  const started = generate(fresh, long, { tokenizer, stopTokens: [] }).next()
  await expect(started).rejects.toThrow(
    new RangeError(
      'Cannot generate: the prompt has 120 tokens (4 of them visual tokens), expected fewer than the context of 96',
    ),
  )
  expect(fresh.recentPictures.size).toBe(0)
})

test.each([{ maxTokens: 0 }, { logprobs: -1 }, { topP: 2 }, { stop: [''] }])('refuses %j', async (options) => {
  await expect(collect(options)).rejects.toThrow(RangeError)
})

async function lastOf(generator: AsyncGenerator<Piece, GenerationResult>): Promise<GenerationResult> {
  for (let next = await generator.next(); ; next = await generator.next()) if (next.done) return next.value
}

describe('a signal', () => {
  test('that has fired already ends it before the prompt', async () => {
    const { pieces, result } = await collect({ signal: AbortSignal.abort() })
    expect([pieces.length, result.finishReason]).toEqual([0, 'abort'])
  })

  test('ends it between tokens', async () => {
    const controller = new AbortController()
    const generator = generate(model, prompt, { tokenizer, stopTokens: [], signal: controller.signal })
    for (let i = 0; i < 3; i++) expect((await generator.next()).done).toBe(false)
    controller.abort()
    const { done, value } = await generator.next()
    expect([done, value]).toMatchObject([true, { finishReason: 'abort', usage: { completionTokens: 3 } }])
  })

  // Compares two times, so a busy machine may need another try.
  test('stops a running prefill, and the context can be used again', { retry: 2 }, async () => {
    const large = tinyConfig({ language: { context: 4096, depth: 4 } })
    const slow = await compileModel({ config: large, weights: randomWeights(large) }, { threads: 1 })
    const context = openContext(slow)
    const ids = Int32Array.from({ length: 2048 }, (_, i) => 10 + (i % 300))
    const options = { tokenizer, stopTokens: [], maxTokens: 1, context }
    const started = performance.now()
    await lastOf(generate(slow, { ids, pictures: [] }, options))
    const whole = performance.now() - started
    closeContext(context)

    const next = openContext(slow)
    const controller = new AbortController()
    setTimeout(() => controller.abort(), whole / 10)
    const stopped = performance.now()
    const { value } = await generate(
      slow,
      { ids, pictures: [] },
      { ...options, context: next, signal: controller.signal },
    ).next()
    expect(value).toMatchObject({ finishReason: 'abort', usage: { completionTokens: 0 } })
    expect(performance.now() - stopped).toBeLessThan(whole * 0.8)
    expect(
      (await generate(slow, { ids: ids.slice(0, 9), pictures: [] }, { ...options, context: next }).next()).done,
    ).toBe(false)
    await disposeModel(slow)
  })
})

describe('a context kept between turns', () => {
  test('reads only what is new, and answers as if it had read all', async () => {
    const context = openContext(model)
    const first = await collect({ context, maxTokens: 6 })
    const ids = Int32Array.of(...prompt.ids, ...first.tokens, 90, 91, 92)
    const second = await collect({ context }, { ...prompt, ids })
    const alone = await collect({}, { ...prompt, ids })
    // The last token of the first answer was chosen, not read.
    expect(second.result.usage.reusedTokens).toBe(9 + 5)
    expect(second.tokens).toEqual(alone.tokens)
    expect(second.result.timings.imageMs).toBeLessThan(1)

    const edited = { ...prompt, ids: Int32Array.of(...prompt.ids, 90, 91) }
    const third = await collect({ context }, edited)
    expect(third.result.usage.reusedTokens).toBe(9)
    expect(third.tokens).toEqual((await collect({}, edited)).tokens)
    closeContext(context)
  })

  test('notices another picture in the same place', async () => {
    const context = openContext(model)
    await collect({ context })
    const other = preparePicture(randomView(config, { seed: 9 }), config)
    const changed = { ...prompt, pictures: [{ ...other, start: 3 }] }
    const { tokens, result } = await collect({ context }, changed)
    expect(result.usage.reusedTokens).toBe(3)
    expect(tokens).toEqual((await collect({}, changed)).tokens)
    expect(tokens).not.toEqual((await collect()).tokens)
    closeContext(context)
  })

  test('takes one answer at a time, and none once closed', async () => {
    const context = openContext(model)
    const generator = generate(model, prompt, { tokenizer, stopTokens: [], context })
    await generator.next()
    await expect(collect({ context })).rejects.toThrow(/generating already/)
    expect(() => closeContext(context)).toThrow(/generating/)
    await generator.return(undefined as never)
    expect((await collect({ context })).tokens).toHaveLength(16)
    closeContext(context)
    closeContext(context)
    await expect(collect({ context })).rejects.toThrow(/closed/)
  })
})

test('a model whose weights are broken says so instead of talking nonsense', async () => {
  const weights = new Map(randomWeights(config))
  weights.set('languageModel.norm.weight', { shape: [32], data: new Float32Array(32).fill(Number.NaN) })
  const broken = await compileModel({ config, weights }, { threads: 1 })
  const started = generate(broken, prompt, { tokenizer, stopTokens: [] }).next()
  await expect(started).rejects.toThrow(/Cannot choose a token: logit 0 of 320 is NaN/)
  await disposeModel(broken)
})

test('a trace names every intermediate, and its last logits are those that generation starts from', async () => {
  const values = await trace(model, prompt)
  const shapes = Object.fromEntries([...values].map(([name, { shape }]) => [name, shape]))
  expect(shapes).toEqual({
    ids: [1, 9],
    pixels: [1, 3, 8, 8],
    patchFeatures: [1, 4, 16],
    visualTokens: [4, 32],
    mergedEmbeddings: [1, 9, 32],
    'hiddenStates.0': [1, 9, 32],
    'hiddenStates.1': [1, 9, 32],
    'hiddenStates.2': [1, 9, 32],
    'hiddenStates.3': [1, 9, 32],
    logits: [1, 9, 320],
  })
  for (const { shape, data } of values.values()) expect(data.length).toBe(shape.reduce((a, b) => a * b, 1))
  const merged = values.get('mergedEmbeddings')!.data
  expect(merged.slice(3 * 32, 7 * 32)).toEqual(values.get('visualTokens')!.data)
  const last = values.get('logits')!.data.slice(-320)
  expect(last.indexOf(Math.max(...last))).toBe((await collect({ maxTokens: 1 })).tokens[0])
  const blind = await trace(model, { ids: Int32Array.of(1, 20, 30), pictures: [] })
  expect(blind.has('pixels')).toBe(false)
})
