/** Draws samples in order and makes them the inputs of one step. Samples that cannot be learned from are skipped, counted and told. */

import type { Sample, SampleSource } from '../instruction-data/sample.ts'
import { answerInputs, type EncodedSample, encodeSample, labelInputs, pixelInput, wordInput } from './batches.ts'
import type { Lesson } from './lesson.ts'
import type { Inputs } from './training-step.ts'

export type Batch = {
  /** One per accumulated part of the step. */
  readonly inputs: readonly Inputs[]
  readonly samples: readonly Sample[]
  readonly encoded: readonly EncodedSample[] | undefined
  readonly pictures: number
  readonly tokens: number
  /** Index of the sample after the last one drawn. */
  readonly cursor: number
  readonly skipped: number
}

type Skip = (event: { type: 'skipped'; sample: string; reason: string }) => void

/** A run fails when more than this share of what it has drawn was skipped, once enough was drawn to tell. */
const tolerated = 0.05
const enoughToTell = 200

export function batchMaker(
  lesson: Lesson,
  { cursor, skipped, onEvent }: { cursor: number; skipped: number; onEvent: Skip },
): { next(): Promise<Batch> } {
  let state = { cursor, skipped }
  return {
    async next() {
      const batch = await makeBatch(lesson, {
        ...state,
        source: lesson.source,
        parts: lesson.recipe.accumulate,
        onEvent,
      })
      state = batch
      return batch
    },
  }
}

export async function makeBatch(
  lesson: Lesson,
  options: { source: SampleSource; cursor: number; skipped: number; parts: number; onEvent: Skip },
): Promise<Batch> {
  const { source, parts, onEvent } = options
  const { recipe, config } = lesson
  const size = recipe.batch * parts
  const drawn: { sample: Sample; encoded: EncodedSample | undefined }[] = []
  let { cursor, skipped } = options
  while (drawn.length < size) {
    const index = orderedIndex(cursor++, { size: source.size, seed: recipe.seed })
    try {
      const sample = await source.sample(index)
      drawn.push({ sample, encoded: lesson.encoding && encodeSample(sample, lesson.encoding) })
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      onEvent({ type: 'skipped', sample: `number ${index}`, reason })
      skipped++
      if (cursor >= enoughToTell && skipped > tolerated * cursor) {
        throw new Error(`Cannot train: ${skipped} of ${cursor} samples were unusable, the last one because: ${reason}`)
      }
    }
  }
  const samples = drawn.map(({ sample }) => sample)
  const encoded = lesson.encoding && drawn.flatMap((entry) => (entry.encoded === undefined ? [] : [entry.encoded]))
  const tokenCount = encoded?.reduce((sum, { loss }) => sum + loss.reduce((total, one) => total + one, 0), 0) ?? 0
  const inputs: Inputs[] = []
  for (let part = 0; part < parts; part++) {
    const range = [part * recipe.batch, (part + 1) * recipe.batch] as const
    const pictures = await pictureInput(lesson, samples.slice(...range))
    const targets =
      encoded === undefined
        ? labelInputs(samples.slice(...range), {
            patches: config.visualTokens,
            backgroundWeight: recipe.backgroundWeight,
            share: 1 / parts,
          })
        : answerInputs(encoded.slice(...range), { config, length: recipe.length, tokenCount })
    inputs.push({ ...pictures, ...targets })
  }
  const tokens = encoded === undefined ? size * config.visualTokens : size * recipe.length
  return { inputs, samples, encoded, pictures: size, tokens, cursor, skipped }
}

async function pictureInput(lesson: Lesson, samples: readonly Sample[]): Promise<Inputs> {
  switch (lesson.stage.pictures) {
    case 'words':
      return { words: wordInput(samples, lesson.wordIds) }
    case 'pixels':
      return { pixels: await pixelInput(samples, lesson) }
    case 'features':
      return { features: await lesson.encodePictures(await pixelInput(samples, lesson)) }
  }
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
