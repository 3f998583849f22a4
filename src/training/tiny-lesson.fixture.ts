/** A model folder and LLaVA JSON of a few kilobytes, for tests that train. */

import { mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { tinyClip } from '../checkpoint/tiny-config.fixture.ts'
import { loadTokenizer, type Tokenizer } from '../conversation/tokenizer.ts'
import { trainBpe } from '../conversation/train-bpe.ts'
import { encodePng } from '../image/encode.ts'
import { filledPixels } from '../image/pixels.ts'
import { type LlavaConfig, toHuggingFaceConfig } from '../model/config.ts'
import { parseRecipe, type Recipe } from './recipe.ts'

const colours = {
  red: [255, 0, 0],
  green: [0, 160, 0],
  blue: [0, 0, 255],
  white: [255, 255, 255],
  black: [0, 0, 0],
} as const

const tokenizerJson = trainBpe(
  Object.keys(colours).flatMap((name) => Array<string>(9).fill(`What colour is it? It is ${name}. USER: ASSISTANT:`)),
  { vocabulary: 300, specialTokens: ['<pad>', '<s>', '</s>', '<image>'] },
)
const tokenizerConfig = {
  tokenizer_class: 'PreTrainedTokenizerFast',
  add_bos_token: true,
  bos_token: '<s>',
  eos_token: '</s>',
}

export const tinyTokenizer: Tokenizer = loadTokenizer({ tokenizerJson, tokenizerConfig })

/** CLIP and LLaMA with pictures of 8 px, 4 visual tokens, and the tokenizer above. */
export const tinyConfig: LlavaConfig = {
  ...tinyClip,
  language: { ...tinyClip.language, vocabulary: 300, bosToken: 1, eosTokens: [2], padToken: 0 },
  imageToken: 3,
}

/** Writes `model/`, `pictures/` and `data.json` (a question about the colour of each picture; one picture is missing). */
export async function writeTinyLesson(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'tiny-lesson-'))
  await mkdir(join(folder, 'model'))
  await mkdir(join(folder, 'pictures'))
  const write = (name: string, value: unknown) => writeFile(join(folder, name), JSON.stringify(value))
  await write('model/config.json', toHuggingFaceConfig(tinyConfig))
  await write('model/tokenizer.json', tokenizerJson)
  await write('model/tokenizer_config.json', tokenizerConfig)
  await write('model/preprocessor_config.json', {
    image_processor_type: 'CLIPImageProcessor',
    size: { shortest_edge: 8 },
    resample: 3,
    crop_size: { height: 8, width: 8 },
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.25, 0.25, 0.25],
  })
  for (const [name, colour] of Object.entries(colours)) {
    await writeFile(join(folder, 'pictures', `${name}.png`), await encodePng(filledPixels(10, 8, colour)))
  }
  const rows = [...Object.keys(colours), ...Object.keys(colours), 'missing'].map((name, id) => ({
    id,
    image: `${name}.png`,
    conversations: [
      { from: 'human', value: '<image>\nWhat colour is it?' },
      { from: 'gpt', value: `It is ${name}.` },
    ],
  }))
  await write('data.json', rows)
  return folder
}

/** A recipe over such a folder. */
export function tinyRecipe(folder: string, changes: Readonly<Record<string, unknown>> = {}): Recipe {
  const file = join(folder, 'data.json')
  return parseRecipe(
    {
      name: 'tiny',
      stage: 'instruction-tuning',
      model: join(folder, 'model'),
      rates: { projector: 1e-2, languageModel: 1e-2 },
      data: { llava: { file, validation: file, images: join(folder, 'pictures') } },
      length: 40,
      batch: 2,
      accumulate: 2,
      steps: 30,
      logEvery: 4,
      checkpointEvery: 3,
      validate: { every: 10, batches: 2 },
      ...changes,
    },
    'tiny',
  )
}
