/** Batches in order, each made while the one before it is learned from. */

import { type Batch, disposeBatch, makeBatch, type Position } from './batch-maker.ts'
import type { Lesson } from './lesson.ts'

export type BatchQueue = {
  /** The next batch; a batch that could not be made fails here, when its turn has come. */
  readonly next: () => Promise<Batch>
  /** Waits for the batch in the making and frees it. */
  readonly close: () => Promise<void>
}

/** `count` batches of the lesson's samples, from `position` on. */
export function batchQueue(lesson: Lesson, { position, count }: { position: Position; count: number }): BatchQueue {
  let started = 0
  let upcoming: Promise<Batch> | undefined
  const start = (from: Position) => {
    if (started++ >= count) return undefined
    const batch = makeBatch(lesson, { source: lesson.source, position: from, parts: lesson.recipe.accumulate })
    batch.catch(() => {}) // reported by `next`
    return batch
  }
  return {
    next: async () => {
      const batch = await (upcoming ?? start(position))
      if (batch === undefined) throw new RangeError(`Cannot make batch ${started}: the queue has ${count}`)
      upcoming = start(batch.position)
      return batch
    },
    close: async () => {
      const batch = await upcoming?.catch(() => undefined)
      if (batch !== undefined) disposeBatch(batch)
    },
  }
}
