/**
 * What fewer bits do to a model: Kullback–Leibler divergence from float32 and agreement on the likeliest token, on the embedded model and on random
 * weights whose channels have the outliers of trained ones. llama.cpp's rules for Q8_0 and Q4_0 are applied to the same weights.
 */

import { compileModel, disposeModel } from '../src/generation/compiled-model.ts'
import { closeContext, openContext, readPrompt, readToken } from '../src/generation/context.ts'
import { bytesOfWeights, type Precision, precisions } from '../src/generation/precision.ts'
import { type BenchResult, rounded } from './measure.ts'
import { type PrecisionModel, picturebookModel, randomModel, type Sequence } from './precision-models.ts'
import { asQ4, asQ8 } from './precision-peer.ts'
import { llava7B } from './shapes.ts'

type Quality = { readonly divergence: number; readonly agreement: number }

export async function precisionBench({ quick }: { quick: boolean }): Promise<BenchResult> {
  const models = [await picturebookModel(quick ? 20 : 100), randomModel(quick ? 2 : 8)]
  const columns: { model: PrecisionModel; qualities: Map<string, Quality> }[] = []
  for (const model of models) columns.push({ model, qualities: await measure(model) })
  const names = [...(columns[0]?.qualities.keys() ?? [])]
  return {
    table: names.map((name) => ({
      precision: name,
      ...Object.fromEntries(
        columns.flatMap(({ model, qualities }) => {
          const { divergence = Number.NaN, agreement = Number.NaN } = qualities.get(name) ?? {}
          return [
            [`${model.name}: KL, nats`, divergence.toExponential(2)],
            [`${model.name}: same token, %`, (100 * agreement).toFixed(2)],
          ]
        }),
      ),
      'LLaVA-1.5-7B, GB': isOurs(name) ? rounded(bytesOfWeights(llava7B(), name) / 1e9) : '',
    })),
    notes: [
      ...columns.map(({ model }) => `${model.name}: ${model.about}`),
      'KL: mean over positions of the divergence of the next-token distribution from that of float32; same token: positions where the likeliest token is the same.',
      'Prompts are read at once and answers token by token, as in use, so mixed reads prompts in int8 and answers in int4-128.',
      "Q8_0 and Q4_0: the same weights after llama.cpp's rounding of the language model (blocks of 32; Q4_0 without search, its head in Q8_0 where llama.cpp has Q6_K), computed in float32, which leaves out what llama.cpp loses by rounding activations; the vision encoder stays float32.",
    ],
    figures: Object.fromEntries(
      columns.map(({ model, qualities }) => [
        model.name.replaceAll(' ', '_'),
        Object.fromEntries(
          [...qualities].map(([name, { divergence, agreement }]) => [
            name,
            { kl: rounded(divergence), same_token: rounded(agreement, 5) },
          ]),
        ),
      ]),
    ),
  }
}

function isOurs(name: string): name is Precision {
  return precisions.some((precision) => precision === name)
}

async function measure(model: PrecisionModel): Promise<Map<string, Quality>> {
  const { config, weights, sequences } = model
  const exact = await logitsOf({ config, weights }, { precision: 'f32', sequences })
  const qualities = new Map<string, Quality>()
  const peers = [
    ['Q8_0', asQ8(weights)],
    ['Q4_0', asQ4(weights)],
  ] as const
  for (const precision of precisions) {
    if (precision === 'f32') continue
    qualities.set(precision, compare(exact, await logitsOf({ config, weights }, { precision, sequences })))
  }
  for (const [name, rounded] of peers) {
    qualities.set(name, compare(exact, await logitsOf({ config, weights: rounded }, { precision: 'f32', sequences })))
  }
  return qualities
}

/** Logits [V] before each token of the answers, the true tokens given. */
async function logitsOf(
  parts: Pick<PrecisionModel, 'config' | 'weights'>,
  { precision, sequences }: { precision: Precision; sequences: readonly Sequence[] },
): Promise<Float32Array[]> {
  const model = await compileModel(parts, { precision })
  const all: Float32Array[] = []
  for (const { prompt, answer } of sequences) {
    const context = openContext(model)
    all.push((await readPrompt(context, prompt)).logits)
    for (const token of answer.slice(0, -1)) all.push(await readToken(context, token))
    closeContext(context)
  }
  await disposeModel(model)
  return all
}

function compare(exact: readonly Float32Array[], found: readonly Float32Array[]): Quality {
  let divergence = 0
  let same = 0
  for (const [position, logits] of exact.entries()) {
    const other = found[position] ?? new Float32Array()
    const [p, q] = [logSoftmax(logits), logSoftmax(other)]
    for (let i = 0; i < p.length; i++) divergence += Math.exp(p[i]!) * (p[i]! - q[i]!)
    if (largest(logits) === largest(other)) same++
  }
  return { divergence: Math.max(0, divergence / exact.length), agreement: same / exact.length }
}

function logSoftmax(logits: Float32Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const sum = logits.reduce((total, value) => total + Math.exp(value - most), 0)
  return Float64Array.from(logits, (value) => value - most - Math.log(sum))
}

function largest(values: Float32Array): number {
  return values.reduce((best, value, i) => (value > (values[best] ?? value) ? i : best), 0)
}
