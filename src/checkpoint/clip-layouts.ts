/** The names of CLIP's and SigLIP's tensors: ours, with the shapes a config implies, and the table that renames the published ones to ours. */

import { scaleShape } from '../model/clip.ts'
import type { ClipConfig } from '../model/clip-config.ts'
import {
  abstractBlock,
  affine,
  encoderBlocks,
  type Rows,
  type Shapes,
  tableOf,
  visionRows,
  visionTensors,
} from './layouts.ts'

const blockRows = visionRows.filter(([ours]) => ours.startsWith('blocks.'))

/** CLIPModel and SiglipModel; the vision encoders alone (CLIPVisionModel, SiglipVisionModel) have the same names. */
const table = tableOf([
  ...visionRows.map(([ours, theirs]) => [`visionEncoder.${ours}`, `vision_model.${theirs}`] as const),
  ['pictureHead.projection.weight', 'visual_projection.weight'],
  ['pictureHead.probe', 'vision_model.head.probe'],
  ['pictureHead.attention.inputs.weight', 'vision_model.head.attention.in_proj_weight'],
  ['pictureHead.attention.inputs.bias', 'vision_model.head.attention.in_proj_bias'],
  ['pictureHead.attention.output.*', 'vision_model.head.attention.out_proj.*'],
  ['pictureHead.norm.*', 'vision_model.head.layernorm.*'],
  ['pictureHead.mlp.up.*', 'vision_model.head.mlp.fc1.*'],
  ['pictureHead.mlp.down.*', 'vision_model.head.mlp.fc2.*'],
  ['textEncoder.tokenEmbedding.weight', 'text_model.embeddings.token_embedding.weight'],
  ['textEncoder.positionEmbedding', 'text_model.embeddings.position_embedding.weight'],
  ...blockRows.map(([ours, theirs]) => [`textEncoder.${ours}`, `text_model.${theirs}`] as const),
  ['textEncoder.norm.*', 'text_model.final_layer_norm.*'],
  ['textEncoder.projection.weight', 'text_projection.weight'],
  ['textEncoder.projection.*', 'text_model.head.*'],
  ['similarity.scale', 'logit_scale'],
  ['similarity.bias', 'logit_bias'],
] satisfies Rows)

/** Our name of a stored tensor of CLIPModel, SiglipModel or their vision encoders; `undefined` when they have none of that name. */
export function toCanonicalClip(foreign: string): string | undefined {
  const { number, pattern } = abstractBlock(foreign, 'layers')
  return table.toOurs.get(pattern)?.replace('#', number)
}

/** Whether a stored tensor is a constant that old files hold. */
export function isClipConstant(foreign: string): boolean {
  return /^(text|vision)_model\.embeddings\.position_ids$/.test(foreign)
}

/** Every tensor of the model, by our name, with its shape. */
export function expectedClipTensors(config: ClipConfig): Map<string, readonly number[]> {
  return new Map([
    ...visionTensors(config),
    ...headTensors(config),
    ...textTensors(config),
    ...similarityTensors(config),
  ])
}

function* headTensors({ vision, embeddingWidth }: ClipConfig): Shapes {
  const { width: C, mlpWidth } = vision
  if (vision.classToken) {
    yield ['pictureHead.projection.weight', [embeddingWidth, C]]
    return
  }
  yield ['pictureHead.probe', [1, 1, C]]
  yield* affine('pictureHead.attention.inputs', [3 * C, C])
  yield* affine('pictureHead.attention.output', [C, C])
  yield* affine('pictureHead.norm', [C])
  yield* affine('pictureHead.mlp.up', [mlpWidth, C])
  yield* affine('pictureHead.mlp.down', [C, mlpWidth])
}

function* textTensors({ text }: ClipConfig): Shapes {
  const { vocabulary, width: D, context, embeddingWidth } = text
  yield ['textEncoder.tokenEmbedding.weight', [vocabulary, D]]
  yield ['textEncoder.positionEmbedding', [context, D]]
  yield* encoderBlocks('textEncoder', text)
  yield* affine('textEncoder.norm', [D])
  yield* affine('textEncoder.projection', [embeddingWidth, D], { bias: text.kind === 'siglip' })
}

function* similarityTensors(config: ClipConfig): Shapes {
  yield ['similarity.scale', scaleShape(config)]
  if (config.bias) yield ['similarity.bias', scaleShape(config)]
}
