/**
 * The vision encoder: a picture in, one feature vector per patch out.
 *
 * A pre-norm vision transformer as CLIP trains it (Radford et al. 2021 §2.4): patches, class token, learned positions, a norm before the
 * first block. SigLIP's variant has no class token and no such norm, but a bias on the patch embedding.
 */

import {
  add,
  concat,
  expand,
  expectShape,
  linear,
  recompute,
  reshape,
  scaleBy,
  slice,
  type Tensor,
  transpose,
} from '../tensor/index.ts'
import { countUsedVisionBlocks, type LlavaConfig, patchesPerSide, type VisionEncoderConfig } from './config.ts'
import { encoderBlock, norm } from './encoder-block.ts'
import { type WeightSource, within } from './weights.ts'

/**
 * Pixels [I, 3, S, S], normalised → patch features [I, P, C] of the layer and tokens that the config selects. With `checkpointing`, a backward
 * pass computes the inner values of each block again instead of keeping them (`recompute`).
 */
export function patchFeatures(
  config: LlavaConfig,
  weights: WeightSource,
  pixels: Tensor,
  { checkpointing = false }: { checkpointing?: boolean } = {},
): Tensor {
  const { vision, featureLayer, featureSelect } = config
  const features = hiddenState(vision, weights, { pixels, layer: featureLayer, checkpointing })
  return vision.classToken && featureSelect === 'patch' ? withoutClassToken(features) : features
}

/**
 * Hidden state number `layer`, counted as Hugging Face does: 0 is what enters the first block, k the output of block k, −1 the output of the
 * last. Blocks after it are not computed, and the final norm never is. [I, P (+1), C]
 */
export function hiddenState(
  config: VisionEncoderConfig,
  weights: WeightSource,
  { layer, ...options }: { pixels: Tensor; layer: number; checkpointing?: boolean },
): Tensor {
  const count = countUsedVisionBlocks({ vision: config, featureLayer: layer })
  return hiddenStates(config, weights, { ...options, count }).at(-1) as Tensor
}

/** What enters the first block, then the output of each of the first `count` blocks: [I, P (+1), C] each. */
export function hiddenStates(
  config: VisionEncoderConfig,
  weights: WeightSource,
  { pixels, count = config.depth, checkpointing = false }: { pixels: Tensor; count?: number; checkpointing?: boolean },
): Tensor[] {
  const own = within(weights, 'visionEncoder')
  let x = embedPatches(config, own, pixels) // [I, P+1, C]
  const states = [x]
  for (let block = 0; block < count; block++) {
    const step = (x: Tensor) => encoderBlock(config, within(own, `blocks.${block}`), { x })
    x = checkpointing ? recompute(x, step) : step(x)
    states.push(x)
  }
  return states
}

/** Drops position 0, the class token: [I, P+1, C] → [I, P, C]. */
export function withoutClassToken(x: Tensor): Tensor {
  const tokens = Number(x.shape[1])
  return slice(x, { axis: 1, start: 1, end: tokens })
}

function embedPatches(config: VisionEncoderConfig, weights: WeightSource, pixels: Tensor): Tensor {
  const { imageSide: S, patch, width: C } = config
  const [I = 1] = pixels.shape
  expectShape(pixels.shape, ['_', 3, S, S], 'Vision encoder input')
  const g = patchesPerSide(config)
  const P = g * g

  // A convolution whose stride is its kernel is a linear layer over cut-out patches; it does not look at what is left over.
  const whole = leading(pixels, { axes: [2, 3], size: g * patch }) // [I, 3, g·patch, g·patch]
  const grid = transpose(reshape(whole, [I, 3, g, patch, g, patch]), [0, 2, 4, 1, 3, 5]) // [I, g, g, 3, patch, patch]
  const patches = reshape(grid, [I, P, 3 * patch * patch])
  const kernel = reshape(weights('patchEmbedding.weight', [C, 3, patch, patch]), [C, 3 * patch * patch])
  const bias = config.patchBias ? weights('patchEmbedding.bias', [C]) : undefined
  let x = linear(patches, { weight: kernel, bias }) // [I, P, C]

  if (config.classToken) {
    const classToken = reshape(weights('classEmbedding', [C]), [1, 1, C])
    x = concat([repeatFor(x, classToken), x], 1) // [I, P+1, C]
  }
  x = add(x, weights('positionEmbedding', [config.classToken ? P + 1 : P, C]))
  return config.preNorm ? norm(config, within(weights, 'preNorm'), x) : x
}

/** The first `size` elements along each of the axes. */
function leading(x: Tensor, { axes, size }: { axes: readonly number[]; size: number }): Tensor {
  const cut = (y: Tensor, axis: number) => (y.shape[axis] === size ? y : slice(y, { axis, start: 0, end: size }))
  return axes.reduce(cut, x)
}

/** One token [1, 1, C] for each picture of x [I, P, C], also where the number of pictures is only known when the graph runs: [I, 1, C]. */
export function repeatFor(x: Tensor, token: Tensor): Tensor {
  const [I = 1, , C = 1] = x.shape
  if (typeof I === 'number') return expand(token, [I, 1, C])
  const one = slice(x, { axis: 1, start: 0, end: 1 }) // [I, 1, C]
  return add(scaleBy(one, 0), token)
}
