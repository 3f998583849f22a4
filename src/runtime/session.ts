/** Sessions: a compiled ONNX graph that runs on resident tensors, off the event loop, and can be stopped midway. */
import { availableParallelism } from 'node:os'
import { check, created, onnxRuntime } from './api.ts'
import { addWebGpu, type Compute, type Device, deviceFailure, gpuAllocator, inTurn, mostThreads } from './device.ts'
import type { ElementType } from './element-type.ts'
import { type Address, nativePath, nativeText, pointersTo } from './foreign-functions.ts'
import { type NativeCall, runNative } from './native-run.ts'
import { type Port, readPorts } from './port.ts'
import {
  borrowValue,
  type DeviceMemory,
  type DeviceTensor,
  giveBackValue,
  type ResidentTensor,
  releaseTensors,
  type SessionTensor,
  tensorFrom,
} from './resident-tensor.ts'

const stateKey: unique symbol = Symbol('state')

export type Session = {
  readonly inputNames: readonly string[]
  readonly outputNames: readonly string[]
  readonly [stateKey]: State
}

export type SessionOptions = Compute & {
  /**
   * Values of initializers that the model declares as external data, by name. Sessions share them without a copy and
   * keep them alive. Do not change them afterwards: operators may have repacked them, constants may be folded.
   */
  initializers?: Readonly<Record<string, ResidentTensor>>
  /** The folder of the files that the model's external data names; ONNX Runtime maps them into memory. */
  externalFolder?: string | undefined
  /** Leaves operators on constants to every run: float16 weights that are widened would be kept in float32 otherwise. */
  keepConstants?: boolean | undefined
  /** How far ONNX Runtime rewrites the graph; `all` when left out. */
  optimization?: 'none' | 'basic' | 'extended' | 'all'
  /** Path prefix of a JSON profile, written when the session is disposed. */
  profile?: string
}

export type RunOptions = {
  /** Where outputs are to be written, by name. May be an input too when its operator works element by element. */
  outputs?: Readonly<Record<string, SessionTensor>>
  /** The outputs to return besides `outputs`; all when left out. */
  fetch?: readonly string[]
  /** Stops the run between two operators. */
  signal?: AbortSignal | undefined
}

/** A stretch of a file that holds the value of an initializer. */
export type FilePart = {
  readonly path: string
  readonly dtype: ElementType
  readonly shape: readonly number[]
  readonly offset: number
  readonly bytes: number
}

type State = {
  native: Address
  device: Device
  inputs: ReadonlyMap<string, Port>
  outputs: ReadonlyMap<string, Port>
  initializers: readonly ResidentTensor[]
  runs: Set<Promise<unknown>>
  deviceMemory: DeviceMemory | undefined
  disposal: Promise<void> | undefined
}

const optimizationLevels = { none: 0, basic: 1, extended: 2, all: 99 } as const

/** Frees what was forgotten; disposing is the normal way. */
const forgotten = new FinalizationRegistry<State>((state) => {
  void endSession(state)
})

/**
 * Compiles a model without blocking the event loop.
 *
 * @param model the bytes of an ONNX ModelProto, or the path of its file
 * @throws Error with ONNX Runtime's reason when the model does not load, RangeError when `threads` is not from 1 to `mostThreads`
 */
export async function createSession(model: Uint8Array | string, options: SessionOptions = {}): Promise<Session> {
  const { api, environment } = onnxRuntime()
  const { device = 'cpu' } = options
  const action = typeof model === 'string' ? `create session from ${model}` : 'create session'
  const settings = nativeSettings(options, action)
  const initializers: ResidentTensor[] = []
  const out = new BigUint64Array(1)
  let ports: ReturnType<typeof readPorts>
  try {
    addInitializers(settings, { tensors: options.initializers ?? {}, borrowed: initializers, action })
    const status = await inTurn(device, () =>
      typeof model === 'string'
        ? api.CreateSession.inBackground([environment, nativePath(model), settings, out])
        : api.CreateSessionFromArray.inBackground([environment, model, model.byteLength, settings, out]),
    )
    check(status, action)
    ports = readPorts(out[0] ?? 0n)
  } catch (error) {
    api.ReleaseSession(out[0] ?? 0n)
    initializers.forEach(giveBackValue)
    throw error
  } finally {
    api.ReleaseSessionOptions(settings)
  }
  const state: State = {
    native: out[0] ?? 0n,
    device,
    ...ports,
    initializers,
    runs: new Set(),
    deviceMemory: undefined,
    disposal: undefined,
  }
  const session = { inputNames: [...state.inputs.keys()], outputNames: [...state.outputs.keys()], [stateKey]: state }
  Object.defineProperty(session, stateKey, { enumerable: false })
  forgotten.register(session, state, state)
  return Object.freeze(session)
}

/**
 * Runs the graph without blocking the event loop. One session may have several runs at a time.
 *
 * Outputs without a place in `options.outputs` come back as new tensors that own a copy of ONNX Runtime's memory:
 * nothing can dangle, and the copy is small beside the work that made it. Give large outputs a place.
 *
 * @param inputs one tensor for each input of the graph, by name
 * @returns the fetched outputs, by name, without those that stay on a device
 * @throws TypeError when an element type does not fit, Error for a wrong name, a missing input, a shape that ONNX
 *   Runtime refuses or a failed operator, `signal.reason` when the signal fires before the run has ended
 */
export async function run(
  session: Session,
  inputs: Readonly<Record<string, SessionTensor>>,
  options: RunOptions = {},
): Promise<Record<string, ResidentTensor>> {
  const state = session[stateKey]
  options.signal?.throwIfAborted()
  if (state.disposal) throw new Error('Cannot run session: it is disposed')
  const call = checkedCall(state, inputs, options)
  const running = inTurn(state.device, async () => {
    options.signal?.throwIfAborted()
    return runNative(state.native, call, options)
  })
  state.runs.add(running)
  try {
    return await running
  } catch (error) {
    throw state.device === 'cpu' || options.signal?.aborted ? error : deviceFailure(error)
  } finally {
    state.runs.delete(running)
  }
}

/** Frees a session once its runs have returned; new runs are refused from now on. Safe to repeat. */
export async function disposeSession(session: Session): Promise<void> {
  const state = session[stateKey]
  forgotten.unregister(state)
  await endSession(state)
}

/** A place in the memory of a session's device, which must be webgpu. It ends with the session unless it is disposed before. */
export async function deviceTensor<D extends ElementType>(
  session: Session,
  description: { dtype: D; shape: readonly number[] },
): Promise<DeviceTensor<D>> {
  const state = session[stateKey]
  if (state.device !== 'webgpu') {
    throw new Error(`Cannot make a tensor on the device: the session runs on ${state.device}, expected webgpu`)
  }
  return inTurn(state.device, async () => {
    if (state.disposal) throw new Error('Cannot make a tensor on the device: the session is disposed')
    state.deviceMemory ??= { allocator: gpuAllocator(state.native), tensors: new Set() }
    return tensorFrom(state.deviceMemory, description)
  })
}

function endSession(state: State): Promise<void> {
  state.disposal ??= releaseState(state)
  return state.disposal
}

async function releaseState(state: State): Promise<void> {
  await Promise.allSettled(state.runs)
  const { api } = onnxRuntime()
  await inTurn(state.device, async () => {
    if (state.deviceMemory !== undefined) {
      releaseTensors(state.deviceMemory)
      api.ReleaseAllocator(state.deviceMemory.allocator)
    }
    await api.ReleaseSession.inBackground([state.native])
  })
  state.initializers.forEach(giveBackValue)
}

/** Native session options; the caller releases them. */
function nativeSettings(options: SessionOptions, action: string): Address {
  const { api } = onnxRuntime()
  const { threads = availableParallelism(), optimization = 'all', profile, device = 'cpu' } = options
  if (!Number.isInteger(threads) || threads < 1 || threads > mostThreads) {
    throw new RangeError(`Cannot ${action}: threads is ${threads}, expected a whole number from 1 to ${mostThreads}`)
  }
  const settings = created(action, (out) => api.CreateSessionOptions(out))
  try {
    check(api.SetIntraOpNumThreads(settings, threads), action)
    check(api.SetInterOpNumThreads(settings, 1), action)
    check(api.SetSessionGraphOptimizationLevel(settings, optimizationLevels[optimization]), action)
    // Threads spin while a run goes on and sleep between runs: sessions take turns, an idle one must not burn a core.
    const entries = { 'session.force_spinning_stop': '1', ...configEntries(options) }
    for (const [key, value] of Object.entries(entries)) {
      check(api.AddSessionConfigEntry(settings, nativeText(key), nativeText(value)), action)
    }
    if (profile !== undefined) check(api.EnableProfiling(settings, nativePath(profile)), action)
    if (device === 'webgpu') addWebGpu(settings, action)
    return settings
  } catch (error) {
    api.ReleaseSessionOptions(settings)
    throw error
  }
}

function configEntries({ externalFolder, keepConstants }: SessionOptions): Record<string, string> {
  return {
    ...(externalFolder !== undefined && { 'session.model_external_initializers_file_folder_path': externalFolder }),
    ...(keepConstants && { 'optimization.disable_specified_optimizers': 'ConstantFolding' }),
  }
}

/** Hands initializers to the session to be; each tensor that it borrows is appended to `borrowed`. */
function addInitializers(
  settings: Address,
  options: { tensors: Readonly<Record<string, ResidentTensor>>; borrowed: ResidentTensor[]; action: string },
): void {
  const { tensors, borrowed, action } = options
  const entries = Object.entries(tensors)
  if (entries.length === 0) return
  const names = entries.map(([name]) => nativeText(name))
  const values = entries.map(([name, tensor]) => {
    const value = borrowValue(tensor, `${action} with initializer "${name}"`)
    borrowed.push(tensor)
    return value
  })
  const { api } = onnxRuntime()
  // The first call satisfies the loader, which would otherwise look for a file, and checks names, types and shapes;
  // alone it copies every value. The second makes the session run on the tensors themselves.
  const status = api.AddExternalInitializers(settings, pointersTo(names), BigUint64Array.from(values), names.length)
  check(status, action)
  names.forEach((name, index) => {
    check(api.AddInitializer(settings, name, values[index] ?? 0n), action)
  })
}

/** Matches the tensors of a run to the ports of the graph, or says what does not fit. */
function checkedCall(state: State, inputs: Readonly<Record<string, SessionTensor>>, options: RunOptions): NativeCall {
  const places = options.outputs ?? {}
  for (const name of state.inputs.keys()) {
    if (inputs[name] === undefined) throw new Error(`Cannot run session: input "${name}" is missing`)
  }
  const fetched = new Set([...(options.fetch ?? state.outputs.keys()), ...Object.keys(places)])
  return {
    inputs: Object.entries(inputs).map(([name, tensor]) => {
      const port = expectPort(state.inputs, { kind: 'input', name })
      expectType(tensor, { kind: 'input', port })
      return [port, tensor] as const
    }),
    outputs: [...fetched].map((name) => {
      const port = expectPort(state.outputs, { kind: 'output', name })
      const place = places[name]
      if (place) expectType(place, { kind: 'output', port })
      return [port, place] as const
    }),
  }
}

function expectPort(ports: ReadonlyMap<string, Port>, wanted: { kind: string; name: string }): Port {
  const port = ports.get(wanted.name)
  if (port === undefined) {
    const known = [...ports.keys()].map((name) => `"${name}"`).join(', ')
    throw new Error(`Cannot run session: unknown ${wanted.kind} "${wanted.name}", expected ${known || 'none'}`)
  }
  return port
}

function expectType(tensor: SessionTensor, place: { kind: string; port: Port }): void {
  const { kind, port } = place
  if (tensor.dtype !== port.dtype) {
    const expected = port.dtype ?? 'a type that tensors here cannot have'
    throw new TypeError(`Cannot run session: ${kind} "${port.name}" is ${tensor.dtype}, expected ${expected}`)
  }
}
