/** One conversion in a process of its own: `node conversion-run.ts FOLDER LAYERS PRECISION`. The last line is a JSON document. */

import { join } from 'node:path'
import { expectedTensors } from '../src/checkpoint/layouts.ts'
import { compileSupplied, disposeModel } from '../src/generation/compiled-model.ts'
import { cachedWeights, prepareCache } from '../src/generation/model-cache.ts'
import type { Precision } from '../src/generation/precision.ts'
import { peakMemory, time } from './measure.ts'
import { llava7B } from './shapes.ts'

export type ConversionRun = {
  readonly precision: Precision
  readonly weights: number
  readonly convertMs: number
  readonly openMs: number
  /** Bytes, of the conversion alone. */
  readonly peak: number
}

const [folder = '', layers = '1', name = 'int4'] = process.argv.slice(2)
const precision = name as Precision
const config = llava7B({ language: { depth: Number(layers) } })
const source = { folder, config }
const options = { precision, cache: join(folder, 'cache') }
await prepareCache(options.cache)
const convertMs = await time(() => cachedWeights(source, options))
const peak = peakMemory()
const openMs = await time(async () => {
  const model = await compileSupplied({ config, precision, weights: await cachedWeights(source, options) })
  await disposeModel(model)
})
const weights = [...expectedTensors(config).values()].reduce(
  (sum, shape) => sum + shape.reduce((product, size) => product * size, 1),
  0,
)
const result: ConversionRun = { precision, weights, convertMs, openMs, peak }
console.log(JSON.stringify(result))
