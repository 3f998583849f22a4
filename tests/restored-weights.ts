/** Weights after a round trip through the codes of a precision: what a model of that precision is held against. */

import type { Weights } from '../src/checkpoint/load.ts'
import { formsOf, type Precision } from '../src/generation/precision.ts'
import type { Device } from '../src/runtime/device.ts'
import { quantizeBlocks, quantizeRows, restoreBlocks, restoreRows } from '../src/runtime/quantize.ts'

/** The float32 weights that the codes of a precision stand for. */
export function restoredWeights(weights: Weights, precision: Precision, on: { device?: Device } = {}): Weights {
  return new Map(
    [...weights].map(([name, { shape, data }]) => {
      const [form = 'float32'] = formsOf({ name, shape }, precision, on)
      const width = shape[1] ?? 1
      if (form === 'int8' || form === 'uint8' || form === 'int7') {
        const codes = quantizeRows(data, width, { most: form === 'int7' ? 64 : 127 })
        return [name, { shape, data: restoreRows(codes) }]
      }
      const [bits, block] = form.replace('int', '').split('-').map(Number)
      if ((bits !== 4 && bits !== 8) || block === undefined) return [name, { shape, data }]
      return [
        name,
        { shape, data: restoreBlocks(quantizeBlocks(data, { width, bits, block }), { width, bits, block }) },
      ]
    }),
  )
}
