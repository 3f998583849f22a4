/** Ports: the named inputs and outputs that a compiled graph declares, and the names as native text. */
import { check, created, onnxRuntime } from './api.ts'
import { type ElementType, elementTypeOf } from './element-type.ts'
import { type Address, nativeText, textAt } from './foreign-functions.ts'

export type Port = {
  readonly name: string
  readonly dtype: ElementType | undefined // undefined: not a tensor, or of a type that no resident tensor has
  readonly nativeName: Uint8Array
}

/** The inputs and outputs of a native session by name, in the graph's order. */
export function readPorts(session: Address): { inputs: Map<string, Port>; outputs: Map<string, Port> } {
  const { api } = onnxRuntime()
  const inputs = Number(created('count inputs', (out) => api.SessionGetInputCount(session, out)))
  const outputs = Number(created('count outputs', (out) => api.SessionGetOutputCount(session, out)))
  return {
    inputs: byName(Array.from({ length: inputs }, (_, index) => readPort(session, { kind: 'Input', index }))),
    outputs: byName(Array.from({ length: outputs }, (_, index) => readPort(session, { kind: 'Output', index }))),
  }
}

function byName(ports: readonly Port[]): Map<string, Port> {
  return new Map(ports.map((port) => [port.name, port]))
}

function readPort(session: Address, port: { kind: 'Input' | 'Output'; index: number }): Port {
  const { api, allocator } = onnxRuntime()
  const { kind, index } = port
  const action = `describe ${kind.toLowerCase()} ${index}`
  const text = created(action, (out) => api[`SessionGet${kind}Name`](session, index, allocator, out))
  const name = textAt(text)
  check(api.AllocatorFree(allocator, text), action)
  const typeInfo = created(action, (out) => api[`SessionGet${kind}TypeInfo`](session, index, out))
  try {
    // The tensor info is a part of the type info, and null when the port is not a tensor.
    const tensorInfo = created(action, (out) => api.CastTypeInfoToTensorInfo(typeInfo, out))
    const code = tensorInfo === 0n ? 0n : created(action, (out) => api.GetTensorElementType(tensorInfo, out))
    return { name, dtype: elementTypeOf(Number(code)), nativeName: nativeText(name) }
  } finally {
    api.ReleaseTypeInfo(typeInfo)
  }
}
