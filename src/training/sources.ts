/** Where samples come from: the picturebook, a file of LLaVA JSON, or a mixture of such sources. */

import { llavaJsonSource } from '../instruction-data/llava-json.ts'
import type { SampleSource } from '../instruction-data/sample.ts'
import type { LlavaConfig } from '../model/config.ts'
import { picturebookSource } from '../picturebook/source.ts'
import type { Split } from '../picturebook/splits.ts'
import { mixtureSource } from './mixture.ts'
import type { Recipe } from './recipe.ts'

/** The samples that a recipe learns from (split `train`), or those that it validates with (any other). */
export async function openSource(
  data: Recipe['data'],
  options: { config: LlavaConfig; split: Split; seed: number },
): Promise<SampleSource> {
  if ('length' in data) {
    const parts = data.map(async ({ weight, ...one }) => ({ weight, source: await openSource(one, options) }))
    return mixtureSource(await Promise.all(parts), { seed: options.seed })
  }
  const { config, split } = options
  if ('llava' in data) {
    const { file, validation, images } = data.llava
    return llavaJsonSource(split === 'train' ? file : (validation ?? file), { images })
  }
  const { imageSide: side, patch } = config.vision
  return picturebookSource({ ...data.picturebook, side, patch, split })
}
