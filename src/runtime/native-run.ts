/** One native run: tensors lent for its length, stopped by a signal, its outputs brought back. */
import { check, created, onnxRuntime } from './api.ts'
import { elementTypeOf } from './element-type.ts'
import { type Address, copyBytes, pointersTo } from './foreign-functions.ts'
import type { Port } from './port.ts'
import {
  borrowValue,
  disposeTensor,
  giveBackValue,
  type ResidentTensor,
  residentTensor,
  type SessionTensor,
} from './resident-tensor.ts'

/** Everything that one native run may touch. An output without a tensor is allocated by ONNX Runtime. */
export type NativeCall = {
  inputs: readonly (readonly [Port, SessionTensor])[]
  outputs: readonly (readonly [Port, SessionTensor | undefined])[]
}

/**
 * Runs a native session on a worker thread. Whatever happens, the native side has returned before anything that it
 * touches is released.
 *
 * @throws Error with ONNX Runtime's reason, or `signal.reason` when the signal fired first
 */
export async function runNative(
  session: Address,
  call: NativeCall,
  options: { signal?: AbortSignal | undefined },
): Promise<Record<string, ResidentTensor>> {
  const { api } = onnxRuntime()
  const { signal } = options
  const borrowed: SessionTensor[] = []
  const borrow = (port: Port, tensor: SessionTensor): Address => {
    const value = borrowValue(tensor, `run session with "${port.name}"`)
    borrowed.push(tensor)
    return value
  }
  const settings = created('run session', (out) => api.CreateRunOptions(out))
  const terminate = () => void api.RunOptionsSetTerminate(settings)
  const results = new BigUint64Array(call.outputs.length)
  try {
    const inputNames = pointersTo(call.inputs.map(([port]) => port.nativeName))
    const outputNames = pointersTo(call.outputs.map(([port]) => port.nativeName))
    const values = BigUint64Array.from(call.inputs, ([port, tensor]) => borrow(port, tensor))
    results.set(call.outputs.map(([port, place]) => (place ? borrow(port, place) : 0n)))
    signal?.addEventListener('abort', terminate, { once: true })
    const status = await api.Run.inBackground(
      [session, settings, inputNames, values, values.length, outputNames, results.length, results],
      { signal },
    )
    check(status, 'run session')
    signal?.throwIfAborted()
    return collectOutputs(call, results)
  } catch (error) {
    throw signal?.aborted ? signal.reason : error
  } finally {
    signal?.removeEventListener('abort', terminate)
    api.ReleaseRunOptions(settings)
    call.outputs.forEach(([, place], index) => {
      const value = results[index] ?? 0n
      if (!place && value !== 0n) api.ReleaseValue(value)
    })
    borrowed.forEach(giveBackValue)
  }
}

/** The outputs of a finished run: given places as they are, unless they are on a device; the others copied out of ONNX Runtime's memory. */
function collectOutputs(call: NativeCall, results: BigUint64Array): Record<string, ResidentTensor> {
  const outputs: [string, ResidentTensor][] = []
  const copies: ResidentTensor[] = []
  try {
    call.outputs.forEach(([port, place], index) => {
      if (place === undefined) {
        const copy = copyOutput(port.name, results[index] ?? 0n)
        copies.push(copy)
        outputs.push([port.name, copy])
      } else if ('data' in place) outputs.push([port.name, place])
    })
  } catch (error) {
    copies.forEach(disposeTensor)
    throw error
  }
  return Object.fromEntries(outputs)
}

function copyOutput(name: string, value: Address): ResidentTensor {
  const { api } = onnxRuntime()
  const action = `read output "${name}"`
  if (value === 0n || created(action, (out) => api.IsTensor(value, out)) === 0n) {
    throw new TypeError(`Cannot ${action}: it is not a tensor`)
  }
  const info = created(action, (out) => api.GetTensorTypeAndShape(value, out))
  try {
    const code = Number(created(action, (out) => api.GetTensorElementType(info, out)))
    const dtype = elementTypeOf(code)
    if (dtype === undefined) throw new TypeError(`Cannot ${action}: no tensor here has ONNX element type ${code}`)
    const rank = Number(created(action, (out) => api.GetDimensionsCount(info, out)))
    const dimensions = new BigInt64Array(rank)
    check(api.GetDimensions(info, dimensions, rank), action)
    const tensor = residentTensor(dtype, Array.from(dimensions, Number))
    const { buffer, byteOffset, byteLength } = tensor.data
    const source = created(action, (out) => api.GetTensorMutableData(value, out))
    copyBytes(source, new Uint8Array(buffer, byteOffset, byteLength))
    return tensor
  } finally {
    api.ReleaseTensorTypeAndShapeInfo(info)
  }
}
