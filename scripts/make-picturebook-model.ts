/**
 * Writes the files of the picturebook model other than its weights: sizes, tokenizer, preprocessing. The recipes train what they describe.
 *
 *     npx tsx scripts/make-picturebook-model.ts checkpoints/picturebook
 */

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { trainBpe } from '../src/conversation/train-bpe.ts'
import { type LlavaConfig, toHuggingFaceConfig } from '../src/model/config.ts'
import { corpus } from '../src/picturebook/index.ts'

const [folder = 'checkpoints/picturebook'] = process.argv.slice(2)
const specialTokens = ['<pad>', '<s>', '</s>', '<image>']
const tokenizer = trainBpe(asWritten(corpus(20_000, 1)), { vocabulary: 1024, specialTokens })
const entries = Object.keys(tokenizer.model.vocab).length

const config: LlavaConfig = {
  vision: {
    kind: 'clip',
    imageSide: 96,
    patch: 12,
    width: 192,
    depth: 6,
    heads: 6,
    mlpWidth: 768,
    activation: 'quick_gelu',
    normEpsilon: 1e-5,
    classToken: true,
    preNorm: true,
    patchBias: false,
  },
  language: {
    kind: 'llama',
    vocabulary: 1024,
    width: 256,
    depth: 6,
    heads: 8,
    keyValueHeads: 8,
    headSize: 32,
    mlpWidth: 704,
    normEpsilon: 1e-5,
    ropeTheta: 1_000_000, // words must find one another over the whole picture, and slow rotations let them
    context: 512,
    tiedHead: false,
    attentionBias: false,
    bosToken: 1,
    eosTokens: [2],
    padToken: 0,
  },
  projector: { layers: 2, activation: 'gelu', bias: true },
  featureLayer: -1,
  featureSelect: 'patch',
  imageToken: 3,
  visualTokens: 64,
}
const files: Record<string, unknown> = {
  'config.json': toHuggingFaceConfig(config),
  'tokenizer.json': tokenizer,
  'tokenizer_config.json': {
    tokenizer_class: 'PreTrainedTokenizerFast',
    add_bos_token: true,
    bos_token: '<s>',
    eos_token: '</s>',
    pad_token: '<pad>',
    model_max_length: config.language.context,
    llava_template: 'picturebook',
  },
  'preprocessor_config.json': {
    image_processor_type: 'CLIPImageProcessor',
    processor_class: 'LlavaProcessor',
    do_convert_rgb: true,
    do_resize: true,
    size: { shortest_edge: 96 },
    resample: 3,
    do_center_crop: true,
    crop_size: { height: 96, width: 96 },
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: [0.48145466, 0.4578275, 0.40821073],
    image_std: [0.26862954, 0.26130258, 0.27577711],
  },
  'processor_config.json': {
    processor_class: 'LlavaProcessor',
    patch_size: 12,
    vision_feature_select_strategy: 'default',
    num_additional_image_tokens: 1,
    image_token: '<image>',
  },
  'generation_config.json': {
    bos_token_id: 1,
    eos_token_id: 2,
    pad_token_id: 0,
    max_new_tokens: 120,
    do_sample: false,
  },
}

/** A question begins a line, an answer follows a space: words get a token for both. */
function* asWritten(texts: Iterable<string>): Generator<string> {
  for (const text of texts) {
    yield text
    yield ` ${text}`
  }
}

await mkdir(folder, { recursive: true })
for (const [name, value] of Object.entries(files)) {
  await writeFile(join(folder, name), `${JSON.stringify(value, null, name === 'tokenizer.json' ? undefined : 2)}\n`)
}
console.log(`${folder}: ${entries} tokens, ${Object.keys(files).length} files`)
