import { expect, test } from 'vitest'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import { addRows, gatherRows, input, padEnd, replaceRows, writeOnnx, zeros } from './index.ts'

test('addRows loses no repeated row on several threads', async () => {
  const [rows, width, count] = [8, 256, 1024]
  const sum = addRows(zeros([rows, width]), input('index', 'int64', [count]), input('rows', 'float32', [count, width]))
  const session = await createSession(writeOnnx({ sum }, { parameters: 'inputs' }).model, { threads: 2 })
  const inputs = {
    index: residentTensor('int64', [count], {
      data: BigInt64Array.from({ length: count }, (_, i) => BigInt(i % rows)),
    }),
    rows: residentTensor('float32', [count, width], { data: new Float32Array(count * width).fill(1) }),
  }
  for (let trial = 0; trial < 20; trial++) {
    const result = await run(session, inputs)
    expect(new Set(result.sum!.data as Float32Array)).toEqual(new Set([count / rows]))
  }
  await disposeSession(session)
})

test('whole slabs are looked up, replaced and lengthened, as a cache of several rows wants it', async () => {
  const x = input('x', 'float32', ['B', 2, 'T', 1])
  const index = input('index', 'int64', [1])
  const outputs = {
    slab: gatherRows(x, index),
    replaced: replaceRows(x, index, input('row', 'float32', [1, 2, 'T', 1])),
    longer: padEnd(x, { axis: 2, count: input('count', 'int64', [1]), dim: 'longer' }),
  }
  const session = await createSession(writeOnnx(outputs, { parameters: 'inputs' }).model, { threads: 1 })
  const found = await run(session, {
    x: residentTensor('float32', [2, 2, 2, 1], { data: Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8) }),
    index: residentTensor('int64', [1], { data: BigInt64Array.of(1n) }),
    row: residentTensor('float32', [1, 2, 2, 1], { data: Float32Array.of(-1, -2, -3, -4) }),
    count: residentTensor('int64', [1], { data: BigInt64Array.of(1n) }),
  })
  expect([...found.slab!.data]).toEqual([5, 6, 7, 8])
  expect([...found.replaced!.data]).toEqual([1, 2, 3, 4, -1, -2, -3, -4])
  expect(found.longer!.shape).toEqual([2, 2, 3, 1])
  expect([...found.longer!.data]).toEqual([1, 2, 0, 3, 4, 0, 5, 6, 0, 7, 8, 0])
  await disposeSession(session)
})
