/** Draws samples in order and makes them the inputs of one step. Samples that cannot be learned from are skipped, counted and told. */

import type { PatchLabels, Sample, SampleSource } from '../instruction-data/sample.ts'
import { disposeTensor } from '../runtime/resident-tensor.ts'
import {
  answerInputs,
  type EncodedSample,
  encodeSample,
  labelInputs,
  pixelInput,
  preparePixels,
  wordInput,
} from './batches.ts'
import type { Lesson } from './lesson.ts'
import type { Inputs } from './training-step.ts'

export type Batch = {
  /** One per accumulated part of the step. */
  readonly inputs: readonly Inputs[]
  readonly samples: readonly Sample[]
  readonly encoded: readonly EncodedSample[] | undefined
  readonly pictures: number
  readonly tokens: number
  /** Where the next batch goes on: index of the sample after the last one drawn, and how many were skipped so far. */
  readonly position: Position
  /** The samples that were skipped while this batch was drawn. */
  readonly skips: readonly Skip[]
}

export type Position = { readonly cursor: number; readonly skipped: number }
export type Skip = { readonly sample: string; readonly reason: string }

/** A sample with all that can fail about it done. */
type Drawn = {
  readonly sample: Sample
  readonly encoded: EncodedSample | undefined
  readonly pixels: Float32Array | undefined // [3, S, S]
}

/** A run fails when more than this share of what it has drawn was skipped, once enough was drawn to tell. */
const tolerated = 0.05
const enoughToTell = 200

/** The next batch from `position` on: a function of its arguments alone. Its inputs are to be given to `disposeBatch`. */
export async function makeBatch(
  lesson: Lesson,
  { source, position, parts }: { source: SampleSource; position: Position; parts: number },
): Promise<Batch> {
  const { recipe, config, stage, pictureTokens } = lesson
  const size = recipe.batch * parts
  const { drawn, skips, cursor } = await drawSamples(lesson, { source, position, size })
  const encoded = lesson.encoding && drawn.flatMap((entry) => (entry.encoded === undefined ? [] : [entry.encoded]))
  const backgrounds = source.labels?.backgrounds ?? 0
  const tokenCount = encoded?.reduce((sum, { loss }) => sum + loss.reduce((total, one) => total + one, 0), 0) ?? 0
  const inputs: Inputs[] = []
  for (let part = 0; part < parts; part++) {
    const range = [part * recipe.batch, (part + 1) * recipe.batch] as const
    const own = drawn.slice(...range)
    const targets = encoded
      ? answerInputs(encoded.slice(...range), { pictureTokens, length: recipe.length, tokenCount })
      : labelInputs(own.map(labelsOf), { backgrounds, backgroundWeight: recipe.backgroundWeight, share: 1 / parts })
    inputs.push({ ...(await pictureInput(lesson, own)), ...targets })
  }
  return {
    inputs,
    samples: drawn.map(({ sample }) => sample),
    encoded,
    pictures: size,
    tokens: stage.objective === 'patch-labels' ? size * config.visualTokens : size * recipe.length,
    position: { cursor, skipped: position.skipped + skips.length },
    skips,
  }
}

/** Frees the inputs of a batch. Safe to repeat. */
export function disposeBatch({ inputs }: Batch): void {
  for (const tensors of inputs) Object.values(tensors).forEach(disposeTensor)
}

async function drawSamples(
  lesson: Lesson,
  { source, position, size }: { source: SampleSource; position: Position; size: number },
): Promise<{ drawn: Drawn[]; skips: Skip[]; cursor: number }> {
  const drawn: Drawn[] = []
  const skips: Skip[] = []
  let { cursor } = position
  while (drawn.length < size) {
    const index = orderedIndex(cursor++, { size: source.size, seed: lesson.recipe.seed })
    try {
      drawn.push(await prepareSample(lesson, await source.sample(index)))
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      skips.push({ sample: `number ${index}`, reason })
      const skipped = position.skipped + skips.length
      if (cursor >= enoughToTell && skipped > tolerated * cursor) {
        throw new Error(`Cannot train: ${skipped} of ${cursor} samples were unusable, the last one because: ${reason}`)
      }
    }
  }
  return { drawn, skips, cursor }
}

async function prepareSample(lesson: Lesson, sample: Sample): Promise<Drawn> {
  const { stage, encoding } = lesson
  const labelled = stage.objective === 'patch-labels' || stage.pictures === 'words'
  if (labelled && sample.labels === undefined) {
    throw new RangeError(`Cannot train on sample ${sample.id}: it has no patch labels`)
  }
  return {
    sample,
    encoded: encoding && encodeSample(sample, encoding),
    pixels: stage.pictures === 'words' ? undefined : await preparePixels(sample, lesson),
  }
}

async function pictureInput(
  { stage, config, source, wordIds, pictureTokens, encodePictures }: Lesson,
  drawn: readonly Drawn[],
): Promise<Inputs> {
  const side = config.vision.imageSide
  const pixels = () =>
    pixelInput(
      drawn.flatMap((entry) => entry.pixels ?? []),
      { side },
    )
  switch (stage.pictures) {
    case 'words':
      return wordInput(drawn.map(labelsOf), {
        wordIds,
        count: pictureTokens,
        backgrounds: source.labels?.backgrounds ?? 0,
      })
    case 'pixels':
      return { pixels: pixels() }
    case 'features':
      return { features: await encodePictures(pixels()) }
  }
}

function labelsOf({ sample: { id, labels } }: Drawn): PatchLabels {
  if (labels === undefined) throw new Error(`Sample ${id} has no labels`)
  return labels
}

/**
 * The sample to draw at a position of the run: in order from an endless source, in a new random order for every pass over a finite one. A function
 * of its arguments alone, so that a resumed run needs no memory of what was drawn.
 */
export function orderedIndex(cursor: number, { size, seed }: { size: number | undefined; seed: number }): number {
  if (size === undefined) return cursor
  const pass = Math.floor(cursor / size)
  return permute(cursor % size, { size, key: Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(pass + 1, 0x85ebca6b) })
}

/** A keyed permutation of 0 … size − 1: a four-round Feistel network over the next even power of two, repeated until the value is inside. */
function permute(index: number, { size, key }: { size: number; key: number }): number {
  const halfBits = Math.max(1, Math.ceil(Math.log2(Math.max(2, size)) / 2))
  const mask = 2 ** halfBits - 1
  let value = index
  do {
    let left = Math.floor(value / 2 ** halfBits)
    let right = value & mask
    for (let round = 0; round < 4; round++) {
      const mixed = Math.imul(right ^ Math.imul(key, round + 1), 0xcc9e2d51)
      const swapped = left ^ ((mixed ^ (mixed >>> 15)) & mask)
      left = right
      right = swapped
    }
    value = left * 2 ** halfBits + right
  } while (value >= size)
  return value
}
