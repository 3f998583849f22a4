import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { randomView, randomWeights, tinyConfig, tinySiglipConfig } from '../../tests/tiny-model.ts'
import type { LlavaConfig } from '../model/config.ts'
import { type Batch, closeBatch, freeRows, openBatch, openRow } from './batch.ts'
import { type CompiledModel, compileModel, disposeModel } from './compiled-model.ts'
import { closeContext, openContext, readPrompt, readToken } from './context.ts'
import { type Prompt, preparePicture } from './prompt.ts'
import { greedy } from './sampling.ts'

const config = tinyConfig({ language: { keyValueHeads: 2 } })
let model: CompiledModel
const batches: Batch[] = []
beforeAll(async () => {
  model = await compileModel({ config, weights: randomWeights(config) }, { threads: 1 })
})
afterAll(async () => {
  for (const batch of batches) await closeBatch(batch)
  await disposeModel(model)
})

function open(rows: number): Batch {
  const batch = openBatch(model, { rows })
  batches.push(batch)
  return batch
}

/** A few words, a picture when a seed is given, and more words. */
function promptOf(
  seed: number,
  { words, picture }: { words: number; picture?: number },
  of: LlavaConfig = config,
): Prompt {
  const ids = Array.from({ length: words }, (_, i) => 10 + ((seed * 31 + i * 17) % 300))
  if (picture === undefined) return { ids: Int32Array.from(ids), pictures: [] }
  const placeholders = new Array<number>(of.visualTokens).fill(of.imageToken)
  const shown = { ...preparePicture(randomView(of, { seed: picture }), of), start: 1 }
  return { ids: Int32Array.from([1, ...placeholders, ...ids]), pictures: [shown] }
}

/** Greedy tokens on a context, which is closed afterwards. `pause` is awaited before each token. */
async function answer(
  context: ReturnType<typeof openContext>,
  prompt: Prompt,
  { count, pause = async () => {} }: { count: number; pause?: (index: number) => Promise<void> },
): Promise<number[]> {
  let { logits } = await readPrompt(context, prompt)
  const tokens = [greedy(logits)]
  while (tokens.length < count) {
    await pause(tokens.length)
    logits = await readToken(context, tokens.at(-1)!)
    tokens.push(greedy(logits))
  }
  closeContext(context)
  return tokens
}

const conversations = [
  { prompt: promptOf(1, { words: 5 }), count: 12 },
  { prompt: promptOf(2, { words: 40, picture: 5 }), count: 30 },
  { prompt: promptOf(3, { words: 3, picture: 6 }), count: 3 },
  { prompt: promptOf(4, { words: 17 }), count: 20 },
  { prompt: promptOf(5, { words: 250 }), count: 25 }, // more than the first capacity holds: the cache grows while others are in it
  { prompt: promptOf(6, { words: 9, picture: 5 }), count: 8 },
]

async function alone(): Promise<number[][]> {
  const answers: number[][] = []
  for (const { prompt, count } of conversations) answers.push(await answer(openContext(model), prompt, { count }))
  return answers
}

describe('a batch answers as each conversation alone', () => {
  test('all at once', async () => {
    const batch = open(conversations.length)
    const answers = await Promise.all(
      conversations.map(({ prompt, count }) => answer(openRow(batch), prompt, { count })),
    )
    const expected = await alone()
    expect(answers).toEqual(expected)
    expect(new Set(expected.flat()).size).toBeGreaterThan(10) // constant answers would prove little
    expect(freeRows(batch)).toBe(conversations.length)
  })

  test('joining and leaving while others go on, two rows for six conversations, some slow', async () => {
    const batch = open(2)
    const expected = await alone()
    const todo = conversations.map((conversation, index) => ({ ...conversation, index }))
    const answers: number[][] = []
    const worker = async (slow: boolean) => {
      for (let next = todo.shift(); next !== undefined; next = todo.shift()) {
        const pause = async (i: number) => {
          if (slow && i % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 3))
        }
        answers[next.index] = await answer(openRow(batch), next.prompt, { count: next.count, pause })
      }
    }
    await Promise.all([worker(false), worker(true)])
    expect(answers).toEqual(expected)
  })

  test('with a tied head and grouped keys', async () => {
    const siglip = tinySiglipConfig()
    const other = await compileModel(
      { config: siglip, weights: randomWeights(siglip) },
      { threads: 1, precision: 'f32' },
    )
    const batch = openBatch(other, { rows: 3 })
    const prompts = [1, 2, 3].map((seed) => promptOf(seed, { words: 4 * seed, picture: seed }, siglip))
    const together = await Promise.all(prompts.map((prompt) => answer(openRow(batch), prompt, { count: 10 })))
    const single: number[][] = []
    for (const prompt of prompts) single.push(await answer(openContext(other), prompt, { count: 10 }))
    expect(together).toEqual(single)
    await closeBatch(batch)
    await disposeModel(other)
  })
})

test('a step serves all rows that wait: far fewer steps than tokens', async () => {
  let steps = 0
  const counted: CompiledModel = {
    ...model,
    sessions: new Proxy(model.sessions, {
      get(target, name: keyof typeof model.sessions) {
        if (name === 'step') steps++
        return target[name]
      },
    }),
  }
  const batch = openBatch(counted, { rows: 4 })
  await Promise.all([1, 2, 3, 4].map((seed) => answer(openRow(batch), promptOf(seed, { words: 6 }), { count: 20 })))
  await closeBatch(batch)
  expect(steps).toBeGreaterThanOrEqual(19)
  expect(steps).toBeLessThan(40) // one by one it would be 76
})

test('a second turn on a row computes only what is new', async () => {
  const batch = open(2)
  const context = openRow(batch)
  const first = promptOf(1, { words: 20, picture: 5 })
  await readPrompt(context, first)
  const longer = { ...first, ids: Int32Array.from([...first.ids, 50, 51, 52]) }
  const { reused, logits } = await readPrompt(context, longer)
  expect(reused).toBe(first.ids.length)
  const whole = await readPrompt(openContext(model), longer)
  expect(greedy(logits)).toBe(greedy(whole.logits))
  closeContext(context)
})

test('a signal ends one row and leaves the others alone', async () => {
  const batch = open(2)
  const abort = new AbortController()
  const [stopped, other] = [openRow(batch), openRow(batch)]
  await readPrompt(stopped, promptOf(1, { words: 5 }))
  const going = answer(other, promptOf(2, { words: 5 }), { count: 15 })
  const waiting = readToken(stopped, 7, { signal: abort.signal })
  abort.abort(new Error('enough'))
  await expect(waiting).rejects.toThrow('enough')
  closeContext(stopped)
  expect(await going).toEqual(await answer(openContext(model), promptOf(2, { words: 5 }), { count: 15 }))
})

test('no more conversations than rows, none in a closed batch, and memory bounds the context of each row', async () => {
  const batch = openBatch({ ...model, contextMemory: 200_000 }, { rows: 2 })
  expect(batch.model.context).toBeLessThan(model.context)
  const taken = [openRow(batch), openRow(batch)]
  expect(() => openRow(batch)).toThrow('all 2 rows are taken')
  await expect(readPrompt(taken[0]!, promptOf(1, { words: 500 }))).rejects.toThrow(
    /expected fewer than \d+: each takes/,
  )
  closeContext(taken[0]!)
  expect(freeRows(batch)).toBe(1)
  await closeBatch(batch)
  expect(() => openRow(batch)).toThrow('it is closed')
  expect(() => openBatch(model, { rows: 0 })).toThrow(RangeError)
})
