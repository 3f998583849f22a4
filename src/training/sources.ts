/** Where samples come from: the picturebook, or a file of LLaVA JSON. */

import { llavaJsonSource } from '../instruction-data/llava-json.ts'
import type { SampleSource } from '../instruction-data/sample.ts'
import type { LlavaConfig } from '../model/config.ts'
import { picturebookSource } from '../picturebook/source.ts'
import type { Split } from '../picturebook/splits.ts'
import type { Recipe } from './recipe.ts'

/** The samples that a recipe learns from (split `train`), or those that it validates with (any other). */
export async function openSource(
  data: Recipe['data'],
  { config, split }: { config: LlavaConfig; split: Split },
): Promise<SampleSource> {
  if ('llava' in data) {
    const { file, validation, images } = data.llava
    return llavaJsonSource(split === 'train' ? file : (validation ?? file), { images })
  }
  const { imageSide: side, patch } = config.vision
  return picturebookSource({ ...data.picturebook, side, patch, split })
}
