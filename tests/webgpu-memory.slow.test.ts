/**
 * Memory of the GPU is given back. On a software driver it is memory of the process.
 *
 * No other session may be open here: ONNX Runtime frees the weights of a session only with the device, which goes with the last session.
 */

import { expect, test } from 'vitest'
import { compileModel, disposeModel } from '../src/generation/compiled-model.ts'
import { closeContext, openContext, readPrompt } from '../src/generation/context.ts'
import { randomWeights, tinyConfig } from './tiny-model.ts'
import { missingDriver } from './webgpu-driver.ts'

test.skipIf(missingDriver !== undefined)('models and contexts come and go without leaving memory behind', async () => {
  const config = tinyConfig({ language: { width: 512, mlpWidth: 1024, heads: 8, keyValueHeads: 8, headSize: 64 } })
  const weights = randomWeights(config) // 34 MB
  const prompt = { ids: Int32Array.of(1, 20, 30, 40), pictures: [] }
  const comeAndGo = async () => {
    const model = await compileModel({ config, weights }, { threads: 1, device: 'webgpu' })
    for (let i = 0; i < 3; i++) {
      const context = openContext(model)
      await readPrompt(context, prompt)
      closeContext(context)
    }
    await disposeModel(model)
  }
  for (let i = 0; i < 6; i++) await comeAndGo()
  const before = process.memoryUsage().rss
  for (let i = 0; i < 6; i++) await comeAndGo()
  expect(process.memoryUsage().rss - before).toBeLessThan(100e6) // six times the weights alone would be 200 MB
})
