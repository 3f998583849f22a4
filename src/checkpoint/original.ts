/**
 * The original LLaVA releases (haotian-liu/LLaVA, LLaVA-NeXT, TinyLLaVA): their config, read as the Hugging Face config and image processor
 * that say the same, and the separate folder of their vision encoder.
 *
 * Their config.json is the language model's with keys for the rest beside it. It says nothing about the vision encoder but its name, so the encoder's own folder is
 * asked, or the few published ones are known here. Where the original code and transformers differ, this follows the original code.
 */

import { stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { type LlavaConfig, parseLlavaConfig } from '../model/config.ts'
import { tellWrongFields } from '../wrong-fields.ts'
import { quote, readStrictJson } from './json.ts'

export type OriginalModel = {
  readonly config: LlavaConfig
  /** What preprocessor_config.json of the same model says in Hugging Face's layout. */
  readonly processor: Readonly<Record<string, unknown>>
  /** What the vision encoder's own folder is called, and where it is, if it is there. */
  readonly encoderName: string
  readonly encoderFolder: string | undefined
}

/** Stands for a picture among the ids; it is no row of the embedding. */
const pictureStandIn = -200

const languageKinds: Readonly<Record<string, 'llama' | 'mistral' | 'qwen2'>> = {
  LlavaLlamaForCausalLM: 'llama',
  TinyLlavaLlamaForCausalLM: 'llama',
  LlavaMistralForCausalLM: 'mistral',
  LlavaQwenForCausalLM: 'qwen2',
}

const clipLarge = {
  model_type: 'clip_vision_model',
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  patch_size: 14,
}
const siglipSo400m = {
  model_type: 'siglip_vision_model',
  hidden_size: 1152,
  intermediate_size: 4304,
  num_hidden_layers: 27,
  num_attention_heads: 16,
  image_size: 384,
  patch_size: 14,
}

/** The vision encoders of the published releases, by the last part of their name. */
const knownEncoders: ReadonlyMap<string, Readonly<Record<string, unknown>>> = new Map([
  ['clip-vit-large-patch14', { ...clipLarge, image_size: 224 }],
  ['clip-vit-large-patch14-336', { ...clipLarge, image_size: 336 }],
  ['siglip-so400m-patch14-384', siglipSo400m],
  ['TinyLLaVA-1.5B-SigLIP', siglipSo400m],
  ['TinyLLaVA-2.0B-SigLIP', siglipSo400m],
  ['TinyLLaVA-3.1B-SigLIP', siglipSo400m],
])

const side = z.int().min(1).max(16_384)
const flag = z.boolean().nullish()
const nothing = (value: unknown) => value === null || value === undefined || value === false

const originalSchema = z.looseObject({
  architectures: z.array(z.string()).min(1),
  mm_vision_tower: z.string().min(1),
  mm_vision_select_layer: z.int(),
  mm_vision_select_feature: z.enum(['patch', 'cls_patch']).nullish(),
  mm_projector_type: z.enum(['linear', 'mlp1x_gelu', 'mlp2x_gelu']).nullish(),
  mm_patch_merge_type: z.string().nullish(),
  mm_use_im_start_end: flag,
  mm_resampler_type: z.unknown().refine(nothing, 'no resampler').optional(),
  s2: z.unknown().refine(nothing, 'one scale').optional(),
  image_aspect_ratio: z.string().nullish(),
  image_grid_pinpoints: z.union([z.string(), z.array(z.tuple([side, side])).max(1024)]).nullish(),
})

const encoderSchema = z.looseObject({
  model_type: z.string().optional(),
  vision_config: z.looseObject({ model_type: z.string().optional() }).optional(),
})

type OriginalConfig = z.infer<typeof originalSchema>

const reading = 'Cannot read the model config'

/** Whether a parsed config.json is that of an original release. */
export function isOriginalConfig(json: unknown): boolean {
  return typeof json === 'object' && json !== null && 'mm_vision_tower' in json && !('text_config' in json)
}

/**
 * Reads the config of an original release in `folder`.
 *
 * @throws Error for a language model, projector or way with pictures that is not supported, or an encoder that is neither known nor there; TypeError or
 *   RangeError as `parseLlavaConfig` for values that are wrong
 */
export async function readOriginalModel(folder: string, json: unknown): Promise<OriginalModel> {
  const original = parseOriginal(json)
  const kind = languageKind(original)
  if (original.mm_use_im_start_end) {
    throw new Error(`${reading}: mm_use_im_start_end is true, expected a model without tokens around its pictures`)
  }
  const encoderFolder = await findEncoder(folder, original)
  const vision = await readEncoder(original, encoderFolder)
  const siglip = vision.model_type === 'siglip_vision_model'
  const tiles = readTiles(original, Number(vision.image_size))
  const parsed = parseLlavaConfig({
    model_type: tiles === undefined ? 'llava' : tiles.most === undefined ? 'llava_next' : 'llava_onevision',
    image_token_index: 0,
    projector_hidden_act: 'gelu',
    ...(original.mm_projector_type === 'mlp2x_gelu' ? {} : { projector_layers: 1 }),
    // LLaVA-NeXT takes the last block off SigLIP and reads what comes out, whatever the key says.
    vision_feature_layer: siglip && kind === 'qwen2' ? -2 : original.mm_vision_select_layer,
    vision_feature_select_strategy: siglip || original.mm_vision_select_feature === 'cls_patch' ? 'full' : 'default',
    ...(tiles && { image_grid_pinpoints: tiles.pinpoints }),
    ...(tiles?.most !== undefined && { vision_aspect_ratio: `anyres_max_${tiles.most}` }),
    quantization_config: original.quantization_config,
    text_config: { ...original, model_type: kind },
    vision_config: vision,
  })
  const config: LlavaConfig = {
    ...parsed,
    imageToken: pictureStandIn,
    ...(parsed.tiles && { tiles: { ...parsed.tiles, unpadding: 'truncated' } }),
  }
  const processor = await processorOf(original, { vision, encoderFolder, tiles })
  return { config, processor, encoderName: basename(original.mm_vision_tower), encoderFolder }
}

function parseOriginal(json: unknown): OriginalConfig {
  const result = originalSchema.safeParse(json)
  if (result.success) return result.data
  throw new Error(`${reading} of an original LLaVA release: ${tellWrongFields(result.error, json)}`)
}

function languageKind({ architectures: [name = ''] }: OriginalConfig): 'llama' | 'mistral' | 'qwen2' {
  const kind = languageKinds[name]
  if (kind !== undefined && Object.hasOwn(languageKinds, name)) return kind
  throw new Error(
    `${reading}: architectures is ${quote(name)}, expected ${Object.keys(languageKinds).map(quote).join(' or ')}`,
  )
}

/**
 * The encoder's folder: named like the last part of its name, inside the model's folder or beside it. Other places are not looked at: a name
 * from a stranger's file must not lead anywhere.
 */
async function findEncoder(folder: string, { mm_vision_tower: name }: OriginalConfig): Promise<string | undefined> {
  const last = basename(name)
  if (last === '' || last === '.' || last === '..') return undefined
  for (const place of [join(folder, last), join(dirname(resolve(folder)), last)]) {
    const status = await stat(join(place, 'config.json')).catch(() => undefined)
    if (status?.isFile()) return place
  }
  return undefined
}

async function readEncoder(
  { mm_vision_tower: name }: OriginalConfig,
  encoderFolder: string | undefined,
): Promise<Readonly<Record<string, unknown>>> {
  const known = knownEncoders.get(basename(name))
  if (encoderFolder === undefined) {
    if (known !== undefined) return known
    throw new Error(
      `${reading}: the vision encoder ${quote(name)} is not known, expected a folder ${quote(basename(name))} with its config.json inside the model's folder or beside it`,
    )
  }
  const result = encoderSchema.safeParse(await readStrictJson(join(encoderFolder, 'config.json')))
  if (!result.success) throw new TypeError(`${reading}: ${encoderFolder} has no config of a vision encoder`)
  // The config of a whole CLIP holds that of its vision encoder.
  const { vision_config: own = result.data, model_type } = result.data
  const kind = String(own.model_type ?? model_type)
  const { vision_config: _, text_config: __, ...rest } = own
  return { ...known, ...rest, model_type: kind.endsWith('_vision_model') ? kind : `${kind}_vision_model` }
}

type Tiles = { readonly pinpoints: readonly (readonly [height: number, width: number])[]; readonly most?: number }

/** Resolutions with their heights first, as Hugging Face writes them: the original has widths first. */
function readTiles(original: OriginalConfig, side: number): Tiles | undefined {
  const { image_aspect_ratio: aspect, mm_patch_merge_type: merging, image_grid_pinpoints: grid } = original
  const named = /^anyres(?:_max_(?<most>[1-9]\d{0,3}))?$/.exec(aspect ?? '')
  if (named === null) {
    if (nothing(aspect) || aspect === 'square' || aspect === 'pad') return undefined
    throw new Error(`${reading}: image_aspect_ratio is ${quote(String(aspect))}, expected square, pad or anyres`)
  }
  if (merging !== 'spatial_unpad') {
    throw new Error(`${reading}: mm_patch_merge_type is ${quote(String(merging))}, expected "spatial_unpad"`)
  }
  const sizes = typeof grid === 'string' ? expandGrid(grid, side) : (grid ?? [])
  if (sizes.length === 0) throw new Error(`${reading}: image_grid_pinpoints is missing, expected resolutions`)
  const most = named.groups?.most
  return {
    pinpoints: sizes.map(([width, height]) => [height, width]),
    ...(most !== undefined && { most: Number(most) }),
  }
}

/** All grids from the first to the last, as in "(1x1),...,(6x6)", in pixels. */
function expandGrid(text: string, side: number): (readonly [width: number, height: number])[] {
  const [fromX, fromY, toX, toY] = (/^\((\d+)x(\d+)\),\.\.\.,\((\d+)x(\d+)\)$/.exec(text.replaceAll(' ', '')) ?? [])
    .slice(1)
    .map(Number)
  if (fromX === undefined || fromY === undefined || toX === undefined || toY === undefined || Math.max(toX, toY) > 32) {
    throw new RangeError(`${reading}: image_grid_pinpoints is ${quote(text)}, expected such as "(1x1),...,(6x6)"`)
  }
  const across = Array.from({ length: Math.max(0, toX - fromX + 1) }, (_, i) => fromX + i)
  const down = Array.from({ length: Math.max(0, toY - fromY + 1) }, (_, i) => fromY + i)
  return across.flatMap((x) => down.map((y) => [x * side, y * side] as const))
}

/** The encoder's own image processor, with what the model does to pictures before. */
async function processorOf(
  { image_aspect_ratio: aspect }: OriginalConfig,
  {
    vision,
    encoderFolder,
    tiles,
  }: {
    vision: Readonly<Record<string, unknown>>
    encoderFolder: string | undefined
    tiles: Tiles | undefined
  },
): Promise<Record<string, unknown>> {
  const { image_size: S, model_type } = vision
  const clip = model_type === 'clip_vision_model'
  const preprocessor = encoderFolder && join(encoderFolder, 'preprocessor_config.json')
  const own =
    preprocessor && (await stat(preprocessor).catch(() => undefined)) ? await readStrictJson(preprocessor) : {}
  return {
    ...(clip
      ? { size: { shortest_edge: S }, crop_size: { height: S, width: S }, ...clipColours }
      : { size: { height: S, width: S }, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] }),
    resample: 3,
    ...(own as Record<string, unknown>),
    image_processor_type:
      tiles === undefined ? 'LlavaImageProcessor' : clip ? 'LlavaNextImageProcessor' : 'LlavaOnevisionImageProcessor',
    do_pad: aspect === 'pad',
    ...(tiles && { image_grid_pinpoints: tiles.pinpoints }),
  }
}

const clipColours = {
  image_mean: [0.48145466, 0.4578275, 0.40821073],
  image_std: [0.26862954, 0.26130258, 0.27577711],
}
