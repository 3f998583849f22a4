/**
 * The projector: maps patch features of the vision encoder to visual tokens of the language model.
 *
 * LLaVA uses one linear layer, H_v = W · Z_v (Visual Instruction Tuning §4.1, equation 1); LLaVA-1.5 replaces it by a two-layer MLP with
 * the exact GELU (Improved Baselines §3.3). Nothing else connects picture and text.
 */

import { expectShape, gelu, linear, type Tensor } from '../tensor/index.ts'
import type { LlavaConfig } from './config.ts'
import type { WeightSource } from './weights.ts'

/** Patch features [I, P, C] → visual tokens [I, P, D]. */
export function project(config: LlavaConfig, weights: WeightSource, features: Tensor): Tensor {
  const { vision, language, projector } = config
  expectShape(features.shape, ['_', '_', vision.width], 'Projector input')

  let tokens = linearLayer(0, vision.width) // [I, P, D]
  for (let layer = 1; layer < projector.layers; layer++) tokens = linearLayer(layer, language.width)
  return tokens

  function linearLayer(layer: number, width: number): Tensor {
    const input = layer === 0 ? features : gelu(tokens)
    const weight = weights(`projector.layers.${layer}.weight`, [language.width, width])
    const bias = projector.bias ? weights(`projector.layers.${layer}.bias`, [language.width]) : undefined
    return linear(input, { weight, bias })
  }
}
