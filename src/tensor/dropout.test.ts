import { expect, test } from 'vitest'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import { dropout, input, scalar, writeOnnx } from './index.ts'

const [R, D] = [400, 300]

/** x of ones after dropout, as the mask that it went through. */
async function mask(rate: number, { seed = 1 } = {}) {
  const x = input('x', 'float32', [2, R / 2, D])
  const rowKeys = input('rows', 'float32', [R + 5, 1])
  const columnKeys = input('columns', 'float32', [1, D])
  const y = dropout(x, { rowKeys, columnKeys, rate: scalar(rate) })
  expect(y.shape).toEqual(x.shape)
  const session = await createSession(writeOnnx({ y }, { parameters: 'inputs' }).model, { threads: 1 })
  const keys = (length: number, salt: number) => Float32Array.from({ length }, (_, i) => hash(seed * 7919 + salt + i))
  const { y: result } = await run(session, {
    x: residentTensor('float32', [2, R / 2, D], { data: new Float32Array(R * D).fill(1) }),
    rows: residentTensor('float32', [R + 5, 1], { data: keys(R + 5, 0) }),
    columns: residentTensor('float32', [1, D], { data: keys(D, 100_000) }),
  })
  await disposeSession(session)
  return result!.data.slice() as Float32Array
}

/** A number from 0 to 1 that looks random (the finalizer of MurmurHash3). */
function hash(value: number): number {
  let h = Math.imul(value, 0x9e3779b1)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return ((h ^ (h >>> 16)) >>> 0) / 2 ** 32
}

const shareOf = (values: readonly boolean[]) => values.filter(Boolean).length / values.length

test('drops the share it is told and divides the rest by what is kept', async () => {
  for (const rate of [0, 0.05, 0.5]) {
    const values = await mask(rate)
    expect(new Set(values)).toEqual(new Set(rate === 0 ? [1] : [0, Math.fround(1 / Math.fround(1 - rate))]))
    expect(Math.abs(shareOf(Array.from(values, (value) => value === 0)) - rate)).toBeLessThan(0.01)
  }
})

test('drops neighbours in a row and in a column independently', async () => {
  const dropped = Array.from(await mask(0.5), (value) => value === 0)
  const inRow = dropped.slice(1).map((value, i) => value && dropped[i]!)
  const inColumn = dropped.slice(D).map((value, i) => value && dropped[i]!)
  expect(Math.abs(shareOf(inRow) - 0.25)).toBeLessThan(0.03)
  expect(Math.abs(shareOf(inColumn) - 0.25)).toBeLessThan(0.03)
})

test('drops the same for the same keys, something else for others', async () => {
  expect(await mask(0.5)).toEqual(await mask(0.5))
  expect(await mask(0.5)).not.toEqual(await mask(0.5, { seed: 2 }))
})

test('refuses keys that do not fit', () => {
  const keys = { rowKeys: input('rows', 'float32', [3, 1]), columnKeys: input('columns', 'float32', [1, 2]) }
  const drop = (shape: number[]) => () => dropout(input('x', 'float32', shape), { ...keys, rate: scalar(0.5) })
  expect(drop([3, 2])).not.toThrow()
  for (const shape of [
    [4, 2],
    [3, 3],
  ]) {
    expect(drop(shape)).toThrow(/^Cannot drop elements of \[\d, \d\] by keys \[3, 1\] and \[1, 2\]$/)
  }
})
