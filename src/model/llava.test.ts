import { expect, test } from 'vitest'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import { input, writeOnnx } from '../tensor/index.ts'
import { merge } from './llava.ts'

const [P, D] = [2, 3]

/** `merge` run on text [B, L, D] of −1, −2, … per position and visual tokens 1, 2, … per token. */
async function merged(sizes: { B: number; L: number; I: number }, places: readonly number[]): Promise<number[]> {
  const { B, L, I } = sizes
  const text = input('text', 'float32', ['B', 'L', D])
  const tokens = input('tokens', 'float32', ['I', P, D])
  const result = merge(text, { tokens, places: input('places', 'int64', ['I*2']) })
  const session = await createSession(writeOnnx({ result }, { parameters: 'initializers' }).model, { threads: 1 })
  const rows = (count: number, value: (row: number) => number) =>
    Float32Array.from({ length: count * D }, (_, i) => value(Math.floor(i / D)))
  const inputs: Record<string, ResidentTensor> = {
    text: residentTensor('float32', [B, L, D], { data: rows(B * L, (row) => -1 - row) }),
    tokens: residentTensor('float32', [I, P, D], { data: rows(I * P, (row) => 1 + row) }),
    places: residentTensor('int64', [places.length], { data: BigInt64Array.from(places, BigInt) }),
  }
  const { result: output } = await run(session, inputs)
  await disposeSession(session)
  expect(output?.shape).toEqual([B, L, D])
  return Array.from({ length: B * L }, (_, row) => Number(output?.data[row * D]))
}

test('visual tokens stand at their places in a batch whose rows hold two, no and one picture', async () => {
  // Row 0: positions 0 … 5, pictures at 1 and 4; row 1: none; row 2: positions 12 … 17, a picture at 15.
  expect(await merged({ B: 3, L: 6, I: 3 }, [1, 2, 4, 5, 15, 16])).toEqual([
    ...[-1, 1, 2, -4, 3, 4],
    ...[-7, -8, -9, -10, -11, -12],
    ...[-13, -14, -15, 5, 6, -18],
  ])
})

test('without pictures the text stays as it is', async () => {
  expect(await merged({ B: 1, L: 3, I: 0 }, [])).toEqual([-1, -2, -3])
})

test('refuses visual tokens of another width, and places that do not match them', () => {
  const text = input('text', 'float32', [1, 8, D])
  const tokens = input('tokens', 'float32', [1, P, D])
  const places = input('places', 'int64', [P])
  const wide = input('wide', 'float32', [1, P, D + 1])
  expect(() => merge(text, { tokens: wide, places })).toThrow(
    'Text embeddings must have shape [_, _, 4], found [1, 8, 3]',
  )
  expect(() => merge(text, { tokens, places: input('places', 'int64', [3]) })).toThrow('must have shape [2], found [3]')
})
