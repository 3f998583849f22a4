/** From samples to the inputs of a training step: fixed sizes, and the loss mask that came with the tokens. */

import type { Template } from '../conversation/templates.ts'
import { expandPlaceholders, tokenizeConversation } from '../conversation/tokenize.ts'
import type { Tokenizer } from '../conversation/tokenizer.ts'
import { countPictures } from '../conversation/turns.ts'
import { seededRandom } from '../generation/sampling.ts'
import type { PatchLabels, Sample } from '../instruction-data/sample.ts'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { type PlannedPicture, plainPicture } from './picture-plan.ts'

/** One sample cut to length: ids [≤ L], which of them are learned, where its pictures lie. */
export type EncodedSample = {
  readonly ids: Int32Array
  readonly loss: Uint8Array
  readonly pictures: readonly (PlannedPicture & { readonly start: number })[]
  /** Begin and end of each learned stretch (answer and its end token), in the order of the answers. */
  readonly answers: readonly { readonly start: number; readonly end: number }[]
}

export type Encoding = {
  readonly tokenizer: Tokenizer
  readonly template: Template
  readonly imageToken: number
  /** Tokens that stand for a picture, or for a view of it. */
  readonly pictureTokens: number
  readonly length: number
}

/**
 * Tokenises a sample with its pictures, of one view each unless told, and cuts it after the last answer that fits whole into L tokens; into L − P
 * without a picture, whose place stays free: see `answerInputs`.
 * @throws RangeError when not even the first answer fits
 */
export function encodeSample(
  sample: Pick<Sample, 'id' | 'turns'>,
  options: Encoding & { pictures?: readonly PlannedPicture[] },
): EncodedSample {
  const { tokenizer, template, imageToken, pictureTokens, length } = options
  const { pictures = Array.from({ length: countPictures(sample.turns) }, () => plainPicture(pictureTokens)) } = options
  const tokens = tokenizeConversation(sample.turns, { template, tokenizer, imageToken })
  const visualTokens = pictures.map((picture) => picture.length)
  const expanded = expandPlaceholders(tokens.ids, tokens.loss, { imageToken, visualTokens })
  const room = pictures.length > 0 ? length : length - pictureTokens
  const stretches = learnedStretches(expanded.loss)
  const answers = stretches.filter(({ end }) => end <= room)
  const end = answers.at(-1)?.end
  if (end === undefined) {
    const found =
      stretches[0] === undefined ? 'it has no answer' : `its first answer ends after ${stretches[0].end} tokens`
    throw new RangeError(`Cannot train on sample ${sample.id}: ${found}, expected at most ${room}`)
  }
  if (answers[0]?.start === 0) {
    throw new RangeError(`Cannot train on sample ${sample.id}: its answer is the first token, expected one before it`)
  }
  const placed = pictures.map((picture, index) => ({ ...picture, start: expanded.pictures[index]?.start ?? 0 }))
  return {
    ids: expanded.ids.slice(0, end),
    loss: expanded.loss.slice(0, end),
    pictures: placed.filter((picture) => picture.start < end), // later questions show what is cut off
    answers,
  }
}

function learnedStretches(loss: Uint8Array): { start: number; end: number }[] {
  const stretches: { start: number; end: number }[] = []
  for (let at = 0; at < loss.length; at++) {
    if (loss[at] === 0) continue
    const start = at
    while (at < loss.length && loss[at] === 1) at++
    stretches.push({ start, end: at })
  }
  return stretches
}

/**
 * Inputs of `answerLoss` apart from the pictures, one sample a row, with one picture at most. A sample without a picture has the visual tokens of a blank one behind all its
 * text, where no learned token sees them.
 */
export function answerInputs(
  samples: readonly EncodedSample[],
  { pictureTokens: P, length, tokenCount }: { pictureTokens: number; length: number; tokenCount: number },
): Record<string, ResidentTensor> {
  const places = new BigInt64Array(samples.length * P)
  samples.forEach(({ pictures: [picture] }, b) => {
    const start = b * length + (picture?.start ?? length - P)
    for (let p = 0; p < P; p++) places[b * P + p] = BigInt(start + p)
  })
  const placed = samples.map((sample, b) => ({ sample, start: b * length }))
  return {
    ...textInputs(placed, { batch: samples.length, pictureTokens: P, length, tokenCount }),
    places: residentTensor('int64', [samples.length * P], { data: places }),
  }
}

/** A sample and where it begins among the B·L positions of a batch. */
export type PlacedSample = { readonly sample: EncodedSample; readonly start: number }

/**
 * Token ids [B, L], and which of them are learned: `targetRows`, `targets` and `targetWeights` [B·(L − P)]. The token at position t is predicted from
 * row t − 1; every learned token weighs 1 / `tokenCount`, the number of learned tokens in all batches of one step.
 */
export function textInputs(
  placed: readonly PlacedSample[],
  {
    batch: B,
    pictureTokens: P,
    length,
    tokenCount,
  }: { batch: number; pictureTokens: number; length: number; tokenCount: number },
): Record<'ids' | 'targetRows' | 'targets' | 'targetWeights', ResidentTensor> {
  const M = B * (length - P)
  const ids = new BigInt64Array(B * length) // padding is token 0 and is never looked at: it follows every learned token
  const targetRows = new BigInt64Array(M)
  const targets = new BigInt64Array(M)
  const targetWeights = new Float32Array(M)
  let target = 0
  for (const { sample, start } of placed) {
    sample.ids.forEach((id, t) => {
      ids[start + t] = BigInt(id)
      if (sample.loss[t] !== 1) return
      targetRows[target] = BigInt(start + t - 1)
      targets[target] = BigInt(id)
      targetWeights[target] = 1 / tokenCount
      target++
    })
  }
  return {
    ids: residentTensor('int64', [B, length], { data: ids }),
    targetRows: residentTensor('int64', [M], { data: targetRows }),
    targets: residentTensor('int64', [M], { data: targets }),
    targetWeights: residentTensor('float32', [M], { data: targetWeights }),
  }
}

/** Arrays of one shape side by side, zeros for those that are missing: [count, ...shape]. */
export function stacked(
  arrays: readonly (Float32Array | undefined)[],
  { shape, count = arrays.length }: { shape: readonly number[]; count?: number },
): ResidentTensor<'float32'> {
  const stack = residentTensor('float32', [count, ...shape])
  const size = shape.reduce((product, dim) => product * dim, 1)
  arrays.forEach((array, index) => {
    if (array !== undefined) stack.data.set(array, index * size)
  })
  return stack
}

export type PatchWeighing = {
  /** Labels below this number name no thing. */
  backgrounds: number
  /** The weight of a patch without a thing, where one with a thing has 1. */
  backgroundWeight: number
  /** What all weights sum to. */
  share: number
}

/** Inputs of `patchLabelLoss` apart from the pixels. */
export function labelInputs(
  pictures: readonly PatchLabels[],
  weighing: PatchWeighing,
): Record<'targets' | 'targetWeights', ResidentTensor> {
  const labels = pictures.flatMap(({ parts, centers }) => {
    const middle = centers()
    return Array.from(parts(), (part, p) => [part, middle[p] ?? 0]).flat() // [P·2]
  })
  return {
    targets: residentTensor('int64', [labels.length], { data: BigInt64Array.from(labels, BigInt) }),
    targetWeights: patchWeights(labels, weighing),
  }
}

/** Inputs of `pictureWordLoss` apart from the features: the word of each patch, as the language model reads pictures in words. */
export function wordTargets(
  pictures: readonly PatchLabels[],
  { wordIds, ...weighing }: PatchWeighing & { wordIds: readonly number[] },
): Record<'words' | 'targetWeights', ResidentTensor> {
  const labels = pictures.flatMap(({ centers }) => [...centers()]) // [B·P]
  const words = BigInt64Array.from(labels, (label) => BigInt(wordIds[label] ?? 0))
  return {
    words: residentTensor('int64', [pictures.length, labels.length / pictures.length], { data: words }),
    targetWeights: patchWeights(labels, weighing),
  }
}

function patchWeights(
  labels: readonly number[],
  { backgrounds, backgroundWeight, share }: PatchWeighing,
): ResidentTensor<'float32'> {
  const weights = labels.map((label) => (label < backgrounds ? backgroundWeight : 1))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  const scaled = weights.map((weight) => (total === 0 ? 0 : (weight * share) / total))
  return residentTensor('float32', [labels.length], { data: Float32Array.from(scaled) })
}

/**
 * Pictures written in W words: the token ids of W labels and the patches that they are of, [B, W] each, in the order of the patches. Every thing is
 * written; of the patches without one, as many as there is room for, chosen at random but the same each time. A missing picture is zeros.
 * @throws RangeError when a picture has more than W things
 */
export function wordInput(
  pictures: readonly (PatchLabels | undefined)[],
  { wordIds, count: W, backgrounds }: { wordIds: readonly number[]; count: number; backgrounds: number },
): Record<'words' | 'patches', ResidentTensor> {
  const written = pictures.flatMap((picture) => {
    if (picture === undefined) return Array.from({ length: W }, () => ({ patch: 0, word: 0 }))
    const labels = picture.centers() // [P]
    const patches = writtenPatches(labels, { count: W, backgrounds })
    return patches.map((patch) => ({ patch, word: wordIds[labels[patch] ?? 0] ?? 0 }))
  })
  const rows = (values: readonly number[]) =>
    residentTensor('int64', [pictures.length, W], { data: BigInt64Array.from(values, BigInt) })
  return {
    words: rows(written.map(({ word }) => word)),
    patches: rows(written.map(({ patch }) => patch)),
  }
}

function writtenPatches(
  labels: Int32Array,
  { count, backgrounds }: { count: number; backgrounds: number },
): readonly number[] {
  const all = [...labels.keys()]
  if (count >= all.length) return all
  const isThing = (patch: number) => (labels[patch] ?? 0) >= backgrounds
  const things = all.filter(isThing)
  if (things.length > count) {
    throw new RangeError(`Cannot write a picture in ${count} words: it has ${things.length} things`)
  }
  const random = seededRandom(things.reduce((hash, patch) => Math.imul(hash ^ patch, 16777619) >>> 0, 2166136261))
  const others = all.filter((patch) => !isThing(patch))
  while (others.length > count - things.length) others.splice(Math.floor(random() * others.length), 1)
  return [...things, ...others].sort((one, other) => one - other)
}
