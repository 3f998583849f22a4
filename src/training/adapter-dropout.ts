/** Dropout of what enters LoRA's adapters (Hu et al. 2021, §5; PEFT's `lora_dropout`): which keys a graph needs, and their numbers for one batch. */

import { expectedTensors } from '../checkpoint/layouts.ts'
import { seededRandom } from '../generation/sampling.ts'
import type { LlavaConfig } from '../model/config.ts'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { type Dropout, input, scalar, slice } from '../tensor/index.ts'
import type { Inputs } from './training-step.ts'

/** One key for each row that any layer sees, and for each layer keys of its own for the elements of a row. */
export type AdapterDropout = {
  readonly rate: number
  readonly rows: number
  readonly columns: ReadonlyMap<string, { readonly start: number; readonly end: number }>
  readonly width: number
}

/** Undefined where nothing is dropped. `rows` is the most rows that a layer sees at once. */
export function planDropout(
  layers: ReadonlySet<string>,
  { config, rate, rows }: { config: LlavaConfig; rate: number | undefined; rows: number },
): AdapterDropout | undefined {
  if (!rate || layers.size === 0) return undefined
  const shapes = expectedTensors(config)
  const columns = new Map<string, { start: number; end: number }>()
  let width = 0
  for (const layer of layers) {
    const end = width + (shapes.get(`${layer}.weight`)?.[1] ?? 0)
    columns.set(layer, { start: width, end })
    width = end
  }
  return { rate, rows, columns, width }
}

/** The dropout of one layer, by the graph inputs `dropout.rows` [R, 1] and `dropout.columns` [1, ΣD]. */
export function dropoutOf(plan: AdapterDropout, layer: string): Dropout {
  const span = plan.columns.get(layer)
  if (span === undefined) throw new Error(`Layer ${layer} has no dropout`)
  return {
    rowKeys: input('dropout.rows', 'float32', [plan.rows, 1]),
    columnKeys: slice(input('dropout.columns', 'float32', [1, plan.width]), { axis: 1, ...span }), // [1, D]
    rate: scalar(plan.rate),
  }
}

/** The keys of one batch: a function of the recipe's seed and of where in the run the batch is, so a resumed run drops the same. */
export function dropoutInputs(
  { rows, width }: AdapterDropout,
  { seed, cursor, part }: { seed: number; cursor: number; part: number },
): Inputs {
  const mixed = Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(cursor + 1, 0x85ebca6b) ^ Math.imul(part + 1, 0xc2b2ae35)
  const random = seededRandom(mixed >>> 0)
  const keys = (length: number) => Float32Array.from({ length }, random)
  return {
    'dropout.rows': residentTensor('float32', [rows, 1], { data: keys(rows) }),
    'dropout.columns': residentTensor('float32', [1, width], { data: keys(width) }),
  }
}
