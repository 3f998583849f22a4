/** What the parity tests share: stored references, the pictures of noise that they are of, and how far apart two results are. */

import { toFloat32 } from '../src/checkpoint/dtype.ts'
import { closeSafetensors, openSafetensors, readTensor } from '../src/checkpoint/safetensors.ts'
import type { Values } from '../src/generation/uncached.ts'
import { type Pixels, pixels } from '../src/image/pixels.ts'
import type { Compute } from '../src/runtime/device.ts'

/** Where the parity tests compute. tests/webgpu-parity.slow.test.ts has some of them run on a GPU. */
export const compute: Compute = { threads: 1, device: process.env.LLAVA_TEST_DEVICE === 'webgpu' ? 'webgpu' : 'cpu' }

/** The models of `all` that are to be tested: those that LLAVA_TEST_MODELS names, separated by commas, or all where it names none. */
export function modelsToTest<T extends string>(all: readonly T[]): readonly T[] {
  const named = process.env.LLAVA_TEST_MODELS?.split(',')
  return named === undefined ? all : all.filter((name) => named.includes(name))
}

/** All tensors of a file as float32. */
export async function readTensors(path: string): Promise<Map<string, Values>> {
  const file = await openSafetensors(path)
  const values = new Map<string, Values>()
  for (const name of file.tensors.keys()) {
    const { dtype, shape, data } = await readTensor(file, name)
    values.set(name, { shape, data: toFloat32(dtype, data) })
  }
  await closeSafetensors(file)
  return values
}

/** Largest difference, relative to the largest value. */
export function relativeDifference(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  const indices = Array.from(expected, (_, i) => i)
  const largest = Math.max(...indices.map((i) => Math.abs(expected[i]!)))
  return Math.max(...indices.map((i) => Math.abs(found[i]! - expected[i]!))) / largest
}

/** The same generator as `noise` in fixtures/parity/make-references.py. */
export function noise({ width, height, seed }: { width: number; height: number; seed: number }): Pixels {
  let state = seed
  const next = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state >>> 24
  }
  return pixels(width, height, Uint8Array.from({ length: width * height * 3 }, next))
}
