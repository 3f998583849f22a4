/**
 * What the pictures of a sample will be before any of them is decoded: how many views the encoder looks at, and how many visual tokens come of them.
 *
 * Both follow from a picture's size, so that a sample is cut to length, and put where it has room, by reading the headers of its files.
 */

import { countPictures } from '../conversation/turns.ts'
import { type ImageProcessorConfig, type PreparedPicture, plannedTiles, preprocess } from '../image/preprocess.ts'
import type { Sample, SamplePicture } from '../instruction-data/sample.ts'
import { type Arrangement, arrangePicture } from '../model/arrangement.ts'
import type { LlavaConfig } from '../model/config.ts'

export type PlannedPicture = {
  readonly views: number // J
  readonly length: number // M, visual tokens
  /** How its visual tokens follow from those of its views; absent where they are those of its one view. */
  readonly arrangement?: Arrangement | undefined
}

type Model = { readonly config: LlavaConfig; readonly processor: ImageProcessorConfig }

/** A picture of one view. */
export function plainPicture(length: number): PlannedPicture {
  return { views: 1, length }
}

/**
 * The pictures that a sample's conversation shows, in order.
 * @throws RangeError when they are more than `most.pictures`, or not as many as the sample has, or have more than `most.views` views together
 */
export async function planPictures(
  { id, turns, pictures }: Pick<Sample, 'id' | 'turns' | 'pictures'>,
  { most, config, processor }: Model & { most: { pictures: number; views: number } },
): Promise<readonly PlannedPicture[]> {
  const shown = countPictures(turns)
  if (shown > most.pictures) {
    throw new RangeError(`Cannot train on sample ${id}: found ${shown} pictures, expected at most ${most.pictures}`)
  }
  if (shown !== pictures.length) {
    throw new RangeError(
      `Cannot train on sample ${id}: found ${pictures.length} pictures, expected the ${shown} that it shows`,
    )
  }
  if (config.tiles === undefined) return pictures.map(() => plainPicture(config.visualTokens))
  const planned = await Promise.all(pictures.map((picture) => planPicture(picture, { config, processor, shown })))
  const views = planned.reduce((sum, picture) => sum + picture.views, 0)
  if (views <= most.views) return planned
  throw new RangeError(`Cannot train on sample ${id}: its pictures have ${views} views, expected at most ${most.views}`)
}

async function planPicture(
  picture: SamplePicture,
  { config, processor, shown }: Model & { shown: number },
): Promise<PlannedPicture> {
  const grid = plannedTiles(await picture.size(), processor, { shown })
  const arrangement = arrangePicture(config, grid)
  return {
    views: 1 + (grid === undefined ? 0 : grid.rows * grid.columns),
    length: arrangement?.length ?? config.visualTokens,
    arrangement,
  }
}

/** The most views that the pictures of one sample can have, of which it shows at most `pictures`. */
export function mostViews({ tiles }: ImageProcessorConfig, { pictures }: { pictures: number }): number {
  if (tiles === undefined) return pictures
  const grids = tiles.resolutions.map(({ width, height }) => (width * height) / tiles.side ** 2)
  const alone = 1 + Math.max(...grids)
  return Math.max(alone, pictures * (tiles.together === 'tiles' ? alone : 1))
}

/**
 * A picture of a sample as the vision encoder expects it.
 * @throws RangeError when that has another side, or other views than planned, and whatever decoding it throws
 */
export async function preparePlanned(
  { id, pictures }: Pick<Sample, 'id' | 'pictures'>,
  { index, views, config, processor }: Model & { index: number; views: number },
): Promise<PreparedPicture> {
  const S = config.vision.imageSide
  const picture = pictures[index]
  if (picture === undefined) throw new RangeError(`Cannot train on sample ${id}: it has no picture`)
  const prepared = preprocess(await picture.pixels(), processor, { shown: pictures.length })
  if (prepared.side === S && prepared.views === views) return prepared
  throw new RangeError(
    `Cannot train on sample ${id}: its picture became ${prepared.views} of ${prepared.side} px, expected ${views} of ${S}`,
  )
}
