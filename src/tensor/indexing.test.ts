import { expect, test } from 'vitest'
import { residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import { addRows, input, writeOnnx, zeros } from './index.ts'

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
