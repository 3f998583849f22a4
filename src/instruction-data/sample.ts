/** A sample: one picture and a conversation about it, as training and evaluation receive it. */

import type { Turn } from '../conversation/turns.ts'
import type { Pixels } from '../image/pixels.ts'

export type Sample = {
  readonly id: string
  readonly turns: readonly Turn[]
  /** The picture's pixels, made when asked for: stages that read words never ask. */
  readonly picture?: () => Promise<Pixels>
  /** What is seen in each patch, as an index into the source's `labelNames`: [P]. Only worlds whose truth is known have it. */
  readonly labels?: () => Int32Array
  /** What each answer shows that the model can do, in the order of the answers; scores are reported by skill. */
  readonly skills?: readonly string[]
}

/**
 * A sequence of samples in which number `index` is always the same one: a run that stops continues at the next index, and sees what it would have seen.
 */
export type SampleSource = {
  /** Samples in one pass, or undefined for an endless world. */
  readonly size: number | undefined
  /** What the labels of patches mean; 0 is where nothing is. The picture written in words is made of these names. */
  readonly labelNames?: readonly string[]
  readonly sample: (index: number) => Promise<Sample>
}
