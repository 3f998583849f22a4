/**
 * The projector: maps patch features of the vision encoder to visual tokens of the language model.
 *
 * LLaVA uses one linear layer, H_v = W · Z_v (Visual Instruction Tuning §4.1, equation 1); LLaVA-1.5 replaces it by a two-layer MLP with
 * the exact GELU (Improved Baselines §3.3). Nothing else connects picture and text.
 */

import { expectShape, gelu, linear, type Tensor } from '../tensor/index.ts'
import type { LlavaConfig } from './config.ts'
import { type WeightSource, within } from './weights.ts'

/** Patch features [I, P, C] → visual tokens [I, P, D]. */
export function project(config: LlavaConfig, weights: WeightSource, features: Tensor): Tensor {
  const { vision, language, projector } = config
  expectShape(features.shape, ['_', '_', vision.width], 'Projector input')

  const layer = (index: number, width: number) => {
    const own = within(weights, `projector.layers.${index}`)
    const bias = projector.bias ? own('bias', [language.width]) : undefined
    return { weight: own('weight', [language.width, width]), bias } // W [D, C], then [D, D]
  }
  let tokens = linear(features, layer(0, vision.width)) // H_v = W · Z_v: [I, P, C] → [I, P, D]
  for (let index = 1; index < projector.layers; index++) tokens = linear(gelu(tokens), layer(index, language.width))
  return tokens
}
