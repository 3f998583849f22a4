/**
 * The whole trainer against the machine and against PyTorch: pictures drawn, encoded, learned from, weights updated, as stage 2 of the picturebook
 * recipe says; the same model in PyTorch; and the matmul rate. The three take turns, and ratios are formed within a turn.
 */

import { availableParallelism } from 'node:os'
import type { LlavaConfig } from '../src/model/config.ts'
import { disposeBatch } from '../src/training/batch-maker.ts'
import { batchQueue } from '../src/training/batch-queue.ts'
import { openLesson } from '../src/training/lesson.ts'
import { readRecipe } from '../src/training/recipe.ts'
import { createTrainingStep, disposeTrainingStep, trainOnce } from '../src/training/training-step.ts'
import { fastestProbe } from './engine.ts'
import { type BenchResult, median, rounded, time } from './measure.ts'
import { torchTwin } from './torch-twin.ts'
import { stepFlops } from './training-model.ts'

const recipeFile = 'recipes/picturebook/4-instruction-tuning.yaml'

type Turn = { readonly ours: number; readonly torch: number; readonly matmul: number }

export async function trainBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const [turns, steps, warm] = quick ? [2, 4, 1] : [11, 10, 2]
  const threads = availableParallelism()
  const trainer = await openTrainer(threads)
  const { config, batch, length } = trainer
  const twin = await torchTwin(config, { batch, length, threads })
  const probe = await fastestProbe({ rounds: quick ? 1 : 7 })
  await trainer.train(warm)
  await twin?.train(warm)

  const measured: Turn[] = []
  for (let turn = 0; turn < turns; turn++) {
    const matmul = (await time(probe.best.run)) / probe.best.flops
    const ours = (await time(() => trainer.train(steps))) / steps
    const torch = twin === undefined ? Number.NaN : (await twin.train(steps)) / steps
    measured.push({ ours, torch, matmul: (matmul + (await time(probe.best.run)) / probe.best.flops) / 2 })
  }
  await probe.dispose()
  await twin?.dispose()
  await trainer.dispose()

  const flops = stepFlops(config, { batch, length }) + besidesLanguageModel(config, batch)
  const [ours, torch] = [median(measured.map(({ ours }) => ours)), median(measured.map(({ torch }) => torch))]
  const fraction = median(measured.map(({ ours, matmul }) => (flops / ours) * matmul))
  const ratio = median(measured.map(({ ours, torch }) => torch / ours))
  const tokensPerSecond = (ms: number) => Math.round((batch * length * 1000) / ms)
  const row = (name: string, ms: number, against: string) => ({
    trainer: name,
    'ms per step': rounded(ms),
    rate: `${tokensPerSecond(ms)} tokens/s`,
    against,
  })
  return {
    table: [
      row('llava-ts', ours, `${rounded(fraction)} of the matmul rate`),
      ...(twin === undefined ? [] : [row(`PyTorch ${twin.version}`, torch, `${rounded(ratio)} times our time`)]),
    ],
    notes: [
      `${recipeFile}: ${trainer.parameters} weights learned${twin === undefined ? '' : `, ${twin.parameters} in PyTorch`}, batch ${batch} × ${length} tokens, ${threads} threads.`,
      'Our step draws its scenes, encodes pictures and text, and updates the weights; a step in PyTorch encodes the same pictures again and again, and is spared their making.',
      `Operations of a step: ${rounded(flops / 1e9, 4)} GFLOP, matrix products only, the frozen encoder's forward pass included; the matmul rate is that of ${probe.best.shape}.`,
      twin === undefined
        ? 'PyTorch was left out: /usr/bin/python3 cannot import torch.'
        : `PyTorch runs eagerly, ${twin.fusedAttention ? 'with' : 'without (it is too old)'} scaled_dot_product_attention, and with the for-each form of AdamW.`,
    ],
    figures: {
      matmul_fraction: rounded(fraction),
      torch_ratio: twin === undefined ? null : rounded(ratio),
      tokens_per_second: tokensPerSecond(ours),
      torch_tokens_per_second: twin === undefined ? null : tokensPerSecond(torch),
      torch_version: twin?.version ?? null,
      matmul_gflops: rounded(1 / median(measured.map(({ matmul }) => matmul)) / 1e6),
      step_gflop: rounded(flops / 1e9, 4),
      turns: measured.map(({ ours, torch }) => ({
        ours: rounded(ours),
        torch: twin === undefined ? null : rounded(torch),
      })),
    },
  }
}

/** The trainer's own loop without log and checkpoints, from the weights in the repository. */
async function openTrainer(threads: number) {
  const recipe = await readRecipe(recipeFile)
  const { model, optimizer, rates, batch, length } = recipe
  const start = { visionEncoder: model, projector: model, languageModel: model }
  const lesson = await openLesson({ ...recipe, start }, { threads })
  const { objective, groupOf, startingValue } = lesson
  const step = await createTrainingStep({ objective, groupOf, startingValue, optimizer, threads })
  let position = { cursor: 0, skipped: 0 }
  let number = 0
  return {
    config: lesson.config,
    batch,
    length,
    parameters: step.trained.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0),
    /** A queue for each turn: no batch is made while it is the others' turn. */
    train: async (count: number) => {
      const queue = batchQueue(lesson, { position, count })
      for (let i = 0; i < count; i++) {
        const next = await queue.next()
        await trainOnce(step, { batches: next.inputs, number: ++number, rates })
        disposeBatch(next)
        position = next.position
      }
      await queue.close()
    },
    dispose: async () => {
      await disposeTrainingStep(step)
      await lesson.dispose()
    },
  }
}

/** Operations of the frozen encoder's forward pass, and of the projector's layers after the first, forward and backward. */
function besidesLanguageModel({ vision, language, projector, visualTokens: P }: LlavaConfig, batch: number): number {
  const { width: C, mlpWidth, heads, depth, patch, imageSide } = vision
  const product = (m: number, k: number, n: number) => 2 * m * k * n
  const patches = Math.floor(imageSide / patch) ** 2
  const T = patches + (vision.classToken ? 1 : 0)
  const linears = 4 * product(batch * T, C, C) + 2 * product(batch * T, C, mlpWidth)
  const attention = 2 * batch * heads * product(T, C / heads, T)
  const embedding = product(batch * patches, 3 * patch * patch, C)
  const layers = 3 * (projector.layers - 1) * product(batch * P, language.width, language.width)
  return depth * (linears + attention) + embedding + layers
}
