/**
 * LLaVA-NeXT and LLaVA-OneVision as Hugging Face transformers computes them, from the picture to 64 tokens: tiny models and references made by
 * fixtures/parity/make-tile-references.py.
 */

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { closeCheckpoint, openCheckpoint } from '../src/checkpoint/folder.ts'
import { detectLayout } from '../src/checkpoint/layouts.ts'
import { loadConfig, loadWeights } from '../src/checkpoint/load.ts'
import { type CompiledModel, compileModel, disposeModel } from '../src/generation/compiled-model.ts'
import { closeContext, openContext, readPrompt, readToken } from '../src/generation/context.ts'
import { encodePicture } from '../src/generation/encode-picture.ts'
import { makePrompt, type Prompt, preparePicture } from '../src/generation/prompt.ts'
import { greedy } from '../src/generation/sampling.ts'
import { trace } from '../src/generation/trace.ts'
import { generateUncached, type Values } from '../src/generation/uncached.ts'
import { type ImageProcessorConfig, preprocess, readImageProcessorConfig } from '../src/image/preprocess.ts'
import { type Arrangement, arrangePicture } from '../src/model/arrangement.ts'
import type { LlavaConfig } from '../src/model/config.ts'
import { adamWDefaults } from '../src/training/adamw.ts'
import { type EncodedSample, stacked } from '../src/training/batches.ts'
import { gatheredInputs } from '../src/training/gathering.ts'
import { gatheredAnswerLoss } from '../src/training/objectives.ts'
import { createTrainingStep, disposeTrainingStep, scoreOnce } from '../src/training/training-step.ts'
import { compute, modelsToTest, noise, readTensors, relativeDifference } from './references.ts'

/** Largest difference relative to the largest value; sums in another order give up to 1e-5. */
const tolerance = 1e-4

type TileReferences = {
  layout: string
  cases: Record<
    string,
    {
      pictures: { width: number; height: number; seed: number }[]
      views: number[]
      pixels: string
      visualTokens: number[]
      ids: number[]
      continuation: number[]
    }
  >
}

const fixtures = fileURLToPath(new URL('../fixtures/parity/', import.meta.url))
const stages = ['patchFeatures', 'visualTokens', 'mergedEmbeddings', 'logits']

const models = modelsToTest(['next-llama', 'next-mistral', 'next-yi', 'onevision-qwen2'])

describe.each(models)('%s equals transformers', (name) => {
  const folder = join(fixtures, name)
  const { layout, cases }: TileReferences = JSON.parse(readFileSync(join(folder, 'references.json'), 'utf8'))
  let model: CompiledModel
  let processor: ImageProcessorConfig
  let expected: ReadonlyMap<string, Values>

  beforeAll(async () => {
    const config = await loadConfig(folder)
    model = await compileModel({ config, weights: await loadWeights(folder, config) }, compute)
    processor = readImageProcessorConfig(JSON.parse(readFileSync(join(folder, 'preprocessor_config.json'), 'utf8')))
    expected = await readTensors(join(folder, 'references.safetensors'))
  })
  afterAll(() => disposeModel(model))

  test('the stored names are those of the layout', async () => {
    const checkpoint = await openCheckpoint(folder)
    expect(detectLayout(checkpoint.tensors.keys())).toBe(layout)
    await closeCheckpoint(checkpoint)
  })

  describe.each(Object.entries(cases))('%s', (which, { pictures, ids, ...reference }) => {
    /** The prompt as a user's: pictures from their pixels, one placeholder each. */
    const promptOf = (config: LlavaConfig): Prompt => {
      const short = Int32Array.from(ids.filter((id, i) => id !== config.imageToken || ids[i - 1] !== config.imageToken))
      const prepared = pictures.map((picture) =>
        preparePicture(preprocess(noise(picture), processor, { shown: pictures.length }), config),
      )
      return makePrompt({ ids: short, loss: new Uint8Array(short.length) }, { pictures: prepared, config })
    }

    test('pixels to the bit, and as many placeholders', () => {
      const prompt = promptOf(model.config)
      expect(prompt.pictures.map(({ views }) => views)).toEqual(reference.views)
      const hash = createHash('sha256')
      for (const { pixels } of prompt.pictures) hash.update(pixels)
      expect(hash.digest('hex')).toBe(reference.pixels)
      expect(prompt.pictures.map(({ length }) => length)).toEqual(reference.visualTokens)
      expect([...prompt.ids]).toEqual(ids)
    })

    test('every stage', async () => {
      const values = await trace(model, promptOf(model.config))
      const differences = stages.map((stage) => {
        const reference = expected.get(`${which}.${stage}`)!
        expect(values.get(stage)!.shape, stage).toEqual(reference.shape)
        return [stage, relativeDifference(values.get(stage)!.data, reference.data)] as const
      })
      expect(differences.filter(([, difference]) => !(difference <= tolerance))).toEqual([])
    })

    test('64 greedy tokens, without a cache and with it', async () => {
      const prompt = promptOf(model.config)
      const uncached = await generateUncached(model, prompt, { maxTokens: 8 })
      expect(uncached.map(({ token }) => token)).toEqual(reference.continuation.slice(0, 8))
      const context = openContext(model)
      const tokens: number[] = []
      for (let next = (await readPrompt(context, prompt)).logits; ; next = await readToken(context, tokens.at(-1)!)) {
        tokens.push(greedy(next))
        if (tokens.length === reference.continuation.length) break
      }
      closeContext(context)
      expect(tokens).toEqual(reference.continuation)
    })
  })

  test('a training step scores what follows each token as transformers does', async () => {
    const { config } = model
    const [which, { pictures, ids }] = Object.entries(cases)[0]!
    const processed = pictures.map((picture) => preprocess(noise(picture), processor, { shown: pictures.length }))
    const placed: EncodedSample['pictures'][number][] = []
    for (const { grid, views } of processed) {
      const arrangement = arrangePicture(config, grid)!
      const before = placed.at(-1)
      const start = ids.indexOf(config.imageToken, (before?.start ?? 0) + (before?.length ?? 0))
      placed.push({ start, length: arrangement.length, views, arrangement })
    }
    const learned = Array.from(ids, (id, t) => Number(t > 0 && id !== config.imageToken))
    const sample = { ids: Int32Array.from(ids), loss: Uint8Array.from(learned), pictures: placed, answers: [] }
    const views = processed.reduce((sum, { views }) => sum + views, 1) // one is left blank
    const { visualTokens: P, vision } = config
    const length = ids.length + 3
    const inputs = {
      ...gatheredInputs([[sample]], { config: config, pictureTokens: P, length, views, tokenCount: 1 }),
      pixels: stacked(
        processed.map(({ data }) => data),
        { shape: [3, vision.imageSide, vision.imageSide], count: views },
      ),
    }
    const weights = await loadWeights(folder, config)
    const step = await createTrainingStep({
      objective: (source) =>
        gatheredAnswerLoss(config, source, { batch: 1, length, form: 'pixels', views, packed: false }),
      groupOf: (name) => (name === 'projector.newline' ? 'projector' : undefined),
      startingValue: ({ name }) => weights.get(name)!.data,
      optimizer: adamWDefaults,
      threads: 1,
    })
    const { scores } = await scoreOnce(step, inputs)
    const { shape, data } = expected.get(`${which}.logits`)!
    const V = shape.at(-1)!
    const rows = learned.flatMap((one, t) => (one === 1 ? [t - 1] : []))
    const reference = Float32Array.from(rows.flatMap((row) => [...data.slice(row * V, (row + 1) * V)]))
    const found = (scores.data as Float32Array).slice(0, rows.length * V)
    expect(relativeDifference(found, reference)).toBeLessThanOrEqual(tolerance)
    await disposeTrainingStep(step)
  })

  test('the references notice what is easily confused', async () => {
    const which = 'square' in cases ? 'square' : 'wide' // one picture, shrunk in the model that shrinks
    const { arrangement, ...picture } = preparePicture(
      preprocess(noise(cases[which]!.pictures[0]!), processor),
      model.config,
    )
    const { length, sources, shares } = arrangement!
    const P = model.config.visualTokens
    const newline = Math.max(...sources)
    const confused: Record<string, Arrangement> = {
      'no newline': { length, shares, sources: sources.map((row) => (row === newline ? row - 1 : row)) },
      'whole picture last': {
        length,
        shares,
        sources: sources.map((row) => (row < newline ? (row + P) % newline : row)),
      },
      'lines down instead of across': {
        length,
        shares,
        sources: sources.map((row) => (row < newline ? row - (row % P) + transposed(row % P, Math.sqrt(P)) : row)),
      },
      ...(which === 'square' && {
        'nearest instead of between': {
          length,
          sources: sources.slice(0, length),
          shares: new Float32Array(length).fill(1),
        },
      }),
    }
    const reference = expected.get(`${which}.visualTokens`)!.data
    for (const [what, arrangement] of Object.entries({ none: { length, sources, shares }, ...confused })) {
      const { visualTokens } = await encodePicture(model, { ...picture, arrangement })
      const difference = relativeDifference(visualTokens, reference)
      if (what === 'none') expect(difference).toBeLessThanOrEqual(tolerance)
      else expect(difference, what).toBeGreaterThan(10 * tolerance)
    }
  })
})

function transposed(patch: number, side: number): number {
  return (patch % side) * side + Math.floor(patch / side)
}
