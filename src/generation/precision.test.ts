import { describe, expect, test } from 'vitest'
import { llava7B } from '../../bench/shapes.ts'
import { restoredWeights } from '../../tests/restored-weights.ts'
import { randomView, randomWeights, tinyConfig, tinySiglipConfig } from '../../tests/tiny-model.ts'
import { expectedTensors } from '../checkpoint/layouts.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { Device } from '../runtime/device.ts'
import { type CompiledModel, compileModel, disposeModel } from './compiled-model.ts'
import { closeContext, openContext, readPrompt, readToken } from './context.ts'
import { expectHostCache } from './kv-cache.ts'
import { bytesOfWeights, choosePrecision, formOf, formsOf, type Precision, precisions, type Role } from './precision.ts'
import { type Prompt, preparePicture } from './prompt.ts'
import { greedy } from './sampling.ts'
import { trace } from './trace.ts'
import { generateUncached } from './uncached.ts'
import { bytesOfParts, partsOf } from './weight-forms.ts'

/** Wide enough for blocks to be whole. */
const config = tinyConfig({
  language: { width: 128, heads: 4, keyValueHeads: 4, headSize: 32, mlpWidth: 192, context: 64 },
})

function promptOf(of: LlavaConfig): Prompt {
  const placeholders = new Array<number>(of.visualTokens).fill(of.imageToken)
  const picture = { ...preparePicture(randomView(of, { seed: 5 }), of), start: 1 }
  return { ids: Int32Array.from([1, ...placeholders, 20, 33, 47, 51]), pictures: [picture] }
}

/** Logits of the prompt and of a few given tokens. */
async function logitsOf(model: CompiledModel): Promise<Float32Array[]> {
  const context = openContext(model)
  const all = [(await readPrompt(context, promptOf(model.config))).logits]
  for (const token of [60, 61, 62]) all.push(await readToken(context, token))
  closeContext(context)
  return all
}

function relativeError(found: readonly Float32Array[], expected: readonly Float32Array[]): number {
  let [error, size] = [0, 0]
  for (const [step, logits] of expected.entries()) {
    for (const [i, value] of logits.entries()) {
      error += (found[step]![i]! - value) ** 2
      size += value ** 2
    }
  }
  return Math.sqrt(error / size)
}

describe.each([
  ['CLIP with LLaMA', config],
  ['SigLIP with Qwen2, tied head', tinySiglipConfig({ language: { width: 64, context: 64 } })],
])('%s', (_, config) => {
  test.each(['int8', 'int4', 'int4-128'] as const)('in %s computes what its codes stand for', async (precision) => {
    const weights = randomWeights(config)
    const [coded, plain] = [
      await compileModel({ config, weights }, { precision, threads: 1 }),
      await compileModel({ config, weights: restoredWeights(weights, precision) }, { threads: 1 }),
    ]
    // What is left is the rounding of the activations to 8 bits, layer after layer.
    expect(relativeError(await logitsOf(coded), await logitsOf(plain))).toBeLessThan(0.06)
    await disposeModel(coded)
    await disposeModel(plain)
  })

  test('in f16 computes what float32 computes, to the rounding of the weights', async () => {
    const weights = randomWeights(config)
    const half = await compileModel({ config, weights }, { precision: 'f16', threads: 1 })
    const plain = await compileModel({ config, weights }, { threads: 1 })
    const error = relativeError(await logitsOf(half), await logitsOf(plain))
    expect(error).toBeGreaterThan(0)
    expect(error).toBeLessThan(0.003)
    await disposeModel(half)
    await disposeModel(plain)
  })
})

test.each(
  precisions.filter((precision) => precision !== 'mixed'),
)('cached generation in %s follows the uncached', async (precision) => {
  const model = await compileModel({ config, weights: randomWeights(config) }, { precision, threads: 1 })
  const prompt = promptOf(config)
  const slow = await generateUncached(model, prompt, { maxTokens: 6 })
  const context = openContext(model)
  const fast = [(await readPrompt(context, prompt)).logits]
  for (const { token } of slow.slice(0, -1)) fast.push(await readToken(context, token))
  // A last bit that differs may round an activation to the neighbouring code.
  expect(
    relativeError(
      fast,
      slow.map(({ logits }) => logits),
    ),
  ).toBeLessThan(precision === 'f32' || precision === 'f16' ? 1e-4 : 0.02)
  expect(greedy(fast[0]!)).toBe(slow[0]!.token)
  await disposeModel(model)
})

test('mixed reads prompts in codes of channels and answers in blocks', async () => {
  const weights = randomWeights(config)
  const compile = (of: typeof weights, precision: Precision) =>
    compileModel({ config, weights: of }, { precision, threads: 1 })
  const [mixed, blocks] = [await compile(weights, 'mixed'), await compile(weights, 'int4-128')]
  const plain = await compile(restoredWeights(weights, 'mixed'), 'f32') // the form of prompts is the first
  const [prompt, ...answers] = await logitsOf(mixed)
  expect(relativeError([prompt!], [(await logitsOf(plain))[0]!])).toBeLessThan(0.06)
  const [coarse, ...same] = await logitsOf(blocks)
  expect(relativeError([prompt!], [coarse!])).toBeGreaterThan(0.06)
  expect(answers).not.toEqual(same) // what they look back at differs
  const traced = (await trace(mixed, promptOf(config))).get('logits')?.data as Float32Array
  expect(relativeError([traced.slice(-prompt!.length)], [prompt!])).toBeLessThan(0.02)
  for (const model of [mixed, blocks, plain]) await disposeModel(model)
})

test('a cache of float16 holds what one of float32 holds, to the rounding of its numbers', async () => {
  const weights = randomWeights(config)
  const half = await compileModel({ config, weights }, { threads: 1, cacheType: 'float16' })
  const plain = await compileModel({ config, weights }, { threads: 1 })
  expect(plain.cacheType).toBe('float32')
  const error = relativeError(await logitsOf(half), await logitsOf(plain))
  expect(error).toBeGreaterThan(0)
  expect(error).toBeLessThan(0.003)
  await disposeModel(half)
  await disposeModel(plain)
})

test('a cache of int8 holds what one of float32 holds, to 8 bits of the largest number of each channel', async () => {
  const weights = randomWeights(config)
  const coded = await compileModel({ config, weights }, { threads: 1, cacheType: 'int8' })
  const plain = await compileModel({ config, weights }, { threads: 1, cacheType: 'float32' })
  const error = relativeError(await logitsOf(coded), await logitsOf(plain))
  expect(error).toBeGreaterThan(0)
  expect(error).toBeLessThan(0.04) // steps of a 50th of the largest number

  // The scales leave room for what the prompt of the test holds, and not much more.
  const context = openContext(coded)
  await readPrompt(context, promptOf(config))
  for (const [block, { key, value }] of expectHostCache(context.cache!).blocks.entries()) {
    for (const [kind, codes] of [
      ['key', key],
      ['value', value],
    ] as const) {
      const sizes = [...codes.data].map(Math.abs)
      expect(Math.max(...sizes), `${kind}s of block ${block}`).toBeGreaterThan(25)
      expect(sizes.filter((size) => size >= 127).length / sizes.length).toBeLessThan(0.01)
    }
  }
  closeContext(context)
  for (const model of [coded, plain]) await disposeModel(model)
})

describe('choosing', () => {
  const large = llava7B()

  test('a small model stays exact, whatever the memory', () => {
    expect(choosePrecision(tinyConfig(), { memory: 1e9 }).precision).toBe('f32')
  })

  test('a large one takes what fits: both forms, then one', () => {
    expect(choosePrecision(large, { memory: 24e9 })).toEqual({
      precision: 'mixed',
      reason: '10.5 GB of weights with 24.0 GB of memory free',
    })
    expect(choosePrecision(large, { memory: 12e9 }).precision).toBe('int4')
    expect(choosePrecision(large, { memory: 7e9 }).precision).toBe('int4-128')
    expect(() => choosePrecision(large, { memory: 4e9 })).toThrow(
      /^Cannot load the model: its weights take 4.0 GB in the smallest precision and 4.0 GB of memory are free, expected 6.7 GB$/,
    )
  })

  test('what is asked for is taken, unless it cannot fit', () => {
    expect(choosePrecision(large, { wanted: 'int8', memory: 16e9 }).precision).toBe('int8')
    expect(() => choosePrecision(large, { wanted: 'f32', memory: 16e9 })).toThrow(
      /they take 28.\d GB and 16.0 GB of memory are free, expected --precision mixed or int4-128 or int4 or int8 or f16/,
    )
  })

  test('bytes are those of the parts; norms and biases are always float32', () => {
    for (const precision of precisions) {
      let bytes = 0
      for (const [name, shape] of expectedTensors(config)) {
        const forms = formsOf({ name, shape }, precision)
        bytes += forms.reduce((sum, form) => sum + bytesOfParts(partsOf({ name, shape }, form)), 0)
        if (shape.length === 1) expect(forms).toEqual(['float32'])
      }
      expect(bytesOfWeights(config, precision)).toBe(bytes)
    }
    const down = { name: 'languageModel.blocks.0.mlp.down.weight', shape: [128, 192] }
    const up = { name: 'visionEncoder.blocks.0.mlp.up.weight', shape: [192, 128] }
    const forms = (weight: typeof down, options: { precision: Precision; role: Role; device?: Device }) =>
      [false, true].map((sums) => formOf(weight, { ...options, saturating: () => sums }))
    expect(forms(down, { precision: 'mixed', role: 'prompt' })).toEqual(['int8', 'int7'])
    expect(forms(down, { precision: 'int8', role: 'prompt' })).toEqual(['int8-32', 'int8-32'])
    expect(forms(up, { precision: 'int4', role: 'encoder' })).toEqual(['int8', 'int7'])
    expect(forms(up, { precision: 'int8', role: 'encoder' })).toEqual(['int8', 'uint8'])
    expect(forms(up, { precision: 'int4', role: 'encoder', device: 'webgpu' })).toEqual(['int8-128', 'int8-128'])
    expect(forms(up, { precision: 'int8', role: 'encoder', device: 'webgpu' })).toEqual(['int8-32', 'int8-32'])
    expect(formOf(down, { precision: 'mixed', role: 'decoding' })).toBe('int4-128')
  })
})

test('a prompt beyond the memory for the cache is refused before anything is read', async () => {
  const weights = randomWeights(config)
  const memory = { contextMemory: 8 * 2 * 3 * 128 * 4 }
  const compact = await compileModel({ config, weights }, { threads: 1, ...memory })
  expect(compact).toMatchObject({ context: 16, cacheType: 'float16' }) // float32 would not do for the context of 64
  const model = await compileModel({ config, weights }, { threads: 1, ...memory, cacheType: 'float32' })
  expect(model.context).toBe(8)
  await expect(readPrompt(openContext(model), promptOf(config))).rejects.toThrow(
    /^Cannot generate: the prompt has 9 tokens \(4 of them visual tokens\), expected fewer than 8: each takes 1 MB in the KV cache, for which 1 MB are set aside$/,
  )
  for (const made of [compact, model]) await disposeModel(made)
})
