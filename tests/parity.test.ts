/** LLaVA as Hugging Face transformers computes it, stage by stage: tiny models and references made by fixtures/parity/make-references.py. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { closeCheckpoint, openCheckpoint } from '../src/checkpoint/folder.ts'
import { detectLayout, optionalTensors, toCanonical } from '../src/checkpoint/layouts.ts'
import { loadConfig, loadWeights } from '../src/checkpoint/load.ts'
import { type CompiledModel, compileGraph, compileModel, disposeModel } from '../src/generation/compiled-model.ts'
import { closeContext, openContext, readPrompt, readToken } from '../src/generation/context.ts'
import { type Prompt, preparePicture } from '../src/generation/prompt.ts'
import { greedy } from '../src/generation/sampling.ts'
import { generateUncached, type Values } from '../src/generation/uncached.ts'
import type { LlavaConfig } from '../src/model/config.ts'
import { languageModel, logits } from '../src/model/language-model.ts'
import { mergedSequence } from '../src/model/llava.ts'
import { project } from '../src/model/projector.ts'
import { hiddenState, patchFeatures } from '../src/model/vision-encoder.ts'
import { parameters } from '../src/model/weights.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../src/runtime/resident-tensor.ts'
import { disposeSession, run } from '../src/runtime/session.ts'
import {
  add,
  crossEntropy,
  gradient,
  input,
  parameter,
  rows,
  sumOfSquares,
  type Tensor,
  writeOnnx,
} from '../src/tensor/index.ts'
import { compute, modelsToTest, readTensors, relativeDifference } from './references.ts'

/**
 * Largest difference relative to the largest value. Sums in another order give up to 7e-6 (gradients: 1e-5); the tanh form
 * of GELU in place of the exact one gives 3e-4.
 */
const tolerance = 5e-5
const gradientTolerance = 1e-4

type References = {
  layout: string
  cases: Record<string, { ids: number[]; continuation: number[] }>
  gradients: {
    firstLabel: number
    loss: number
    parameters: Record<string, { norm: number; projection: number }>
  }
}

const fixtures = fileURLToPath(new URL('../fixtures/parity/', import.meta.url))
const models = modelsToTest(['clip-llama', 'siglip-qwen2', 'clip-mistral'])

describe.each(models)('%s equals transformers', (name) => {
  const folder = join(fixtures, name)
  const { layout, cases, gradients }: References = readJson(join(folder, 'references.json'))
  let model: CompiledModel
  let expected: ReadonlyMap<string, Values>

  beforeAll(async () => {
    const config = await loadConfig(folder)
    model = await compileModel({ config, weights: await loadWeights(folder, config) }, compute)
    expected = await readTensors(join(folder, 'references.safetensors'))
  })
  afterAll(() => disposeModel(model))

  const promptOf = (pictures: number): Prompt => {
    const { config } = model
    const ids = Int32Array.from(cases[pictures]!.ids)
    const all = expected.get('pixels')!.data
    const size = 3 * config.vision.imageSide ** 2
    const placed = Array.from({ length: pictures }, (_, i) => ({
      ...preparePicture({ data: all.slice(i * size, (i + 1) * size), views: 1, side: config.vision.imageSide }, config),
      start: placeholderStarts(ids, config)[i]!,
    }))
    return { ids, pictures: placed }
  }

  test('the stored names are those of the layout', async () => {
    const checkpoint = await openCheckpoint(folder)
    expect(detectLayout(checkpoint.tensors.keys())).toBe(layout)
    await closeCheckpoint(checkpoint)
  })

  describe.each([1, 2])('%i picture(s)', (pictures) => {
    test.each(['fused', 'composed'] as const)('every stage, %s operators', async (form) => {
      const { ids } = cases[pictures]!
      const stages = stageGraph(model.config, { pictures, length: ids.length })
      const extra = form === 'composed' ? { slope: slope(model.config, stages) } : {}
      const outputs = { ...stages, ...extra }
      const text = Buffer.from(writeOnnx(outputs, { parameters: 'initializers' }).model).toString('latin1')
      expect(text.includes('MultiHeadAttention')).toBe(form === 'fused')

      const found = await runGraph(model, outputs, stageInputs(model.config, { prompt: promptOf(pictures) }))
      const differences = Object.keys(stages).map((stage) => {
        const reference = expected.get(`${pictures}.${stage}`)!
        expect(found.get(stage)!.shape, stage).toEqual(reference.shape)
        return [stage, relativeDifference(found.get(stage)!.data, reference.data)] as const
      })
      expect(differences.filter(([, difference]) => !(difference <= tolerance))).toEqual([])
    })

    test('64 greedy tokens, without a cache and with it', async () => {
      const { continuation } = cases[pictures]!
      const prompt = promptOf(pictures)
      // On a GPU every length compiles shaders anew.
      const maxTokens = compute.device === 'cpu' ? continuation.length : 8
      const uncached = await generateUncached(model, prompt, { maxTokens })
      expect(uncached.map(({ token }) => token)).toEqual(continuation.slice(0, maxTokens))

      const context = openContext(model)
      const tokens: number[] = []
      const first = (await readPrompt(context, prompt)).logits
      for (let next = first; ; next = await readToken(context, tokens.at(-1)!)) {
        tokens.push(greedy(next))
        if (tokens.length === continuation.length) break
      }
      closeContext(context)
      expect(tokens).toEqual(continuation)
      const lastRow = expected.get(`${pictures}.logits`)!.data.slice(-first.length)
      expect(relativeDifference(first, lastRow)).toBeLessThanOrEqual(tolerance)
    })
  })

  test('the references notice what is easily confused', async () => {
    const { config } = model
    const { vision, language } = config
    const confused: Record<string, LlavaConfig> = {
      activation: { ...config, vision: { ...vision, activation: vision.activation === 'gelu' ? 'gelu_tanh' : 'gelu' } },
      theta: { ...config, language: { ...language, ropeTheta: language.ropeTheta === 1e4 ? 1e6 : 1e4 } },
      layer: { ...config, featureLayer: config.featureLayer === -1 ? -2 : -1 },
      'RMS epsilon': { ...config, language: { ...language, normEpsilon: language.normEpsilon + 1e-3 } },
      'vision epsilon': { ...config, vision: { ...vision, normEpsilon: vision.normEpsilon + 1e-3 } },
    }
    for (const [what, changed] of Object.entries(confused)) {
      const { logits } = stageGraph(changed, { pictures: 2, length: cases[2]!.ids.length })
      const found = await runGraph(model, { logits: logits! }, stageInputs(changed, { prompt: promptOf(2) }))
      const difference = relativeDifference(found.get('logits')!.data, expected.get('2.logits')!.data)
      expect(difference, what).toBeGreaterThan(2 * tolerance)
    }
  })

  test('the loss and its gradient for every weight that has one', async () => {
    const { ids } = cases[2]!
    const length = ids.length
    const stages = stageGraph(model.config, { pictures: 2, length })
    const targets = input('targets', 'int64', [length])
    const weights = input('weights', 'float32', [length])
    const loss = crossEntropy(rows(stages.logits!), { targets, weights })
    const names = Object.keys(gradients.parameters).map(
      (foreign) => [foreign, toCanonical(foreign, 'hugging-face-2025')!] as const,
    )
    const variables = names.map(([, ours]) => parameter(ours, model.weights.get(ours)!.shape))
    const slopes = gradient(loss, variables)
    const outputs = Object.fromEntries(names.map(([foreign], i) => [foreign, slopes[i]!]))

    // The token at `firstLabel` is the first to carry loss; the position before predicts it.
    const first = gradients.firstLabel - 1
    const count = length - 1 - first
    const found = await runGraph(
      model,
      { loss, ...outputs },
      {
        ...stageInputs(model.config, { prompt: promptOf(2) }),
        targets: residentTensor('int64', [length], { data: BigInt64Array.from([...ids.slice(1), 0], BigInt) }),
        weights: residentTensor('float32', [length], {
          data: Float32Array.from(ids, (_, i) => (i >= first && i < length - 1 ? 1 / count : 0)),
        }),
      },
    )
    expect(relativeDifference(found.get('loss')!.data, [gradients.loss])).toBeLessThanOrEqual(tolerance)
    const differences = names.map(([foreign]) => {
      const { norm, projection } = gradients.parameters[foreign]!
      const { data } = found.get(foreign)!
      const projected = data.reduce((sum, slope, i) => sum + slope * Math.sin(i + 1), 0)
      const difference = Math.max(Math.abs(Math.hypot(...data) - norm), Math.abs(projected - projection))
      // Adding the same to all scores changes no probability: without rotary positions the slope of a key bias is zero
      // but for rounding, and only small beside that of the key weight.
      const zero = /vision_tower.*k_proj\.bias$/.test(foreign)
      const scale = zero ? gradients.parameters[foreign.replace(/bias$/, 'weight')]!.norm : norm
      return [foreign, difference / scale] as const
    })
    expect(differences.filter(([, difference]) => !(difference <= gradientTolerance))).toEqual([])
    const unused = optionalTensors(model.config)
    expect(new Set(names.map(([, ours]) => ours))).toEqual(
      new Set([...model.weights.keys()].filter((weight) => !unused.has(weight))),
    )
  })
})

/** All stages from pixels and ids to logits, by the names of the references. */
function stageGraph(
  config: LlavaConfig,
  { pictures, length }: { pictures: number; length: number },
): Record<string, Tensor> {
  const { vision, language, featureLayer, visualTokens: P } = config
  const seen = input('pixels', 'float32', [pictures, 3, vision.imageSide, vision.imageSide])
  const tokens = project(config, parameters, patchFeatures(config, parameters, seen)) // [I, P, D]
  const ids = input('ids', 'int64', [1, length])
  const places = input('places', 'int64', [pictures * P])
  const embeddings = mergedSequence(config, parameters, { ids, pictures: { tokens, places } }) // [1, L, D]
  const positions = input('positions', 'int64', [1, length])
  const mask = input('mask', 'float32', [length, length])
  const result = languageModel(language, parameters, { embeddings, context: { kind: 'whole', positions, mask } })
  const stages: Record<string, Tensor> = {
    visionHidden: hiddenState(vision, parameters, { pixels: seen, layer: featureLayer }), // [I, P (+1), C]
    visualTokens: tokens,
    mergedEmbeddings: embeddings,
    hidden: result.hidden,
    logits: logits(language, parameters, result.hidden), // [1, L, V]
  }
  for (const [layer, state] of result.hiddenStates.entries()) if (layer > 0) stages[`hiddenStates.${layer}`] = state
  return stages
}

/** A gradient through every block of both towers: where it is computed, attention cannot be one fused operator. */
function slope({ vision }: LlavaConfig, stages: Record<string, Tensor>): Tensor {
  const start = parameter('visionEncoder.patchEmbedding.weight', [vision.width, 3, vision.patch, vision.patch])
  const end = add(sumOfSquares(stages.logits!), sumOfSquares(stages.visionHidden!))
  return gradient(end, [start])[0]!
}

function stageInputs(config: LlavaConfig, { prompt }: { prompt: Prompt }): Record<string, ResidentTensor> {
  const { ids, pictures } = prompt
  const { visualTokens: P, vision } = config
  const L = ids.length
  const places = pictures.flatMap(({ start }) => Array.from({ length: P }, (_, i) => BigInt(start + i)))
  const mask = Float32Array.from({ length: L * L }, (_, i) => (i % L > Math.floor(i / L) ? -1e9 : 0))
  return {
    pixels: residentTensor('float32', [pictures.length, 3, vision.imageSide, vision.imageSide], {
      data: Float32Array.from(pictures.flatMap((picture) => [...picture.pixels])),
    }),
    ids: residentTensor('int64', [1, L], { data: BigInt64Array.from(ids, BigInt) }),
    places: residentTensor('int64', [places.length], { data: BigInt64Array.from(places) }),
    positions: residentTensor('int64', [1, L], { data: BigInt64Array.from({ length: L }, (_, i) => BigInt(i)) }),
    mask: residentTensor('float32', [L, L], { data: mask }),
  }
}

/** Compiles the outputs over the model's weights, runs them once and frees everything. */
async function runGraph(
  model: CompiledModel,
  outputs: Record<string, Tensor>,
  inputs: Record<string, ResidentTensor>,
): Promise<Map<string, Values>> {
  const session = await compileGraph(outputs, { name: 'parity', ...model })
  const found = await run(session, inputs)
  await disposeSession(session)
  for (const tensor of [...Object.values(inputs), ...Object.values(found)]) disposeTensor(tensor)
  return new Map(Object.entries(found).map(([name, { shape, data }]) => [name, { shape, data: data as Float32Array }]))
}

function placeholderStarts(ids: Int32Array, { imageToken }: LlavaConfig): number[] {
  const isPlaceholder = (i: number) => ids[i] === imageToken
  return [...ids.keys()].filter((i) => isPlaceholder(i) && !isPlaceholder(i - 1))
}

function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8'))
}
