/**
 * Vision encoder and projector as llama.cpp stores them: metadata and tensors of an "mmproj" file (architecture `clip`, projector `mlp`).
 *
 * What its graph can express: patches without the class token, and always linear, GELU, linear.
 *
 * Of tiles it reads the resolutions, but not how they are put together: as of version 0.5.0 the language model is given the tiles one after the other,
 * with their padding and without newlines, and then the whole picture; of a picture no larger than one tile the whole picture alone. The newline and
 * the key that says how the model was trained are written for versions that look at them.
 */

import { countUsedVisionBlocks, type LlavaConfig } from '../model/config.ts'
import { fileCodes, fittingDtype, type GgufDtype } from './gguf-numbers.ts'
import type { GgufMetadata, GgufTensor } from './gguf-writer.ts'
import type { WeightReader } from './weight-reader.ts'

const names: ReadonlyMap<string, string> = new Map([
  ['patchEmbedding.weight', 'v.patch_embd.weight'],
  ['patchEmbedding.bias', 'v.patch_embd.bias'],
  ['classEmbedding', 'v.class_embd'],
  ['positionEmbedding', 'v.position_embd.weight'],
  ['preNorm.weight', 'v.pre_ln.weight'],
  ['preNorm.bias', 'v.pre_ln.bias'],
])

/** Readers recognise by its shape that `ffn_down` is the layer that widens: so it has been called since the first such file. */
const blockNames: ReadonlyMap<string, string> = new Map([
  ['norm1', 'ln1'],
  ['attention.query', 'attn_q'],
  ['attention.key', 'attn_k'],
  ['attention.value', 'attn_v'],
  ['attention.output', 'attn_out'],
  ['norm2', 'ln2'],
  ['mlp.up', 'ffn_down'],
  ['mlp.down', 'ffn_up'],
])

/** Errors: `Error` for an encoder whose features llama.cpp cannot take. */
export function visionMetadata(
  config: LlavaConfig,
  { name, dtype, mean, std }: { name: string; dtype: GgufDtype; mean: readonly number[]; std: readonly number[] },
): GgufMetadata {
  const { vision, language, featureSelect } = config
  const used = countUsedVisionBlocks(config)
  if (vision.classToken && featureSelect === 'full') {
    throw new Error(
      'Cannot export to GGUF: the model feeds the class token to the language model, which llama.cpp cannot, expected feature selection "default"',
    )
  }
  if (used === 0) {
    throw new Error(
      'Cannot export to GGUF: the model takes its features before the first block, expected a later layer',
    )
  }
  return {
    'general.architecture': { string: 'clip' },
    'general.type': { string: 'mmproj' },
    'general.name': { string: name },
    'general.file_type': { uint32: fileCodes[dtype] },
    'general.quantization_version': { uint32: 2 },
    'clip.has_text_encoder': { bool: false },
    'clip.has_vision_encoder': { bool: true },
    'clip.has_llava_projector': { bool: true },
    'clip.projector_type': { string: 'mlp' },
    'clip.use_gelu': { bool: vision.activation !== 'quick_gelu' }, // the tanh form, whichever the encoder has
    'clip.vision.image_size': { uint32: vision.imageSide },
    'clip.vision.patch_size': { uint32: vision.patch },
    'clip.vision.embedding_length': { uint32: vision.width },
    'clip.vision.feed_forward_length': { uint32: vision.mlpWidth },
    'clip.vision.projection_dim': { uint32: language.width },
    'clip.vision.block_count': { uint32: used }, // later blocks have no effect and are not written
    'clip.vision.feature_layer': { int32s: [used] }, // without it the last block would be left out
    'clip.vision.attention.head_count': { uint32: vision.heads },
    'clip.vision.attention.layer_norm_epsilon': { float32: vision.normEpsilon },
    'clip.vision.image_mean': { float32s: mean },
    'clip.vision.image_std': { float32s: std },
    ...tileMetadata(config),
  }
}

/** Widths stand before heights. What a model would shrink is left out: llama.cpp does not, and the picture would fill the context. */
function tileMetadata({ tiles, vision }: LlavaConfig): GgufMetadata {
  if (tiles === undefined) return {}
  const { resolutions, mostTiles = Number.POSITIVE_INFINITY } = tiles
  const isBearable = ({ width, height }: { width: number; height: number }) =>
    (width * height) / vision.imageSide ** 2 <= mostTiles
  const bearable = resolutions.filter(isBearable)
  return {
    ...(bearable.length > 0 && {
      'clip.vision.image_grid_pinpoints': { int32s: bearable.flatMap(({ width, height }) => [width, height]) },
    }),
    'clip.vision.mm_patch_merge_type': { string: 'spatial_unpad' },
  }
}

export function visionTensors(
  config: LlavaConfig,
  { weights, dtype }: { weights: WeightReader; dtype: GgufDtype },
): GgufTensor[] {
  const used = countUsedVisionBlocks(config)
  const encoder = [...weights.shapes].flatMap(([ours, shape]): GgufTensor[] => {
    const name = nameOf(ours, used)
    return name === undefined
      ? []
      : [{ name, shape, dtype: dtypeOf(name, { shape, dtype }), read: () => weights.read(ours) }]
  })
  return [...encoder, ...projectorTensors(config, { weights, dtype })]
}

/** Undefined for tensors that have no place or no effect in the file. */
function nameOf(ours: string, used: number): string | undefined {
  const [, rest = ''] = /^visionEncoder\.(.+)$/.exec(ours) ?? []
  const [, block, part = '', kind = ''] = /^blocks\.(\d+)\.(.+)\.(weight|bias)$/.exec(rest) ?? []
  if (block === undefined) return names.get(rest)
  return Number(block) < used ? `v.blk.${block}.${blockNames.get(part)}.${kind}` : undefined
}

function dtypeOf(name: string, { shape, dtype }: { shape: readonly number[]; dtype: GgufDtype }): GgufDtype {
  if (shape.length === 1 || name === 'v.position_embd.weight') return 'F32'
  if (name === 'v.patch_embd.weight') return dtype === 'F16' ? 'F16' : 'F32' // a convolution has no block formats
  return fittingDtype(dtype, shape.at(-1) ?? 0)
}

/** Two layers as they are; a single one W as [W; −W] and [I, −I], because gelu(x) − gelu(−x) = x. */
function projectorTensors(
  { language, projector, vision, tiles }: LlavaConfig,
  { weights, dtype }: { weights: WeightReader; dtype: GgufDtype },
): GgufTensor[] {
  const { width: D } = language
  const linear = projector.layers === 1
  const hidden = linear ? 2 * D : D
  const tensor = (name: string, shape: readonly number[], read: () => Promise<Float32Array>): GgufTensor => ({
    name,
    shape,
    dtype: dtypeOf(name, { shape, dtype }),
    read,
  })
  const bias = async (layer: number) =>
    projector.bias ? weights.read(`projector.layers.${layer}.bias`) : new Float32Array(D) // the reader adds one always
  const first = async (read: Promise<Float32Array>) => (linear ? withNegative(await read) : read)
  const second = async () => (linear ? difference(D) : weights.read('projector.layers.1.weight'))
  return [
    tensor('mm.0.weight', [hidden, vision.width], () => first(weights.read('projector.layers.0.weight'))),
    tensor('mm.0.bias', [hidden], () => first(bias(0))),
    tensor('mm.2.weight', [D, hidden], second),
    tensor('mm.2.bias', [D], async () => (linear ? new Float32Array(D) : bias(1))),
    ...(tiles === undefined ? [] : [tensor('v.image_newline', [D], () => weights.read('projector.newline'))]),
  ]
}

/** [W; −W]: the rows of W, then the same negated. */
function withNegative(values: Float32Array): Float32Array {
  const both = new Float32Array(2 * values.length)
  both.set(values)
  for (let i = 0; i < values.length; i++) both[values.length + i] = -(values[i] ?? 0)
  return both
}

/** [I, −I]: [D, 2D]. */
function difference(D: number): Float32Array {
  const values = new Float32Array(2 * D * D)
  for (let i = 0; i < D; i++) {
    values[i * 2 * D + i] = 1
    values[i * 2 * D + D + i] = -1
  }
  return values
}
