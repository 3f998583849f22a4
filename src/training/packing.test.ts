import { afterEach, describe, expect, test } from 'vitest'
import { tinyClip } from '../checkpoint/tiny-config.fixture.ts'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { answerInputs, type EncodedSample, stacked } from './batches.ts'
import { frozenEncoderStep } from './frozen-encoder-step.fixture.ts'
import { answerLoss, gatheredAnswerLoss, type PictureForm } from './objectives.ts'
import { countLearned, findRow, packedInputs, viewsPerRow } from './packing.ts'
import { computeGradients, disposeTrainingStep, scoreOnce, type TrainingStep } from './training-step.ts'

const config = { ...tinyClip, featureLayer: -1 }
const { visualTokens: P, imageToken } = config
const [S, C] = [config.vision.imageSide, config.vision.width]
const length = 32
const batch = 2
const limits = { length, pictureTokens: P, views: viewsPerRow({ length, pictureTokens: P, views: 1 }) }
const slots = batch * limits.views

const open: TrainingStep[] = []
afterEach(async () => {
  for (const step of open.splice(0)) await disposeTrainingStep(step)
})

/** A beginning, a picture if wanted, some words, and an answer of `learned` tokens. */
function sampleOf(
  seed: number,
  { tokens, learned, picture = true }: { tokens: number; learned: number; picture?: boolean },
) {
  const isPicture = (t: number) => picture && t >= 1 && t <= P
  const ids = Int32Array.from({ length: tokens }, (_, t) => (isPicture(t) ? imageToken : (5 * seed + 7 * t) % 19))
  const loss = Uint8Array.from({ length: tokens }, (_, t) => (t >= tokens - learned ? 1 : 0))
  const answers = [{ start: tokens - learned, end: tokens }]
  return { ids, loss, answers, pictures: picture ? [{ start: 1, length: P, views: 1 }] : [] } satisfies EncodedSample
}

const rows = [
  [
    sampleOf(1, { tokens: 11, learned: 4 }),
    sampleOf(2, { tokens: 8, learned: 5, picture: false }),
    sampleOf(3, { tokens: 12, learned: 3 }),
  ],
  [sampleOf(4, { tokens: 14, learned: 6 }), sampleOf(5, { tokens: 9, learned: 2 })],
] as const
const samples = rows.flat()
const tokenCount = samples.reduce((sum, { loss }) => sum + countLearned(loss), 0)

const wave = (size: number, seed: number) => Float32Array.from({ length: size }, (_, i) => Math.sin(seed + i * 12.9898))
const sizes = { pixels: [3, S, S], features: [P, C] } as const
/** One picture for each sample that has one; its own, whatever the company. */
const pictureOf = (form: 'pixels' | 'features', sample: EncodedSample) => {
  const size = sizes[form].reduce((product, dim) => product * dim, 1)
  return sample.pictures.length === 0 ? undefined : wave(size, 50 * samples.indexOf(sample as (typeof samples)[0]))
}

async function stepOf(objective: Parameters<typeof frozenEncoderStep>[0]): Promise<TrainingStep> {
  const step = await frozenEncoderStep(objective)
  open.push(step)
  return step
}

const packedStep = (form: PictureForm) =>
  stepOf((weights) => gatheredAnswerLoss(config, weights, { batch, length, form, views: slots, packed: true }))

const packed = (form: 'pixels' | 'features', from: readonly (readonly EncodedSample[])[] = rows) => ({
  ...packedInputs(from, { config, pictureTokens: P, length, views: slots, tokenCount }),
  [form]: stacked(
    rows.flat().flatMap((sample) => pictureOf(form, sample) ?? []),
    { shape: sizes[form], count: slots },
  ),
})

const alone = (form: 'pixels' | 'features', sample: EncodedSample) => ({
  ...answerInputs([sample], { pictureTokens: P, length, tokenCount }),
  [form]: stacked([pictureOf(form, sample)], { shape: sizes[form] }),
})

describe('findRow', () => {
  const [first, second] = [sampleOf(1, { tokens: 20, learned: 3 }), sampleOf(2, { tokens: 10, learned: 3 })]

  test('takes the first row with room', () => {
    expect(findRow([[], []], first, limits)).toBe(0)
    expect(findRow([[first], []], first, limits)).toBe(1)
    expect(findRow([[first], []], second, limits)).toBe(0)
    expect(findRow([[first, second], [first]], second, limits)).toBe(1)
    expect(findRow([[first], [first]], first, limits)).toBeUndefined()
  })

  test('fills a row to its last token', () => {
    expect(findRow([[first]], sampleOf(3, { tokens: 12, learned: 3 }), limits)).toBe(0)
    expect(findRow([[first]], sampleOf(3, { tokens: 13, learned: 3 }), limits)).toBeUndefined()
  })

  test('keeps room for the views', () => {
    const many = { ...first, pictures: [{ start: 1, length: P, views: limits.views }] }
    expect(findRow([[many], []], second, limits)).toBe(1)
    expect(findRow([[many], []], { ...second, pictures: [] }, limits)).toBe(0)
  })

  test('keeps room for the targets: no more than L − P are learned', () => {
    const [long, rest] = [sampleOf(1, { tokens: 16, learned: 15, picture: false }), length - P - 15]
    const other = (learned: number) => sampleOf(2, { tokens: 16, learned, picture: false })
    expect(findRow([[long]], other(rest), limits)).toBe(0)
    expect(findRow([[long]], other(rest + 1), limits)).toBeUndefined()
  })
})

test('rows cannot hold more pictures than a batch has places for', () => {
  const smallest = { tokens: P + 1, learned: 1 }
  const row = (count: number) => Array.from({ length: count }, () => sampleOf(0, smallest))
  const most = slots / batch
  expect(findRow([row(most - 1)], sampleOf(0, smallest), limits)).toBe(0)
  expect(findRow([row(most)], sampleOf(0, smallest), limits)).toBeUndefined()
})

describe('packedInputs', () => {
  const inputs = packedInputs(rows, { config, pictureTokens: P, length, views: slots, tokenCount })
  const row = (name: string, b: number) => Array.from(inputs[name]!.data, Number).slice(b * length, (b + 1) * length)
  const range = (size: number) => Array.from({ length: size }, (_, i) => i)
  const repeated = (value: number, times: number) => Array<number>(times).fill(value)

  test('begins the positions anew in every sample, and tells samples and padding apart', () => {
    expect(row('positions', 0)).toEqual([...range(11), ...range(8), ...range(12), 0])
    expect(row('segments', 0)).toEqual([...repeated(0, 11), ...repeated(1, 8), ...repeated(2, 12), 3])
    expect(row('segments', 1)).toEqual([...repeated(0, 14), ...repeated(1, 9), ...repeated(2, 9)])
  })

  test('looks words up where they stand, and visual tokens picture by picture', () => {
    const sources = Array.from(inputs.sources!.data, Number)
    const visual = sources.flatMap((source, at) => (source >= batch * length ? [{ source, at }] : []))
    expect(visual.map(({ source }) => source)).toEqual(range(4 * P).map((i) => batch * length + i))
    for (const { at } of visual) expect(inputs.ids!.data[at]).toBe(BigInt(imageToken))
    sources.forEach((source, at) => {
      if (source < batch * length) expect(source).toBe(at)
    })
  })

  test('predicts each learned token from the token before it, of the same sample', () => {
    const targetRows = Array.from(inputs.targetRows!.data, Number).slice(0, tokenCount)
    const segments = Array.from(inputs.segments!.data, Number)
    targetRows.forEach((at, i) => {
      expect(inputs.targets!.data[i]).toBe(inputs.ids!.data[at + 1])
      expect(segments[at]).toBe(segments[at + 1])
    })
  })
})

describe('packed samples', () => {
  test.each(['features', 'pixels'] as const)('have the loss and the gradients of samples alone, %s', async (form) => {
    const single = await stepOf((weights) => answerLoss(config, weights, { batch: 1, length, form }))
    const together = await packedStep(form)
    const loss = await computeGradients(
      single,
      samples.map((sample) => alone(form, sample)),
    )
    expect(loss).toBeGreaterThan(1)
    expect(Math.abs((await computeGradients(together, [packed(form)])) - loss)).toBeLessThan(1e-5)
    for (const [name, { data }] of single.gradients) {
      const other = together.gradients.get(name)!.data
      const largest = data.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i]!)), 0)
      expect(largest, name).toBeLessThan(1e-5)
      expect(
        data.some((value) => value !== 0),
        name,
      ).toBe(true)
    }
  }, 60_000)

  test('know nothing of each other: no score of one moves when another changes', async () => {
    const step = await packedStep('features')
    const V = config.language.vocabulary
    const scoresOf = async (from: readonly (readonly EncodedSample[])[]) => {
      const data = (await scoreOnce(step, packed('features', from))).scores.data as Float32Array
      let at = 0
      return from.flat().map(({ loss }) => {
        const own = data.slice(at * V, (at + countLearned(loss)) * V)
        at += countLearned(loss)
        return own
      })
    }
    const before = await scoresOf(rows)
    for (const changed of samples) {
      const shifted = { ...changed, ids: changed.ids.map((id) => (id === imageToken ? id : (id + 3) % 19)) }
      const after = await scoresOf(rows.map((row) => row.map((sample) => (sample === changed ? shifted : sample))))
      samples.forEach((sample, index) => {
        const same = Buffer.from(after[index]!.buffer).equals(Buffer.from(before[index]!.buffer))
        expect(same, `sample ${index}`).toBe(sample !== changed)
      })
    }
  }, 60_000)
})

describe('a sample without a picture, in a row of its own', () => {
  const text = sampleOf(2, { tokens: 12, learned: 5, picture: false })
  const inputs = (features: Float32Array) => ({
    ...answerInputs([text], { pictureTokens: P, length, tokenCount: 5 }),
    features: residentTensor('float32', [1, P, C], { data: features }),
  })

  test('never hears of the blank picture behind it', async () => {
    const step = await stepOf((weights) => answerLoss(config, weights, { batch: 1, length, form: 'features' }))
    const blank = await scoreOnce(step, inputs(new Float32Array(P * C)))
    const other = await scoreOnce(step, inputs(wave(P * C, 3)))
    expect(other.loss).toBe(blank.loss)
    expect(other.scores.data).toEqual(blank.scores.data)
    await computeGradients(step, [inputs(wave(P * C, 3))])
    const learning = [...step.gradients].filter(([, { data }]) => data.some((value) => value !== 0))
    expect(learning.length).toBeGreaterThan(0)
    expect(learning.filter(([name]) => name.includes('projector'))).toEqual([])
  })
})
