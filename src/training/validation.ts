/** How well a part does its lesson on samples it has not learned from, measured while it trains. */

import type { Sample } from '../instruction-data/sample.ts'
import { disposeTensor, type ResidentTensor } from '../runtime/resident-tensor.ts'
import type { Batch } from './batch-maker.ts'
import type { EncodedSample } from './batches.ts'
import type { EncodedCaption } from './caption-batches.ts'
import { scoreOnce, type TrainingStep } from './training-step.ts'

/** Mean loss and shares of right answers over batches of one part each; labels below `backgrounds` name no thing. */
export async function validate(
  step: TrainingStep,
  batches: readonly Batch[],
  { backgrounds = 0 }: { backgrounds?: number | undefined } = {},
): Promise<{ loss: number; accuracy: Record<string, number> }> {
  const tally: Tally = new Map()
  let total = 0
  for (const { inputs, samples, encoded, captions } of batches) {
    const [input = {}] = inputs
    const { loss, scores } = await scoreOnce(step, input)
    total += loss
    if (encoded !== undefined) tallyAnswers(tally, { samples, encoded, scores })
    else if (captions !== undefined) tallyCaptions(tally, { captions, scores })
    else if (input.targets !== undefined) tallyLabels(tally, { targets: input.targets, scores, backgrounds })
    disposeTensor(scores)
  }
  return { loss: total / batches.length, accuracy: shares(tally) }
}

/** Counts that can be added up over batches: right and all, by what was asked. */
export type Tally = Map<string, { right: number; all: number }>

export function addTo(tally: Tally, key: string, right: boolean): void {
  const entry = tally.get(key) ?? { right: 0, all: 0 }
  tally.set(key, { right: entry.right + (right ? 1 : 0), all: entry.all + 1 })
}

/** Share of right answers by key. */
export function shares(tally: Tally): Record<string, number> {
  return Object.fromEntries([...tally].sort().map(([key, { right, all }]) => [key, right / all]))
}

/**
 * Whether each answer would have been said word for word, given the question and the answers before it: every learned token is the likeliest one.
 * Stricter than scoring what the model says by itself, and much cheaper. Scores are [M, V], in the order of the targets.
 */
function tallyAnswers(
  tally: Tally,
  {
    samples,
    encoded,
    scores,
  }: { samples: readonly Sample[]; encoded: readonly EncodedSample[]; scores: ResidentTensor },
): void {
  let row = 0
  encoded.forEach((sample, b) => {
    sample.answers.forEach(({ start, end }, index) => {
      let right = true
      for (let t = start; t < end; t++) right = argmax(scores, row++) === sample.ids[t] && right
      addTo(tally, samples[b]?.skills?.[index] ?? 'answers', right)
    })
  })
}

/** Whether each patch is named right: what it is a part of, and the thing whose middle it holds; patches without a thing are counted apart. */
function tallyLabels(
  tally: Tally,
  { targets, scores, backgrounds }: { targets: ResidentTensor; scores: ResidentTensor; backgrounds: number },
): void {
  for (let row = 0; row < targets.data.length; row++) {
    const target = Number(targets.data[row])
    const what = target < backgrounds ? 'background' : row % 2 === 0 ? 'parts' : 'centers'
    addTo(tally, what, argmax(scores, row) === target)
  }
}

/**
 * Whether each picture's own caption goes with it better than others do: `retrieval`, better than every other caption of the batch; `contrasts`,
 * better than all false ones of its own; and for each fact, better than the one in which that fact is changed. Scores are [B, N], true captions first.
 */
export function tallyCaptions(
  tally: Tally,
  { captions, scores }: { captions: readonly EncodedCaption[]; scores: ResidentTensor },
): void {
  const [B = 1, N = 1] = scores.shape
  const K = N / B - 1
  const texts = captions.map(({ ids }) => String(ids))
  captions.forEach(({ contrasts }, b) => {
    const score = (column: number) => Number(scores.data[b * N + column])
    const own = score(b)
    const others = [...texts.keys()].filter((other) => texts[other] !== texts[b])
    addTo(
      tally,
      'retrieval',
      others.every((other) => own > score(other)),
    )
    const won = contrasts.map((_, k) => own > score(B + b * K + k))
    contrasts.forEach(({ fact }, k) => {
      addTo(tally, fact, won[k] === true)
    })
    if (contrasts.length > 0) addTo(tally, 'contrasts', won.every(Boolean))
  })
}

function argmax({ shape, data }: ResidentTensor, row: number): number {
  const width = shape[1] ?? 1
  let best = 0
  for (let i = 1; i < width; i++) {
    if (Number(data[row * width + i]) > Number(data[row * width + best])) best = i
  }
  return best
}
