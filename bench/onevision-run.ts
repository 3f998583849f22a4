/**
 * One run of the OneVision bench in a process of its own, whose memory is then that of the model alone: `node onevision-run.ts single|batch ROUNDS`.
 * The last line is a JSON document.
 */

import { inferenceRun } from './inference-run.ts'
import { oneVision05B } from './shapes.ts'

export const precision = 'mixed' // what auto takes for a model of this size

const [mode = 'single', rounds = '1'] = process.argv.slice(2)
if (process.argv[1]?.endsWith('onevision-run.ts')) {
  const config = oneVision05B({ language: { context: 2048 } })
  console.log(JSON.stringify(await inferenceRun(config, { precision, mode, rounds: Number(rounds) })))
}
