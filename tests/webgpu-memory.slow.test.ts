/**
 * Memory of the GPU is given back. On a software driver it is memory of the process.
 *
 * No other session may be open here: ONNX Runtime frees the weights of a session only with the device, which goes with the last session.
 */

import { expect, test } from 'vitest'
import { disposeTensor, residentTensor } from '../src/runtime/resident-tensor.ts'
import { createSession, deviceTensor, disposeSession, run } from '../src/runtime/session.ts'
import { gatherRows, input, parameter, writeOnnx } from '../src/tensor/index.ts'
import { missingDriver } from './webgpu-driver.ts'

test.skipIf(missingDriver !== undefined)(
  'sessions and their tensors come and go without leaving memory behind',
  async () => {
    const side = 1448 // weights of 8 MB
    const table = residentTensor('float32', [side, side])
    table.data.fill(0.5)
    const row = gatherRows(parameter('table', [side, side]), input('index', 'int64', [1]))
    const { model } = writeOnnx({ row }, { parameters: 'initializers', operators: 'gpu' })
    const index = residentTensor('int64', [1])
    const comeAndGo = async () => {
      const session = await createSession(model, { device: 'webgpu', initializers: { table }, threads: 1 })
      const place = await deviceTensor(session, { dtype: 'float32', shape: [1, side] })
      await run(session, { index }, { outputs: { row: place }, fetch: [] })
      disposeTensor(place)
      await deviceTensor(session, { dtype: 'float32', shape: [side] }) // forgotten: it ends with the session
      await disposeSession(session)
    }
    for (let i = 0; i < 12; i++) await comeAndGo()
    const before = process.memoryUsage().rss
    for (let i = 0; i < 12; i++) await comeAndGo()
    expect(process.memoryUsage().rss - before).toBeLessThan(60e6) // the weights alone would be 100 MB
  },
)
