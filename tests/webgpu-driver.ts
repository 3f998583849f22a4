/** The device for the tests of WebGPU. Without a GPU, Chromium's software driver stands in where it is installed. */

import { existsSync } from 'node:fs'
import { vi } from 'vitest'
import { createSession, disposeSession, type Session } from '../src/runtime/session.ts'
import { input, scaleBy, writeOnnx } from '../src/tensor/index.ts'

const softwareDriver = '/usr/lib/chromium/vk_swiftshader_icd.json'
if (process.env.VK_ICD_FILENAMES === undefined && process.env.VK_DRIVER_FILES === undefined) {
  if (existsSync(softwareDriver)) process.env.VK_ICD_FILENAMES = softwareDriver
}

vi.setConfig({ testTimeout: 900_000, hookTimeout: 900_000 }) // the software driver takes about a second for each shader that it compiles

/** Why there is no device, in one sentence; undefined when there is one. */
export const missingDriver: string | undefined = await openDevice().then(
  async (session) => void (await disposeSession(session)),
  (error: Error) => error.message,
)

/** Opens the device until the process ends: it goes with its last session otherwise, and the shaders that were compiled for it go too. */
export async function keepDevice(): Promise<void> {
  if (missingDriver === undefined) kept.push(await openDevice())
}

const kept: Session[] = []

function openDevice(): Promise<Session> {
  const { model } = writeOnnx({ y: scaleBy(input('x', 'float32', [2]), 2) }, { parameters: 'inputs', operators: 'gpu' })
  return createSession(model, { device: 'webgpu' })
}
