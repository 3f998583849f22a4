/**
 * The block that CLIP and SigLIP build both of their towers from: norm, attention, norm, MLP, each pair added to what it read ("An Image is Worth
 * 16x16 Words", Dosovitskiy et al. 2021 §3.1). Pictures and SigLIP's texts look everywhere, CLIP's texts only back.
 */

import { type Activation, activate, add, attention, layerNorm, linear, type Tensor } from '../tensor/index.ts'
import { type WeightSource, within } from './weights.ts'

/** What both towers have in common. */
export type EncoderBlockConfig = {
  width: number
  heads: number
  mlpWidth: number
  activation: Activation
  normEpsilon: number
}

/** x [B, L, D] → [B, L, D]; `mask` [L, L] is added to the attention's scores. */
export function encoderBlock(
  config: EncoderBlockConfig,
  weights: WeightSource,
  { x, mask }: { x: Tensor; mask?: Tensor | undefined },
): Tensor {
  const normal = norm(config, within(weights, 'norm1'), x)
  const attended = add(x, selfAttention(config, within(weights, 'attention'), { x: normal, mask }))
  return add(attended, mlp(config, within(weights, 'mlp'), norm(config, within(weights, 'norm2'), attended)))
}

function selfAttention(
  config: EncoderBlockConfig,
  weights: WeightSource,
  { x, mask }: { x: Tensor; mask: Tensor | undefined },
): Tensor {
  const layer = (name: string) => affine(within(weights, name), [config.width, config.width])
  const [query, key, value] = [linear(x, layer('query')), linear(x, layer('key')), linear(x, layer('value'))]
  const options = { heads: config.heads, ...(mask && { mask }) }
  return linear(attention({ query, key, value }, options).output, layer('output'))
}

export function mlp(config: EncoderBlockConfig, weights: WeightSource, x: Tensor): Tensor {
  const up = linear(x, affine(within(weights, 'up'), [config.mlpWidth, config.width]))
  return linear(activate(up, config.activation), affine(within(weights, 'down'), [config.width, config.mlpWidth]))
}

/** A linear layer [out, in] with its bias. */
export function affine(weights: WeightSource, shape: readonly [number, number]): { weight: Tensor; bias: Tensor } {
  return { weight: weights('weight', shape), bias: weights('bias', [shape[0]]) }
}

export function norm(
  config: Pick<EncoderBlockConfig, 'width' | 'normEpsilon'>,
  weights: WeightSource,
  x: Tensor,
): Tensor {
  const [weight, bias] = [weights('weight', [config.width]), weights('bias', [config.width])]
  return layerNorm(x, { weight, bias, epsilon: config.normEpsilon })
}
