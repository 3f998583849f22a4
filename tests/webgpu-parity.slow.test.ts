/**
 * The parity tests on a GPU: the same references, the same tolerances, the same 64 tokens as on the CPU. Of each kind of model one, because a software
 * driver takes minutes for it; LLAVA_TEST_MODELS names others.
 */

import { expect, test } from 'vitest'
import { keepDevice, missingDriver } from './webgpu-driver.ts'

if (missingDriver === undefined) {
  await keepDevice()
  process.env.LLAVA_TEST_DEVICE = 'webgpu' // before the tests are read: see references.ts
  process.env.LLAVA_TEST_MODELS ??= 'clip-llama,onevision-qwen2,clip'
  await import('./parity.test.ts')
  await import('./parity-tiles.test.ts')
  await import('./parity-clip.test.ts')
}

test.skipIf(missingDriver !== undefined)('the parity tests above ran on device webgpu', async () => {
  const { compute } = await import('./references.ts')
  expect(compute.device).toBe('webgpu')
})

test.runIf(missingDriver !== undefined)(`left out, no device: ${missingDriver}`, () => {
  expect(missingDriver).toMatch(/found no GPU/)
})
