/** Where a model function gets its weights from: a name and a shape in, a symbolic tensor out. */

import { parameter, type Tensor } from '../tensor/index.ts'

/**
 * Names are those of this project, such as `projector.layers.0.weight`; foreign names live in `checkpoint/`.
 * Asking twice for a name is asking for the same weight.
 */
export type WeightSource = (name: string, shape: readonly number[]) => Tensor

/** Every weight is a parameter of the graph: trained, or supplied when the session is made. */
export const parameters: WeightSource = (name, shape) => parameter(name, shape)

/** The weights below `prefix`: `within(weights, 'projector')('layers.0.weight', …)` is `projector.layers.0.weight`. */
export function within(weights: WeightSource, prefix: string): WeightSource {
  return (name, shape) => weights(`${prefix}.${name}`, shape)
}
