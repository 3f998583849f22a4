/** A picture of a conversation: what it becomes for the vision encoder may depend on how many others are shown with it. */

import type { Pixels } from '../image/pixels.ts'
import { preprocess } from '../image/preprocess.ts'
import type { ModelFolder } from './model-folder.ts'
import { type PreparedPicture, preparePicture } from './prompt.ts'

/** The picture as it is prepared where `shown` pictures are shown in all. */
export type ShownPicture = (shown: number) => PreparedPicture

/** Prepares a picture at once, and again only where being shown with others makes a difference (LLaVA-OneVision). */
export function showPicture(
  picture: Pixels,
  { imageProcessor, config }: Pick<ModelFolder, 'imageProcessor' | 'config'>,
): ShownPicture {
  const prepare: ShownPicture = (shown) => preparePicture(preprocess(picture, imageProcessor, { shown }), config)
  return imageProcessor.tiles?.together === 'pad' ? aloneOrTogether(prepare) : always(prepare(1))
}

/** Forgets the decoded picture. */
function always(prepared: PreparedPicture): ShownPicture {
  return () => prepared
}

function aloneOrTogether(prepare: ShownPicture): ShownPicture {
  const known = new Map<boolean, PreparedPicture>()
  return (shown) => {
    const alone = shown === 1
    const prepared = known.get(alone) ?? prepare(shown)
    known.set(alone, prepared)
    return prepared
  }
}
