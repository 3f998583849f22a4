/**
 * Devices: where a session computes. The WebGPU provider inside ONNX Runtime's library reaches any GPU with a Vulkan, Metal or Direct3D 12 driver.
 */
import type { OperatorSet } from '../tensor/index.ts'
import { check, created, onnxRuntime } from './api.ts'
import { type Address, nativeText, pointersTo } from './foreign-functions.ts'

/** Where operators run. */
export type Device = 'cpu' | 'webgpu'

export const devices = ['cpu', 'webgpu'] as const satisfies readonly Device[]

/** More threads than any processor has only take memory: 100,000 take all that there is. */
export const mostThreads = 1024

/** Where a session computes, and on how many processor threads. */
export type Compute = {
  /** `cpu` when left out. What the device has no operator for runs on the CPU; inputs and outputs are copied there and back. */
  readonly device?: Device | undefined
  /** Worker threads for one operator; all cores when left out. */
  readonly threads?: number | undefined
}

/** The operators to write a graph with that is to run on a device. */
export function operatorsOf(device: Device | undefined): OperatorSet {
  return device === 'webgpu' ? 'gpu' : 'cpu'
}

/** @throws Error when there is no GPU, or none that its driver offers through WebGPU's interfaces */
export function addWebGpu(settings: Address, action: string): void {
  const { api } = onnxRuntime()
  // Token ids and positions are int64, which shaders lack: the provider then keeps the lower half.
  const keys = [nativeText('ep.webgpuexecutionprovider.enableInt64')]
  const values = [nativeText('1')]
  const [name, count] = [nativeText('WebGPU'), keys.length]
  const status = api.SessionOptionsAppendExecutionProvider(settings, name, pointersTo(keys), pointersTo(values), count)
  try {
    check(status, `${action} on device webgpu`)
  } catch (cause) {
    if (!String(cause).includes('WebGPU adapter')) throw cause
    throw new Error(
      `Cannot ${action} on device webgpu: found no GPU, expected one with a driver for Vulkan, Metal or Direct3D 12`,
      { cause },
    )
  }
}

/** What a failed run says, in one sentence where it is that the GPU had no room: it tells only when memory is used, and in many lines. */
export function deviceFailure(error: unknown): unknown {
  if (!/Invalid Buffer|out of memory|maxBufferSize|MaxStorageBuffer/i.test(String(error))) return error
  const limit = 'expected a smaller model, fewer bits or a shorter context'
  return new Error(
    `Cannot run session on device webgpu: a tensor is larger than its memory or its largest buffer, ${limit}`,
    {
      cause: error,
    },
  )
}

/** OrtAllocatorType */
const deviceAllocator = 0

/** The allocator of a session's GPU memory. Tensors made with it go back to it, so it lives as long as the session. */
export function gpuAllocator(session: Address): Address {
  const { api } = onnxRuntime()
  const action = 'reach the memory of the device'
  const memory = created(action, (out) => api.CreateMemoryInfo(nativeText('WebGPU_Buf'), deviceAllocator, 0, 0, out))
  try {
    return created(action, (out) => api.CreateAllocator(session, memory, out))
  } finally {
    api.ReleaseMemoryInfo(memory)
  }
}

let gpuWork: Promise<unknown> = Promise.resolve()

/** Runs work on a device. All sessions on the GPU share one command encoder, which takes the commands of one call at a time. */
export function inTurn<T>(device: Device, work: () => Promise<T>): Promise<T> {
  if (device === 'cpu') return work()
  const result = gpuWork.then(work, work)
  gpuWork = result
  return result
}
