import { afterEach, expect, test } from 'vitest'
import { tinyClip } from '../checkpoint/tiny-config.fixture.ts'
import { arrangePicture, mostSources } from '../model/arrangement.ts'
import type { LlavaConfig } from '../model/config.ts'
import { languageModel, logits } from '../model/language-model.ts'
import { arrange, mergedSequence } from '../model/llava.ts'
import { project } from '../model/projector.ts'
import type { WeightSource } from '../model/weights.ts'
import { causalMask, concat, constant, crossEntropy, gatherRows, rows as rowsOf, type Tensor } from '../tensor/index.ts'
import { stateNames } from './adamw.ts'
import { type EncodedSample, stacked } from './batches.ts'
import { frozenEncoderStep } from './frozen-encoder-step.fixture.ts'
import { gatheredInputs } from './gathering.ts'
import { gatheredAnswerLoss, type Objective, positionIndex } from './objectives.ts'
import { countLearned, packedInputs } from './packing.ts'
import { computeGradients, disposeTrainingStep, type TrainingStep } from './training-step.ts'

const next: LlavaConfig = {
  ...tinyClip,
  language: { ...tinyClip.language, context: 256 },
  tiles: {
    resolutions: [{ width: 2 * tinyClip.vision.imageSide, height: tinyClip.vision.imageSide }],
    unpadding: 'rounded',
  },
}
/** Tokens of tiles are shrunk: each is made of four. */
const onevision: LlavaConfig = { ...next, tiles: { ...next.tiles!, mostTiles: 1 } }
const { imageToken, visualTokens: P } = tinyClip
const C = tinyClip.vision.width
const length = 56
const batch = 2
const views = 16

const open: TrainingStep[] = []
afterEach(async () => {
  for (const step of open.splice(0)) await disposeTrainingStep(step)
})

const wave = (size: number, seed: number) => Float32Array.from({ length: size }, (_, i) => Math.sin(seed + i * 12.9898))

/** Some words, a picture for each grid (`undefined` for one view), two words between pictures, and an answer of `learned` tokens. */
function sampleOf(
  config: LlavaConfig,
  { seed, grids, learned }: { seed: number; grids: ([number, number] | undefined)[]; learned: number },
): EncodedSample {
  const ids = [1]
  const pictures = grids.map((grid) => {
    const [rows, columns] = config.tiles && grid ? grid : [0, 0]
    const size = { width: 7 + seed, height: 5 }
    const arrangement = arrangePicture(config, rows > 0 ? { rows, columns, picture: size } : undefined)
    const start = ids.length
    const M = arrangement?.length ?? P
    ids.push(...Array<number>(M).fill(imageToken), 3 + seed, 4)
    return { start, length: M, views: 1 + rows * columns, arrangement }
  })
  const start = ids.length
  ids.push(...Array.from({ length: learned }, (_, t) => (5 * seed + 7 * t) % 19))
  const loss = Uint8Array.from(ids, (_, t) => Number(t >= start))
  return { ids: Int32Array.from(ids), loss, pictures, answers: [{ start, end: ids.length }] }
}

const rowsFor = (config: LlavaConfig) => [
  [sampleOf(config, { seed: 1, grids: [[1, 2], undefined], learned: 5 })],
  [sampleOf(config, { seed: 2, grids: [[2, 2]], learned: 4 }), sampleOf(config, { seed: 3, grids: [], learned: 3 })],
]
const featuresOf = (sample: EncodedSample) =>
  sample.pictures.flatMap(({ views: J, start }, i) =>
    Array.from({ length: J }, (_, view) => wave(P * C, 100 * sample.ids.length + 31 * start + 7 * i + view)),
  )

async function gradientsOf(
  objective: (weights: WeightSource) => Objective,
  inputs: Parameters<typeof computeGradients>[1],
) {
  const step = await frozenEncoderStep(objective)
  open.push(step)
  return { loss: await computeGradients(step, inputs), gradients: step.gradients }
}

const fixed = (type: 'int64' | 'float32', shape: readonly number[], values: ArrayLike<number>) =>
  type === 'int64'
    ? constant('int64', shape, BigInt64Array.from(Array.from(values), BigInt))
    : constant('float32', shape, Float32Array.from(values))

/** The same, obviously: each sample by itself, its pictures arranged one after the other and put where they stand. */
function slowLoss(
  config: LlavaConfig,
  weights: WeightSource,
  { sample, tokenCount }: { sample: EncodedSample; tokenCount: number },
): Objective {
  const { ids, loss, pictures } = sample
  const L = ids.length
  const features = featuresOf(sample)
  let seen = 0
  const tokens = pictures.map(({ views: J, arrangement }): Tensor => {
    const own = features.slice(seen, seen + J).flatMap((values) => [...values])
    seen += J
    const projected = project(config, weights, fixed('float32', [J, P, C], own)) // [J, P, D]
    if (arrangement === undefined) return rowsOf(projected)
    const { length: M, sources, shares } = arrangement
    const K = sources.length / M
    const told = { sources: fixed('int64', [K, M], sources), shares: fixed('float32', [K, M, 1], shares) }
    return arrange(config, weights, { tokens: projected, ...told }) // [M, D]
  })
  const places = pictures.flatMap(({ start, length: M }) => Array.from({ length: M }, (_, i) => start + i))
  const embeddings = mergedSequence(config, weights, {
    ids: fixed('int64', [1, L], ids),
    pictures:
      tokens.length === 0 ? undefined : { tokens: concat(tokens, 0), places: fixed('int64', [places.length], places) },
  })
  const mask = constant('float32', [L, L], causalMask(L))
  const context = { kind: 'whole', positions: positionIndex(1, L), mask } as const
  const { hidden } = languageModel(config.language, weights, { embeddings, context })
  const learned = [...loss.keys()].filter((t) => loss[t] === 1)
  const answering = gatherRows(
    rowsOf(hidden),
    fixed(
      'int64',
      [learned.length],
      learned.map((t) => t - 1),
    ),
  )
  const scores = logits(config.language, weights, answering)
  const targets = fixed(
    'int64',
    [learned.length],
    learned.map((t) => ids[t]!),
  )
  const even = fixed(
    'float32',
    [learned.length],
    learned.map(() => 1 / tokenCount),
  )
  return { loss: crossEntropy(scores, { targets, weights: even }), scores }
}

test.each([
  ['LLaVA-NeXT', next, false],
  ['LLaVA-OneVision, packed', onevision, true],
  ['several pictures of one view', tinyClip, false],
] as const)(
  '%s: the loss and the gradients of pictures that are arranged one by one',
  async (_, config, packed) => {
    const rows = packed ? rowsFor(config) : rowsFor(config).map((row) => row.slice(0, 1))
    const samples = rows.flat()
    const tokenCount = samples.reduce((sum, { loss }) => sum + countLearned(loss), 0)
    const options = { config, pictureTokens: P, length, views, tokenCount }
    const together = await gradientsOf(
      (weights) => gatheredAnswerLoss(config, weights, { batch, length, form: 'features', views, packed }),
      [
        {
          ...(packed ? packedInputs(rows, options) : gatheredInputs(rows, options)),
          features: stacked(samples.flatMap(featuresOf), { shape: [P, C], count: views }),
        },
      ],
    )
    const sums = new Map<string, Float32Array>()
    let loss = 0
    for (const sample of samples) {
      const alone = await gradientsOf((weights) => slowLoss(config, weights, { sample, tokenCount }), [{}])
      loss += alone.loss
      for (const [name, { data }] of alone.gradients) {
        const sum = sums.get(name) ?? new Float32Array(data.length)
        const added = sum.map((value, i) => value + data[i]!)
        sums.set(name, added)
      }
    }
    expect(loss).toBeGreaterThan(1)
    expect(Math.abs(together.loss - loss)).toBeLessThan(1e-5)
    expect([...together.gradients.keys()].sort()).toEqual([...sums.keys()].sort())
    for (const [name, { data }] of together.gradients) {
      const other = sums.get(name)!
      const largest = data.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i]!)), 0)
      expect(largest, name).toBeLessThan(1e-5)
    }
    const newline = sums.get(stateNames.gradient('projector.newline'))
    expect(newline?.some((value) => Math.abs(value) > 1e-4)).toBe(config.tiles && true)
  },
  60_000,
)

test('the models of the test differ in what their tokens are made of', () => {
  const most = (config: LlavaConfig) =>
    Math.max(
      ...rowsFor(config)
        .flat()
        .flatMap(({ pictures }) => pictures.map(({ arrangement: a }) => (a ? a.sources.length / a.length : 1))),
    )
  for (const [config, sources] of [
    [next, 1],
    [onevision, 4],
    [tinyClip, 1],
  ] as const) {
    expect(most(config)).toBe(sources)
    expect(mostSources(config)).toBe(sources)
  }
})
