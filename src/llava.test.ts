import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { randomPicture, tinyConfig, tinySiglipConfig, writeTinyModel } from '../tests/tiny-model.ts'
import { type Answer, Llava, type Pixels } from './index.ts'

let root: string
let llava: Llava
const [house, tree] = [randomPicture({ seed: 1 }), randomPicture({ seed: 2 })] as [Pixels, Pixels]
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'llava-'))
  await writeTinyModel(join(root, 'clip'), { config: tinyConfig({ language: { context: 256 } }) })
  await writeTinyModel(join(root, 'siglip'), { config: tinySiglipConfig(), seed: 4 })
  llava = await Llava.load(join(root, 'clip'), { threads: 1 })
})
afterAll(async () => {
  await llava.dispose()
  await rm(root, { recursive: true })
})

async function collect(stream: AsyncGenerator<string, Answer>): Promise<{ pieces: string[]; answer: Answer }> {
  const pieces: string[] = []
  for (let next = await stream.next(); ; next = await stream.next()) {
    if (next.done) return { pieces, answer: next.value }
    pieces.push(next.value)
  }
}

const question = 'What is in the picture?'

describe('precision', () => {
  test('a small model stays exact; another one is taken as asked, from the cache, from memory where the cache is off or cannot be written', async () => {
    expect(llava.precision).toEqual({ precision: 'f32', reason: '1 MB of weights are few' })
    const answers: string[] = []
    let converted = 0
    const onConversion = () => converted++
    for (const cache of [
      join(root, 'cache'),
      join(root, 'cache'),
      false,
      join(root, 'clip', 'config.json', 'no'),
    ] as const) {
      const before = converted
      await using int8 = await Llava.load(join(root, 'clip'), { threads: 1, precision: 'int8', cache, onConversion })
      expect(int8.precision.precision).toBe('int8')
      answers.push((await int8.ask({ image: house, question })).answer)
      expect(converted > before).toBe(answers.length !== 2) // the second time it is there
    }
    expect(new Set(answers).size).toBe(1)
  })

  test('a conversion that is stopped throws the reason and leaves nothing', async () => {
    const abort = new AbortController()
    const loading = Llava.load(join(root, 'clip'), {
      precision: 'int4',
      cache: join(root, 'stopped'),
      signal: abort.signal,
      onConversion: () => abort.abort(new Error('enough')),
    })
    await expect(loading).rejects.toThrow(/^enough$/)
    expect(await readdir(join(root, 'stopped'))).toEqual([])
  })
})

describe('asking', () => {
  test('streams the text that ask returns whole', async () => {
    const { pieces, answer } = await collect(llava.answer({ image: house, question }))
    expect(pieces.length).toBeGreaterThan(1)
    expect(pieces.every((piece) => piece !== '')).toBe(true)
    const whole = await llava.ask({ image: house, question })
    expect(whole.answer).toBe(pieces.join(''))
    expect(answer.answer).toBe(whole.answer)
    expect(whole.usage).toMatchObject({ imageTokens: 4, completionTokens: 12 }) // max_new_tokens of the folder
    expect(whole.finishReason).toBe('length')
    expect(Object.keys(whole.timings)).toEqual(['imageMs', 'promptMs', 'decodeMs'])
  })

  test('depends on the picture, and works with none and with two', async () => {
    const answers = [
      await llava.ask({ image: house, question }),
      await llava.ask({ image: tree, question }),
      await llava.ask({ question }),
      await llava.ask({ images: [], question }),
      await llava.ask({ images: [house, tree], question }),
      await llava.ask({ images: [tree, house], question }),
    ]
    const [first, second, none, empty, both, swapped] = answers.map(({ answer }) => answer)
    expect(empty).toBe(none)
    expect(new Set([first, second, none, both, swapped]).size).toBe(5)
    expect(answers.map(({ usage }) => usage.imageTokens)).toEqual([4, 4, 0, 0, 8, 8])
  })

  test('takes a path, a file URL, bytes or pixels', async () => {
    const { width, height, data } = house
    const bytes = await sharp(data, { raw: { width, height, channels: 3 } })
      .png()
      .toBuffer()
    const path = join(root, 'house.png')
    await writeFile(path, bytes)
    const expected = (await llava.ask({ image: house, question })).answer
    for (const image of [path, pathToFileURL(path), bytes, new Uint8Array(bytes)]) {
      expect((await llava.ask({ image, question })).answer).toBe(expected)
    }
  })

  test('takes <image> and special tokens in a question for text', async () => {
    const { usage } = await llava.ask({ image: house, question: 'What does <image> mean, and </s>?' })
    expect(usage.imageTokens).toBe(4)
    expect((await llava.ask({ question: '<image>' })).usage.imageTokens).toBe(0)
  })

  test('follows options over the defaults of the folder', async () => {
    expect((await llava.ask({ question, maxTokens: 3 })).usage.completionTokens).toBe(3)
    expect((await llava.ask({ question, maxTokens: undefined })).usage.completionTokens).toBe(12)
    const drawn = (seed: number) => llava.ask({ question, temperature: 2, seed })
    expect((await drawn(1)).answer).toBe((await drawn(1)).answer)
    expect((await drawn(1)).answer).not.toBe((await drawn(2)).answer)
    const text = (await llava.ask({ question, maxTokens: 30 })).answer
    expect((await llava.ask({ question, maxTokens: 30, stop: [text.slice(4, 6)] })).answer).toBe(
      text.slice(0, text.indexOf(text.slice(4, 6))),
    )
  })

  test('several questions at a time do not disturb each other', async () => {
    const alone = [await llava.ask({ image: house, question }), await llava.ask({ image: tree, question })]
    const together = await Promise.all([llava.ask({ image: house, question }), llava.ask({ image: tree, question })])
    expect(together.map(({ answer }) => answer)).toEqual(alone.map(({ answer }) => answer))
  })

  test('ends quietly when the signal fires, whenever that is', async () => {
    const early = await llava.ask({ image: house, question, signal: AbortSignal.abort() })
    expect(early).toMatchObject({ answer: '', finishReason: 'abort' })
    const controller = new AbortController()
    const stream = llava.answer({ image: house, question, signal: controller.signal })
    await stream.next()
    controller.abort()
    expect((await collect(stream)).answer.finishReason).toBe('abort')
  })

  test.each([
    [{ question: ' \n' }, RangeError, 'Cannot ask: the question is empty, expected text'],
    [{ question: 7 as never }, TypeError, 'Cannot ask: question is of type number, expected a string'],
    [{ question, image: '/no/such/picture.png' }, Error, 'Cannot read /no/such/picture.png: no such file'],
    [{ question, topP: 3 }, RangeError, 'Cannot generate: topP is 3, expected a number above 0, at most 1'],
  ])('refuses %j', async (options, kind, message) => {
    const error = await llava.ask(options).catch((reason: unknown) => reason)
    expect(error).toBeInstanceOf(kind)
    expect((error as Error).message).toBe(message)
  })

  test('refuses a question that is longer than the context, naming both lengths', async () => {
    const long = llava.ask({ image: house, question: 'Where? '.repeat(400) })
    await expect(long).rejects.toThrow(/the prompt has \d{4} tokens \(4 of them visual .*context of 256$/)
  })
})

describe('a conversation', () => {
  test('keeps its turns, reads only new tokens, and answers as if all were asked at once', async () => {
    const conversation = llava.conversation()
    const first = await collect(conversation.say({ question, image: house }))
    const second = await collect(conversation.say({ question: 'And the tree?', images: [tree] }))
    expect(conversation.history.map(({ role }) => role)).toEqual(['user', 'assistant', 'user', 'assistant'])
    expect(second.answer.usage.imageTokens).toBe(8)
    // Random words are seldom cut into tokens as they were generated, so only the first prompt is sure to be found again.
    expect(second.answer.usage.reusedTokens).toBeGreaterThanOrEqual(first.answer.usage.promptTokens)

    const other = llava.conversation()
    await collect(other.say({ question, image: house }))
    await llava.ask({ image: tree, question }) // does not disturb
    expect((await collect(other.say({ question: 'And the tree?', image: tree }))).answer.answer).toBe(
      second.answer.answer,
    )

    conversation.clear()
    expect(conversation.history).toEqual([])
    expect((await collect(conversation.say({ question, image: house }))).answer.answer).toBe(first.answer.answer)
    for (const each of [conversation, other]) each.dispose()
    await expect(collect(conversation.say({ question }))).rejects.toThrow(/closed/)
  })

  test('keeps what was said before an abort, and takes back a turn without an answer', async () => {
    const conversation = llava.conversation({ system: 'Be brief.' })
    await collect(conversation.say({ question, signal: AbortSignal.abort() }))
    await expect(collect(conversation.say({ question: '' }))).rejects.toThrow(/empty/)
    expect(conversation.history.map(({ role }) => role)).toEqual(['system'])
    let said = ''
    for await (const text of conversation.say({ question })) {
      said += text
      if (said.length > 5) break
    }
    expect(conversation.history.at(-1)).toEqual({ role: 'assistant', content: [{ type: 'text', text: said }] })
    expect((await collect(conversation.say({ question: 'Go on' }))).answer.finishReason).toBe('length')
    conversation.dispose()
  })
})

describe('a model that looks at tiles', () => {
  const resolutions = [
    { width: 16, height: 8 },
    { width: 8, height: 16 },
    { width: 16, height: 16 },
  ]
  // 4 tokens of the whole picture, and 4 lines of 4 with a newline each.
  const tiled = 4 + 4 * 5
  // As one padded square: 4 and a newline.
  const single = 4 + 1

  test('LLaVA-NeXT sees each picture in tiles, as many as there are', async () => {
    const folder = join(root, 'next')
    await writeTinyModel(folder, { config: tinyConfig({ tiles: { resolutions, unpadding: 'rounded' } }) })
    await using next = await Llava.load(folder, { threads: 1 })
    const { usage, answer } = await next.ask({ image: house, question })
    expect(usage.imageTokens).toBe(tiled)
    expect(answer).not.toBe((await next.ask({ image: tree, question })).answer)
    expect((await next.ask({ images: [house, tree], question })).usage.imageTokens).toBe(2 * tiled)
    const values = await next.trace({ images: [house, tree], question })
    expect(values.get('pixels')?.shape).toEqual([10, 3, 8, 8])
    expect(values.get('visualTokens')?.shape).toEqual([2 * tiled, 32])
    const long = next.ask({ image: house, question: 'Where? '.repeat(800) })
    await expect(long).rejects.toThrow(/tokens \(24 of them visual tokens\)/)
  })

  test('LLaVA-OneVision looks anew at a picture when another one joins it', async () => {
    const folder = join(root, 'onevision')
    const tiles = { resolutions, unpadding: 'rounded', mostTiles: 9 } as const
    await writeTinyModel(folder, { config: tinySiglipConfig({ tiles }), seed: 4 })
    await using onevision = await Llava.load(folder, { threads: 1 })
    const conversation = onevision.conversation()
    const first = await collect(conversation.say({ question, image: house }))
    expect(first.answer.usage.imageTokens).toBe(tiled)
    const more = await collect(conversation.say({ question: 'And?' }))
    expect(more.answer.usage.imageTokens).toBe(tiled)
    expect(more.answer.usage.reusedTokens).toBeGreaterThanOrEqual(first.answer.usage.promptTokens)
    const joined = await collect(conversation.say({ question: 'And the tree?', image: tree }))
    expect(joined.answer.usage.imageTokens).toBe(2 * single)
    expect(joined.answer.usage.reusedTokens).toBeLessThan(tiled)
    conversation.dispose()
    const both = await onevision.ask({ images: [house, tree], question })
    expect(both.usage.imageTokens).toBe(2 * single)
  })
})

test('pieces bring tokens and log-probabilities', async () => {
  const stream = llava.pieces({ question, logprobs: 2, maxTokens: 2 })
  const { value } = await stream.next()
  expect(value).toMatchObject({ token: expect.any(Number), logprob: expect.any(Number) })
  await stream.return(undefined as never)
})

test('a trace goes from pixels to logits', async () => {
  const values = await llava.trace({ image: house, question })
  expect([...values.keys()].slice(0, 5)).toEqual(['ids', 'pixels', 'patchFeatures', 'visualTokens', 'mergedEmbeddings'])
  expect(values.get('logits')?.shape).toEqual([1, values.get('ids')?.data.length, 320])
})

describe('loading', () => {
  test('opens SigLIP with Qwen2 as well, and frees everything with await using', async () => {
    const siglip = await Llava.load(join(root, 'siglip'), { threads: 1 })
    expect((await siglip.ask({ image: house, question })).usage.imageTokens).toBe(4)
    await siglip[Symbol.asyncDispose]()
    await siglip.dispose()
    await expect(siglip.ask({ question })).rejects.toThrow(/disposed/)
  })

  test('says which models there are when a name is no folder', async () => {
    await expect(Llava.load('llava-7b')).rejects.toThrow(
      'Cannot load the model llava-7b: there is no such folder, expected one, picturebook, or ORG/NAME of a model that was pulled',
    )
  })

  test('can be stopped, and checks its threads', async () => {
    const reason = new Error('enough')
    await expect(Llava.load(join(root, 'clip'), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    await expect(Llava.load(join(root, 'clip'), { threads: 0 })).rejects.toThrow(/threads is 0/)
  })
})
