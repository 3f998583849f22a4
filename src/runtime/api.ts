/**
 * ONNX Runtime's C API (onnxruntime_c_api.h): its function table as callables, and its statuses as errors.
 *
 * The table only ever grows at its end, so an index holds for every later release.
 */
import {
  type Address,
  functionAt,
  type NativeFunction,
  nativeText,
  type ParameterType,
  pointerAt,
  symbolAddress,
  textAt,
} from './foreign-functions.ts'
import { findLibrary } from './library.ts'

/** Version 23 of the table came with ONNX Runtime 1.23. */
const apiVersion = 23
/** Only fatal messages reach the terminal: everything else comes back as a status. */
const fatalOnly = 4
/** Since 1.29 ONNX Runtime reports to its makers unless this is set, and a long command line crashes it while it prepares to. */
const telemetrySwitch = 'ORT_DISABLE_TELEMETRY'

/** Functions that return a status: index in the table, parameters. */
const fallible = {
  CreateEnv: [3, ['int32', 'address', 'address']],
  DisableTelemetryEvents: [6, ['address']],
  CreateSession: [7, ['address', 'address', 'address', 'address']],
  CreateSessionFromArray: [8, ['address', 'address', 'size', 'address', 'address']],
  Run: [9, ['address', 'address', 'address', 'address', 'size', 'address', 'size', 'address']],
  CreateSessionOptions: [10, ['address']],
  EnableProfiling: [14, ['address', 'address']],
  SetSessionGraphOptimizationLevel: [23, ['address', 'int32']],
  SetIntraOpNumThreads: [24, ['address', 'int32']],
  SetInterOpNumThreads: [25, ['address', 'int32']],
  SessionGetInputCount: [30, ['address', 'address']],
  SessionGetOutputCount: [31, ['address', 'address']],
  SessionGetInputTypeInfo: [33, ['address', 'size', 'address']],
  SessionGetOutputTypeInfo: [34, ['address', 'size', 'address']],
  SessionGetInputName: [36, ['address', 'size', 'address', 'address']],
  SessionGetOutputName: [37, ['address', 'size', 'address', 'address']],
  CreateRunOptions: [39, ['address']],
  RunOptionsSetTerminate: [46, ['address']],
  CreateTensorWithDataAsOrtValue: [49, ['address', 'address', 'size', 'address', 'size', 'int32', 'address']],
  IsTensor: [50, ['address', 'address']],
  GetTensorMutableData: [51, ['address', 'address']],
  CastTypeInfoToTensorInfo: [55, ['address', 'address']],
  GetTensorElementType: [60, ['address', 'address']],
  GetDimensionsCount: [61, ['address', 'address']],
  GetDimensions: [62, ['address', 'address', 'size']],
  GetTensorTypeAndShape: [65, ['address', 'address']],
  CreateTensorAsOrtValue: [48, ['address', 'address', 'size', 'int32', 'address']],
  CreateMemoryInfo: [68, ['address', 'int32', 'int32', 'int32', 'address']],
  CreateCpuMemoryInfo: [69, ['int32', 'int32', 'address']],
  AllocatorFree: [76, ['address', 'address']],
  GetAllocatorWithDefaultOptions: [78, ['address']],
  AddSessionConfigEntry: [130, ['address', 'address', 'address']],
  CreateAllocator: [131, ['address', 'address', 'address']],
  AddInitializer: [150, ['address', 'address', 'address']],
  AddExternalInitializers: [210, ['address', 'address', 'address', 'size']],
  SessionOptionsAppendExecutionProvider: [216, ['address', 'address', 'address', 'address', 'size']],
} as const satisfies Record<string, readonly [number, readonly ParameterType[]]>

/** Functions that free one object and cannot fail. */
const release = {
  ReleaseStatus: 93,
  ReleaseMemoryInfo: 94,
  ReleaseSession: 95,
  ReleaseValue: 96,
  ReleaseRunOptions: 97,
  ReleaseTypeInfo: 98,
  ReleaseTensorTypeAndShapeInfo: 99,
  ReleaseSessionOptions: 100,
  ReleaseAllocator: 132,
} as const satisfies Record<string, number>

const getErrorMessage = 2

export type Api = Readonly<Record<keyof typeof fallible | keyof typeof release, NativeFunction>>
type Runtime = {
  api: Api
  environment: Address
  cpuMemory: Address // OrtMemoryInfo of plain memory
  allocator: Address // the default OrtAllocator
}

let loaded: { api: Api; errorMessage: NativeFunction } | undefined
let started: Runtime | undefined

/**
 * ONNX Runtime, loaded on first use and kept for the life of the process. Nothing leaves this computer: its telemetry is switched off.
 *
 * @throws Error when there is no library for this platform, or it is older than the table version used here
 */
export function onnxRuntime(): Runtime {
  if (started === undefined) {
    const { api } = load()
    const name = nativeText('llava-ts')
    process.env[telemetrySwitch] = '1'
    const environment = created('start ONNX Runtime', (out) => api.CreateEnv(fatalOnly, name, out))
    // In a worker thread `process.env` is a copy that native code does not see.
    check(api.DisableTelemetryEvents(environment), 'switch off the telemetry of ONNX Runtime')
    started = {
      api,
      environment,
      cpuMemory: created('describe CPU memory', (out) => api.CreateCpuMemoryInfo(0, 0, out)),
      allocator: created('get the default allocator', (out) => api.GetAllocatorWithDefaultOptions(out)),
    }
  }
  return started
}

/** Frees a returned status; throws an Error `Cannot <action>: <ONNX Runtime's words>` unless it says success. */
export function check(status: Address, action: string): void {
  if (status === 0n) return
  const { api, errorMessage } = load()
  const message = textAt(errorMessage(status)).trim().replace(/\.$/, '')
  api.ReleaseStatus(status)
  throw new Error(`Cannot ${action}: ${message}`)
}

/** Calls a function that hands back one pointer, count or enumeration value through its last parameter. */
export function created(action: string, call: (out: BigUint64Array) => Address): Address {
  const out = new BigUint64Array(1)
  check(call(out), action)
  return out[0] ?? 0n
}

function load(): { api: Api; errorMessage: NativeFunction } {
  if (loaded === undefined) {
    const table = functionTable()
    const entries: [string, NativeFunction][] = []
    for (const [name, [index, parameters]] of Object.entries(fallible)) {
      entries.push([name, functionAt(pointerAt(table, index), { parameters, result: 'address' })])
    }
    for (const [name, index] of Object.entries(release)) {
      entries.push([name, functionAt(pointerAt(table, index), { parameters: ['address'], result: 'void' })])
    }
    const errorMessage = functionAt(pointerAt(table, getErrorMessage), { parameters: ['address'], result: 'address' })
    loaded = { api: Object.fromEntries(entries) as Api, errorMessage }
  }
  return loaded
}

/** OrtGetApiBase() → { GetApi(version), GetVersionString() } → the function table. */
function functionTable(): Address {
  const path = findLibrary()
  const base = functionAt(symbolAddress(path, 'OrtGetApiBase'), { parameters: [], result: 'address' })()
  const getApi = functionAt(pointerAt(base, 0), { parameters: ['uint32'], result: 'address' })
  const table = getApi(apiVersion)
  if (table === 0n) {
    const version = textAt(functionAt(pointerAt(base, 1), { parameters: [], result: 'address' })())
    throw new Error(`Cannot use ONNX Runtime ${version} at ${path}: expected 1.${apiVersion} or newer`)
  }
  return table
}
