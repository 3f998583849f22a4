/** The order in which samples are drawn: functions of the position in the run alone, so that a resumed run needs no memory. */

import type { SampleSource } from '../instruction-data/sample.ts'

/**
 * The sample to draw at a position of the run: in order from an endless source, in a new random order for every pass over a finite one. A function
 * of its arguments alone, so that a resumed run needs no memory of what was drawn.
 */
export function orderedIndex(cursor: number, { size, seed }: { size: number | undefined; seed: number }): number {
  if (size === undefined) return cursor
  const pass = Math.floor(cursor / size)
  return permute(cursor % size, { size, key: Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(pass + 1, 0x85ebca6b) })
}

/** Batches among which samples are sorted by length: more are sorted better, fewer are mixed better. As many as LLaVA's own sampler takes. */
const batchesPerGroup = 50

/**
 * The samples of a source in the order of `orderedIndex`, or in buckets of `bucket` samples: of one kind (with or without a picture) and of similar
 * length, as far as a group of 50 buckets allows; the buckets of a group come in random order, as do the groups. A pass visits no sample twice, and
 * leaves out the few that fill no bucket, others each time.
 */
export function drawOrder(
  source: SampleSource,
  { seed, bucket }: { seed: number; bucket?: number | undefined },
): (cursor: number) => number {
  const { size, measure } = source
  const plain = (cursor: number) => orderedIndex(cursor, { size, seed })
  if (bucket === undefined || size === undefined || measure === undefined || size < bucket) return plain
  const perPass = size - (size % bucket)
  const groupSize = bucket * batchesPerGroup
  const groups = new Map<number, readonly number[]>() // by the first cursor of each
  return (cursor) => {
    const pass = Math.floor(cursor / perPass)
    const start = Math.floor((cursor % perPass) / groupSize) * groupSize
    const first = pass * perPass + start
    const makeGroup = () => {
      const indices = Array.from({ length: Math.min(groupSize, perPass - start) }, (_, i) => pass * size + start + i)
      return inBuckets(indices.map(plain), { measure, bucket, key: seed + first })
    }
    const group = groups.get(first) ?? makeGroup()
    groups.set(first, group)
    return group[cursor - first] ?? plain(cursor)
  }
}

/** Indices sorted by kind and length, cut into buckets, and the buckets shuffled. */
function inBuckets(
  indices: readonly number[],
  { measure, bucket, key }: { measure: NonNullable<SampleSource['measure']>; bucket: number; key: number },
): readonly number[] {
  const measured = indices.map((index) => ({ index, ...measure(index) }))
  measured.sort((one, other) => one.pictures - other.pictures || other.words - one.words || one.index - other.index)
  const size = measured.length / bucket
  const order = Array.from({ length: size }, (_, i) => permute(i, { size, key }))
  return order.flatMap((i) => measured.slice(i * bucket, (i + 1) * bucket).map(({ index }) => index))
}

/** A keyed permutation of 0 … size − 1: a four-round Feistel network over the next even power of two, repeated until the value is inside. */
function permute(index: number, { size, key }: { size: number; key: number }): number {
  const halfBits = Math.max(1, Math.ceil(Math.log2(Math.max(2, size)) / 2))
  const mask = 2 ** halfBits - 1
  let value = index
  do {
    let left = Math.floor(value / 2 ** halfBits)
    let right = value & mask
    for (let round = 0; round < 4; round++) {
      const mixed = Math.imul(right ^ Math.imul(key, round + 1), 0xcc9e2d51)
      const swapped = left ^ ((mixed ^ (mixed >>> 15)) & mask)
      left = right
      right = swapped
    }
    value = left * 2 ** halfBits + right
  } while (value >= size)
  return value
}
