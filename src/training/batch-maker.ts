/** Draws samples in order and makes them the inputs of one step. Samples that cannot be learned from are skipped, counted and told. */

import type { PatchLabels, Sample, SampleSource } from '../instruction-data/sample.ts'
import { disposeTensor, type ResidentTensor } from '../runtime/resident-tensor.ts'
import { dropoutInputs } from './adapter-dropout.ts'
import {
  answerInputs,
  type EncodedSample,
  encodeSample,
  labelInputs,
  prepareView,
  stacked,
  wordInput,
  wordTargets,
} from './batches.ts'
import { captionInputs, type EncodedCaption, encodeCaption } from './caption-batches.ts'
import type { Lesson } from './lesson.ts'
import { drawOrder } from './order.ts'
import { countLearned, findRow, packedInputs } from './packing.ts'
import type { Inputs } from './training-step.ts'

export type Batch = {
  /** One per accumulated part of the step. */
  readonly inputs: readonly Inputs[]
  readonly samples: readonly Sample[]
  readonly encoded: readonly EncodedSample[] | undefined
  /** Undefined when the lesson has no captions. */
  readonly captions: readonly EncodedCaption[] | undefined
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
  readonly caption?: EncodedCaption | undefined
  readonly picture: DrawnPicture | undefined
}

/** A picture in the form that its stage asks for; features that are not kept yet are still pixels, to be kept under `key`. */
type DrawnPicture = {
  readonly pixels?: Float32Array // [3, S, S]
  readonly features?: Float32Array | undefined // [P, C]
  readonly labels?: PatchLabels
  readonly key?: string | undefined
}

/** A run fails when more than this share of what it has drawn was skipped, once enough was drawn to tell. */
const tolerated = 0.05
const enoughToTell = 200

/** The next batch from `position` on: a function of its arguments alone. Its inputs are to be given to `disposeBatch`. */
export async function makeBatch(
  lesson: Lesson,
  { source, position, parts }: { source: SampleSource; position: Position; parts: number },
): Promise<Batch> {
  const { recipe, config, stage } = lesson
  const count = recipe.batch * parts
  const { rows, skips, cursor } = await drawRows(lesson, { source, position, count })
  const drawn = rows.flat()
  const encoded = lesson.encoding && encodedOf(drawn)
  const tokenCount = encoded?.reduce((sum, { loss }) => sum + countLearned(loss), 0) ?? 0
  const inputs: Inputs[] = []
  for (let part = 0; part < parts; part++) {
    const own = rows.slice(part * recipe.batch, (part + 1) * recipe.batch)
    const targets = encoded
      ? textTargets(lesson, own, { tokenCount })
      : lesson.captions
        ? captionInputs(captionsOf(own.flat()), { config, settings: lesson.captions.settings, share: 1 / parts })
        : patchTargets(lesson, own, { parts })
    const keys = lesson.dropout && dropoutInputs(lesson.dropout, { seed: recipe.seed, cursor: position.cursor, part })
    inputs.push({ ...(await pictureInput(lesson, own)), ...targets, ...keys })
  }
  return {
    inputs,
    samples: drawn.map(({ sample }) => sample),
    encoded,
    captions: lesson.captions && captionsOf(drawn),
    pictures: drawn.filter(({ picture }) => picture !== undefined).length,
    tokens:
      stage.objective === 'answers'
        ? inputs.reduce((sum, { ids }) => sum + (ids?.data.length ?? 0), 0)
        : count * config.visualTokens, // of pictures, whatever else is learned from
    position: { cursor, skipped: position.skipped + skips.length },
    skips,
  }
}

/** What the patches of a batch's pictures are to be named, for lessons without text. */
function patchTargets(
  { recipe, stage, source, wordIds }: Lesson,
  rows: readonly (readonly Drawn[])[],
  { parts }: { parts: number },
): Inputs {
  const { backgroundWeight } = recipe
  const options = { backgrounds: source.labels?.backgrounds ?? 0, backgroundWeight, share: 1 / parts }
  const labels = rows.flat().map(labelsOf)
  return stage.objective === 'picture-words'
    ? wordTargets(labels, { ...options, wordIds })
    : labelInputs(labels, options)
}

/** Frees the inputs of a batch. Safe to repeat. */
export function disposeBatch({ inputs }: Batch): void {
  for (const tensors of inputs) Object.values(tensors).forEach(disposeTensor)
}

/**
 * Samples for `count` rows, one each; when packing, as many as fit: each goes into the first row with room for it, and the first that fits nowhere is
 * left to the next batch.
 */
async function drawRows(
  lesson: Lesson,
  { source, position, count }: { source: SampleSource; position: Position; count: number },
): Promise<{ rows: readonly (readonly Drawn[])[]; skips: Skip[]; cursor: number }> {
  const { recipe, encoding } = lesson
  const rows: Drawn[][] = Array.from({ length: count }, () => [])
  const skips: Skip[] = []
  let { cursor } = position
  const order = drawOrder(source, { seed: recipe.seed, bucket: recipe.bucket ? count : undefined })
  while (recipe.pack || rows.some((row) => row.length === 0)) {
    const index = order(cursor)
    try {
      const sample = await source.sample(index)
      const encoded = encoding && encodeSample(sample, encoding)
      const caption = lesson.captions && encodeCaption(sample, { ...lesson.captions, config: lesson.config })
      const row =
        recipe.pack && encoding && encoded
          ? findRow(rows.map(encodedOf), encoded, encoding)
          : rows.findIndex((one) => one.length === 0)
      if (row === undefined) break
      rows[row]?.push({ sample, encoded, caption, picture: await preparePicture(lesson, { sample, encoded }) })
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      skips.push({ sample: `number ${index}`, reason })
      const [drawn, skipped] = [cursor + 1, position.skipped + skips.length]
      if (drawn >= enoughToTell && skipped > tolerated * drawn) {
        throw new Error(`Cannot train: ${skipped} of ${drawn} samples were unusable, the last one because: ${reason}`)
      }
    }
    cursor++
    if (recipe.bucket && cursor % count === 0) repeatDrawn(rows)
  }
  return { rows, skips, cursor }
}

/** Fills the rows that skipped samples left empty with those before them: a bucket is all there is of its kind, and the next batch has the next one. */
function repeatDrawn(rows: Drawn[][]): void {
  const drawn = rows.filter((row) => row.length > 0)
  if (drawn.length === 0) return
  rows.forEach((row, index) => {
    if (row.length === 0) row.push(...(drawn[index % drawn.length] ?? []))
  })
}

function encodedOf(drawn: readonly Drawn[]): EncodedSample[] {
  return drawn.flatMap(({ encoded }) => encoded ?? [])
}

function captionsOf(drawn: readonly Drawn[]): EncodedCaption[] {
  return drawn.flatMap(({ caption }) => caption ?? [])
}

/** Undefined for a conversation without a picture. */
async function preparePicture(
  lesson: Lesson,
  { sample, encoded }: Pick<Drawn, 'sample' | 'encoded'>,
): Promise<DrawnPicture | undefined> {
  const { stage, featureCache } = lesson
  if (encoded !== undefined && encoded.pictureStart === undefined) return undefined
  const { id, labels } = sample
  const labelled = (stage.objective !== 'answers' && stage.objective !== 'captions') || stage.pictures === 'words'
  if (labelled && labels === undefined) throw new RangeError(`Cannot train on sample ${id}: it has no patch labels`)
  if (stage.pictures === 'words') return { ...(labels && { labels }) }
  const key = featureCache && (await sample.pictureKey?.())
  const features = key === undefined ? undefined : await featureCache?.read(key)
  if (features !== undefined) return { features }
  return { pixels: (await prepareView(sample, lesson)).data, ...(labels && { labels }), key }
}

function textTargets(
  { recipe, pictureTokens }: Lesson,
  rows: readonly (readonly Drawn[])[],
  { tokenCount }: { tokenCount: number },
): Inputs {
  if (recipe.pack) return packedInputs(rows.map(encodedOf), { pictureTokens, length: recipe.length, tokenCount })
  const samples = encodedOf(rows.flat())
  const needed = Math.max(
    ...samples.map(({ ids, pictureStart }) => ids.length + (pictureStart === undefined ? pictureTokens : 0)),
  )
  const length = Math.min(recipe.length, ...(recipe.lengths ?? []).filter((one) => one >= needed))
  return answerInputs(samples, { pictureTokens, length, tokenCount })
}

/** The pictures of some rows, in their order: one a row, blank where it has none; when packing, as many as there are, and blanks up to the most. */
async function pictureInput(lesson: Lesson, rows: readonly (readonly Drawn[])[]): Promise<Inputs> {
  const { recipe, stage, config, source, wordIds, pictureTokens, pictureSlots } = lesson
  const all = rows.flat().map(({ picture }) => picture)
  const shown = recipe.pack ? all.filter((picture) => picture !== undefined) : all
  const pictures = Array.from({ length: pictureSlots }, (_, slot) => shown[slot])
  const side = config.vision.imageSide
  switch (stage.pictures) {
    case 'words': {
      const backgrounds = source.labels?.backgrounds ?? 0
      const labels = pictures.map((picture) => picture?.labels)
      return wordInput(labels, { wordIds, count: pictureTokens, backgrounds })
    }
    case 'pixels':
      return {
        pixels: stacked(
          pictures.map((picture) => picture?.pixels),
          { shape: [3, side, side] },
        ),
      }
    case 'features':
      return { features: await featureInput(lesson, pictures) }
  }
}

/** Features of pictures, zeros for blanks: [I, P, C]. Those that are not known yet are encoded, and kept if the lesson keeps them. */
async function featureInput(
  { config, encodePictures, featureCache }: Lesson,
  pictures: readonly (DrawnPicture | undefined)[],
): Promise<ResidentTensor> {
  const features = pictures.map((picture) => picture?.features)
  const unknown = pictures.flatMap(({ pixels, key } = {}, slot) =>
    pixels === undefined ? [] : [{ slot, pixels, key }],
  )
  const encoded = await encodePictures(unknown.map(({ pixels }) => pixels))
  for (const [index, { slot, key }] of unknown.entries()) {
    features[slot] = encoded[index]
    const computed = encoded[index]
    if (key !== undefined && computed !== undefined) await featureCache?.write(key, computed)
  }
  return stacked(features, { shape: [config.visualTokens, config.vision.width] })
}

function labelsOf({ sample: { id, labels } }: Drawn): PatchLabels {
  if (labels === undefined) throw new Error(`Sample ${id} has no labels`)
  return labels
}
