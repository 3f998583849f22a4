/** The tensors of a checkpoint one at a time, for work that does not need them all at once: copies, exports, descriptions. */

import type { LlavaConfig } from '../model/config.ts'
import { expectedTensors } from './layouts.ts'
import { closeWeights, openWeights, readWeightRows } from './load.ts'

export type WeightReader = {
  /** By our names, in the order of the computation. */
  readonly shapes: ReadonlyMap<string, readonly number[]>
  /** One tensor as float32. Errors: `RangeError` for a name that is not among `shapes`. */
  readonly read: (name: string) => Promise<Float32Array>
  readonly close: () => Promise<void>
}

/** Opens the tensors that `config` expects; headers only are read here. Errors: those of `openWeights`. */
export async function openWeightReader(folder: string, config: LlavaConfig): Promise<WeightReader> {
  const opened = await openWeights(folder, config)
  const shapes = new Map([...expectedTensors(config)].filter(([name]) => opened.places.has(name)))
  return {
    shapes,
    read: (name) => readWeightRows(opened, name, { from: 0, to: shapes.get(name)?.[0] ?? 0 }),
    close: () => closeWeights(opened),
  }
}
