/** The training step that the engine bench measures: LLaMA blocks through the real model and training code. */

import { type LlavaConfig, parseLlavaConfig, toHuggingFaceConfig } from '../src/model/config.ts'
import { disposeTensor, residentTensor } from '../src/runtime/resident-tensor.ts'
import { adamWDefaults } from '../src/training/adamw.ts'
import { answerInputs } from '../src/training/batches.ts'
import { initialWeight } from '../src/training/initialization.ts'
import { answerLoss } from '../src/training/objectives.ts'
import { partOf, stages } from '../src/training/stages.ts'
import {
  computeGradients,
  createTrainingStep,
  disposeTrainingStep,
  trainOnce,
  updateWeights,
} from '../src/training/training-step.ts'

/** Sizes of a bench's language model and of what it learns from. */
export type BenchModel = {
  readonly depth: number
  readonly width: number
  readonly mlpWidth: number
  readonly heads: number
  readonly vocabulary: number
  readonly batch: number
  readonly length: number
}

/** 6 blocks of width 256 and a head of 1024 tokens. The picture is one patch: all but one position are text, and learned. */
export const benchModel: BenchModel = {
  depth: 6,
  width: 256,
  mlpWidth: 704,
  heads: 8,
  vocabulary: 1024,
  batch: 8,
  length: 192,
}

function configOf({ depth, width, mlpWidth, heads, vocabulary, length }: BenchModel): LlavaConfig {
  const config: LlavaConfig = {
    vision: {
      kind: 'clip',
      imageSide: 4,
      patch: 4,
      width: 8,
      depth: 1,
      heads: 1,
      mlpWidth: 8,
      activation: 'quick_gelu',
      normEpsilon: 1e-5,
      classToken: true,
      preNorm: true,
      patchBias: false,
    },
    language: {
      kind: 'llama',
      vocabulary,
      width,
      depth,
      heads,
      keyValueHeads: heads,
      headSize: width / heads,
      mlpWidth,
      normEpsilon: 1e-5,
      ropeTheta: 10_000,
      context: length,
      tiedHead: false,
      attentionBias: false,
      eosTokens: [2],
    },
    projector: { layers: 1, activation: 'gelu', bias: true },
    featureLayer: -1,
    featureSelect: 'patch',
    imageToken: 3,
    visualTokens: 1,
  }
  return parseLlavaConfig(toHuggingFaceConfig(config))
}

export async function createBenchStep(model: BenchModel = benchModel, { checkpointing = false } = {}) {
  const { batch, length, vocabulary } = model
  const config = configOf(model)
  const { language, vision } = config
  const learns: readonly string[] = stages['instruction-tuning'].learns
  const trainingStep = await createTrainingStep({
    objective: (weights) => answerLoss(config, weights, { batch, length, form: 'features', checkpointing }),
    groupOf: (name) => (learns.includes(partOf(name)) ? partOf(name) : undefined),
    startingValue: (weight) => initialWeight(weight, { seed: 0, depth: language.depth }),
    optimizer: { ...adamWDefaults, weightDecay: 0.05 },
  })
  const samples = Array.from({ length: batch }, (_, b) => ({
    ids: Int32Array.from({ length }, (_, t) => (t === 0 ? config.imageToken : (b * 7919 + t * 104_729) % vocabulary)),
    loss: Uint8Array.from({ length }, (_, t) => (t === 0 ? 0 : 1)),
    pictures: [{ start: 0, length: config.visualTokens, views: 1 }],
    answers: [{ start: 1, end: length }],
  }))
  const inputs = {
    ...answerInputs(samples, { pictureTokens: config.visualTokens, length, tokenCount: batch * (length - 1) }),
    features: residentTensor('float32', [batch, 1, vision.width], {
      data: new Float32Array(batch * vision.width).fill(0.1),
    }),
  }
  const rates = { projector: 1e-4, languageModel: 1e-4 }
  let number = 0
  return {
    flops: stepFlops(config, { batch, length }),
    tokens: batch * length,
    parameters: trainingStep.trained.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
    step: () => trainOnce(trainingStep, { batches: [inputs], number: ++number, rates }),
    gradients: () => computeGradients(trainingStep, [inputs]),
    update: () => updateWeights(trainingStep, { number: ++number, rates }),
    dispose: async () => {
      await disposeTrainingStep(trainingStep)
      Object.values(inputs).forEach(disposeTensor)
    },
  }
}

/**
 * Floating-point operations of one forward and backward pass, matrix products alone. Backward costs each product twice, once per factor, except
 * for the projector's, whose input needs no gradient.
 */
export function stepFlops(config: LlavaConfig, { batch: B, length: L }: { batch: number; length: number }): number {
  const { language, vision, visualTokens: P } = config
  const { width: D, mlpWidth, heads, keyValueHeads, headSize: H, depth, vocabulary: V } = language
  const product = (m: number, k: number, n: number) => 2 * m * k * n
  const rows = B * L
  const linears =
    2 * product(rows, D, heads * H) + 2 * product(rows, D, keyValueHeads * H) + 3 * product(rows, D, mlpWidth)
  const attention = B * heads * (product(L, H, L) + product(L, L, H))
  const head = product(B * (L - P), D, V)
  return 3 * (depth * (linears + attention) + head) + 2 * product(B * P, vision.width, D)
}
