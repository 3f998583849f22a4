import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openLesson } from './lesson.ts'
import { tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'

let folder: string
let config: Record<string, unknown>
beforeAll(async () => {
  folder = await writeTinyLesson()
  config = JSON.parse(await readFile(join(folder, 'model', 'config.json'), 'utf8'))
})
afterAll(() => rm(folder, { recursive: true }))

test.each([
  [
    'cuts pictures into tiles, where its encoder is to learn from single views',
    () => ({ ...config, model_type: 'llava_next', image_grid_pinpoints: [[8, 16]] }),
    { stage: 'encoder', rates: { visionEncoder: 1e-3 } },
    /^Cannot train tiny: stage encoder sees a picture in one view, and the model cuts pictures into tiles, expected a stage in which it answers$/,
  ],
  [
    'is an original release, which has no image token',
    () => ({
      ...(config.text_config as object),
      architectures: ['LlavaLlamaForCausalLM'],
      mm_vision_tower: 'openai/clip-vit-large-patch14-336',
      mm_vision_select_layer: -2,
    }),
    {},
    /Cannot train tiny: the model's vocabulary has no image token/,
  ],
])('refuses a model that %s', async (_, changed, recipe, expected) => {
  await writeFile(join(folder, 'model', 'config.json'), JSON.stringify(changed()))
  await expect(openLesson(tinyRecipe(folder, recipe))).rejects.toThrow(expected)
})
