/** The step of stage 2 for tests: projector and language model learn from small random values, the encoder is frozen. */

import { adamWDefaults } from './adamw.ts'
import { initialWeight } from './initialization.ts'
import { partOf } from './stages.ts'
import { createTrainingStep, type TrainingStep } from './training-step.ts'

/** To be given to `disposeTrainingStep`. */
export function frozenEncoderStep(
  objective: Parameters<typeof createTrainingStep>[0]['objective'],
): Promise<TrainingStep> {
  return createTrainingStep({
    objective,
    groupOf: (name) => (partOf(name) === 'visionEncoder' ? undefined : partOf(name)),
    startingValue: (weight) => initialWeight(weight, { seed: 5, depth: 2 }),
    optimizer: adamWDefaults,
    threads: 1,
  })
}
