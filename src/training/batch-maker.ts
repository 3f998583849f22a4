/** Draws samples in order and makes them the inputs of one step. Samples that cannot be learned from are skipped, counted and told. */

import { hashOf } from '../checkpoint/array-file.ts'
import type { PatchLabels, Sample, SampleSource } from '../instruction-data/sample.ts'
import { disposeTensor, type ResidentTensor } from '../runtime/resident-tensor.ts'
import { dropoutInputs } from './adapter-dropout.ts'
import {
  answerInputs,
  type EncodedSample,
  encodeSample,
  labelInputs,
  stacked,
  wordInput,
  wordTargets,
} from './batches.ts'
import { captionInputs, type EncodedCaption, encodeCaption } from './caption-batches.ts'
import { gatheredInputs } from './gathering.ts'
import type { Lesson } from './lesson.ts'
import { drawOrder } from './order.ts'
import { countLearned, findRow, packedInputs } from './packing.ts'
import { type PlannedPicture, plainPicture, planPictures, preparePlanned } from './picture-plan.ts'
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
  readonly pictures: readonly DrawnPicture[]
}

/** A picture in the form that its stage asks for: by what its patches show, or view by view. */
type DrawnPicture = { readonly views: readonly DrawnView[]; readonly labels?: PatchLabels }

/** Features that are not kept yet are still pixels, to be kept under `key`. */
type DrawnView = {
  readonly pixels?: Float32Array // [3, S, S]
  readonly features?: Float32Array | undefined // [P, C]
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
    pictures: drawn.reduce((sum, { pictures }) => sum + pictures.length, 0),
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
  const { recipe, encoding, pictureTokens } = lesson
  const limits = { length: recipe.length, pictureTokens, views: lesson.viewSlots / recipe.batch }
  const rows: Drawn[][] = Array.from({ length: count }, () => [])
  const skips: Skip[] = []
  let { cursor } = position
  const order = drawOrder(source, { seed: recipe.seed, bucket: recipe.bucket ? count : undefined })
  while (recipe.pack || rows.some((row) => row.length === 0)) {
    const index = order(cursor)
    try {
      const sample = await source.sample(index)
      const planned = await plannedFor(lesson, sample)
      const encoded = encoding && encodeSample(sample, { ...encoding, pictures: planned })
      const caption = lesson.captions && encodeCaption(sample, { ...lesson.captions, config: lesson.config })
      const row =
        recipe.pack && encoding && encoded
          ? findRow(rows.map(encodedOf), encoded, limits)
          : rows.findIndex((one) => one.length === 0)
      if (row === undefined) break
      const pictures = await drawPictures(lesson, { sample, planned: encoded?.pictures ?? planned })
      rows[row]?.push({ sample, encoded, caption, pictures })
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

/** What a sample's pictures will be; one view where the lesson has no conversations. */
async function plannedFor(lesson: Lesson, sample: Sample): Promise<readonly PlannedPicture[]> {
  const { encoding, stage, pictureTokens, recipe } = lesson
  if (encoding === undefined) return [plainPicture(pictureTokens)]
  const { pictures = 1, views = Number.POSITIVE_INFINITY } = recipe
  const planned = await planPictures(sample, { ...lesson, most: { pictures, views } })
  return stage.pictures === 'words' ? planned.map(() => plainPicture(pictureTokens)) : planned
}

/** The planned pictures of a sample; those that it shows after them are not looked at. */
async function drawPictures(
  lesson: Lesson,
  { sample, planned }: { sample: Sample; planned: readonly PlannedPicture[] },
): Promise<readonly DrawnPicture[]> {
  const { stage } = lesson
  const { id, labels } = sample
  const labelled = (stage.objective !== 'answers' && stage.objective !== 'captions') || stage.pictures === 'words'
  if (labelled && labels === undefined && planned.length > 0)
    throw new RangeError(`Cannot train on sample ${id}: it has no patch labels`)
  const drawn: DrawnPicture[] = []
  for (const [index, { views: count }] of planned.entries()) {
    const views = stage.pictures === 'words' ? [] : await drawViews(lesson, { sample, index, count })
    drawn.push({ views, ...(labels && { labels }) })
  }
  return drawn
}

async function drawViews(
  lesson: Lesson,
  { sample, index, count }: { sample: Sample; index: number; count: number },
): Promise<readonly DrawnView[]> {
  const { config, featureCache } = lesson
  const key = featureCache && (await sample.pictures[index]?.key?.())
  const keys = Array.from({ length: count }, (_, view) => key && viewKey(key, { view, count }))
  const kept = await Promise.all(keys.map((one) => (one === undefined ? undefined : featureCache?.read(one))))
  if (kept.every((features) => features !== undefined)) return kept.map((features) => ({ features }))
  const { data } = await preparePlanned(sample, { ...lesson, index, views: count }) // [J, 3, S, S]
  const size = 3 * config.vision.imageSide ** 2
  return keys.map((one, view) =>
    kept[view] === undefined
      ? { pixels: data.slice(view * size, (view + 1) * size), key: one }
      : { features: kept[view] },
  )
}

/** The one view of a picture has the picture's key. As one of several it is prepared in another way. */
function viewKey(picture: string, { view, count }: { view: number; count: number }): string {
  return count === 1 ? picture : hashOf(`${picture} view ${view} of ${count}`)
}

function textTargets(
  { recipe, config, pictureTokens, viewSlots, gathers }: Lesson,
  rows: readonly (readonly Drawn[])[],
  { tokenCount }: { tokenCount: number },
): Inputs {
  const gathering = { config, pictureTokens, length: recipe.length, views: viewSlots, tokenCount }
  if (recipe.pack) return packedInputs(rows.map(encodedOf), gathering)
  const samples = encodedOf(rows.flat())
  const needed = Math.max(...samples.map(({ ids, pictures }) => ids.length + (pictures.length > 0 ? 0 : pictureTokens)))
  const length = Math.min(recipe.length, ...(recipe.lengths ?? []).filter((one) => one >= needed))
  return gathers
    ? gatheredInputs(rows.map(encodedOf), { ...gathering, length })
    : answerInputs(samples, { pictureTokens, length, tokenCount })
}

/** The pictures of some rows, in their order: one a row, blank where it has none; where they are gathered, all views, and blanks up to the most. */
async function pictureInput(lesson: Lesson, rows: readonly (readonly Drawn[])[]): Promise<Inputs> {
  const { stage, config, source, wordIds, pictureTokens, viewSlots, gathers } = lesson
  const drawn = rows.flat()
  const side = config.vision.imageSide
  if (stage.pictures === 'words') {
    const shown = gathers ? drawn.flatMap(({ pictures }) => pictures) : drawn.map(({ pictures }) => pictures[0])
    const labels = Array.from({ length: viewSlots }, (_, slot) => shown[slot]?.labels)
    return wordInput(labels, { wordIds, count: pictureTokens, backgrounds: source.labels?.backgrounds ?? 0 })
  }
  const shown = gathers
    ? drawn.flatMap(({ pictures }) => pictures.flatMap(({ views }) => views))
    : drawn.map(({ pictures }) => pictures[0]?.views[0])
  const views = Array.from({ length: viewSlots }, (_, slot) => shown[slot])
  if (stage.pictures === 'features') return { features: await featureInput(lesson, views) }
  const pixels = views.map((view) => view?.pixels)
  return { pixels: stacked(pixels, { shape: [3, side, side] }) }
}

/** Features of views, zeros for blanks: [J, P, C]. Those that are not known yet are encoded, and kept if the lesson keeps them. */
async function featureInput(
  { config, encodePictures, featureCache }: Lesson,
  views: readonly (DrawnView | undefined)[],
): Promise<ResidentTensor> {
  const features = views.map((view) => view?.features)
  const unknown = views.flatMap(({ pixels, key } = {}, slot) => (pixels === undefined ? [] : [{ slot, pixels, key }]))
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
