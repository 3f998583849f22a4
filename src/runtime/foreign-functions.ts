/**
 * The one door to native code: opens a library, reads memory and calls functions by address, through koffi.
 *
 * Nothing else in this project names koffi, and everything that crosses is a number, an address or a typed array
 * passed by its address, so that Node's own `node:ffi` can take koffi's place behind these same functions.
 */
import koffi from 'koffi'

// Calls run on stacks of koffi's own, 128 KiB in the background unless told: too small for the shader compilers of GPU drivers.
koffi.config({ async_stack_size: 2 * 1024 * 1024 })

/** A native address; 0n is the null pointer. */
export type Address = bigint
export type ParameterType = 'address' | 'int32' | 'uint32' | 'size'
/** A typed array stands for the address of its first byte; the native side reads and writes it in place. */
export type NativeValue = Address | number | ArrayBufferView
export type Signature = { readonly parameters: readonly ParameterType[]; readonly result: 'address' | 'void' }
export type NativeFunction = {
  /** Calls at once, on this thread. */
  (...values: NativeValue[]): Address
  /** Calls on a worker thread. `signal` only ends the waiting for a free thread; a call that has begun runs to its end. */
  inBackground(values: readonly NativeValue[], options?: { signal?: AbortSignal | undefined }): Promise<Address>
}

/**
 * Background calls share the worker threads of Node's file system, name lookup and sharp: four unless the user
 * says otherwise. One always stays free for them; further calls wait here in order.
 */
const threadLimit = 3
let threadsInUse = 0
const waiting: (() => void)[] = []

/** What native calls under way may touch; listed here so that garbage collection leaves it alone. */
const inUse = new Set<readonly NativeValue[]>()

/** Libraries stay loaded for the life of the process: an unloaded library turns every later call into a crash. */
const libraries = new Map<string, ReturnType<typeof koffi.load>>()

const targets = new WeakMap<BigUint64Array, readonly ArrayBufferView[]>()

const typeNames = { address: 'void *', int32: 'int32_t', uint32: 'uint32_t', size: 'size_t', void: 'void' } as const

/** Opens a library (once) and returns the address of one of its symbols. */
export function symbolAddress(path: string, symbol: string): Address {
  let library = libraries.get(path)
  if (library === undefined) {
    library = koffi.load(path)
    libraries.set(path, library)
  }
  return toAddress(library.symbol(symbol))
}

/** Makes the native function at an address callable. */
export function functionAt(address: Address, signature: Signature): NativeFunction {
  const parameters = signature.parameters.map((type) => typeNames[type])
  const native = koffi.decode(address, koffi.proto(typeNames[signature.result], parameters))
  const call = (...values: NativeValue[]): Address => toAddress(native(...values))
  const inBackground: NativeFunction['inBackground'] = async (values, options = {}) => {
    await takeThread(options.signal)
    inUse.add(values)
    try {
      return await new Promise<Address>((resolve, reject) => {
        native.async(...values, (error: unknown, result: unknown) =>
          error ? reject(error) : resolve(toAddress(result)),
        )
      })
    } finally {
      inUse.delete(values)
      giveThread()
    }
  }
  return Object.assign(call, { inBackground })
}

/** The address of a typed array's first byte; valid for as long as the array is reachable. */
export function addressOf(array: ArrayBufferView): Address {
  return koffi.address(array)
}

/** A native array of pointers to the arrays, which stay reachable as long as it does. */
export function pointersTo(arrays: readonly ArrayBufferView[]): BigUint64Array {
  const pointers = BigUint64Array.from(arrays, addressOf)
  targets.set(pointers, arrays)
  return pointers
}

/** The pointer stored at `address + 8 * index`. */
export function pointerAt(address: Address, index: number): Address {
  return toAddress(koffi.decode(address, 8 * index, 'void *'))
}

/** The NUL-terminated UTF-8 text at an address. */
export function textAt(address: Address): string {
  return koffi.decode.string(address)
}

/** A copy of the bytes at an address: nothing returned here dangles when the native side frees them. */
export function copyBytes(address: Address, target: Uint8Array): void {
  if (target.byteLength > 0) target.set(new Uint8Array(koffi.view(address, target.byteLength)))
}

/** A text as NUL-terminated UTF-8. */
export function nativeText(text: string): Uint8Array {
  return Buffer.from(`${text}\0`, 'utf8')
}

/** A file path as the platform's C functions take it: wide characters on Windows, UTF-8 elsewhere. */
export function nativePath(path: string): Uint8Array {
  return Buffer.from(`${path}\0`, process.platform === 'win32' ? 'utf16le' : 'utf8')
}

function toAddress(value: unknown): Address {
  return typeof value === 'bigint' ? value : 0n
}

async function takeThread(signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted()
  if (threadsInUse < threadLimit) {
    threadsInUse++
    return
  }
  await new Promise<void>((resolve, reject) => {
    const begin = () => {
      signal?.removeEventListener('abort', giveUp)
      resolve()
    }
    const giveUp = () => {
      waiting.splice(waiting.indexOf(begin), 1)
      reject(signal?.reason)
    }
    signal?.addEventListener('abort', giveUp, { once: true })
    waiting.push(begin)
  })
}

/** Hands the thread to the call that has waited longest. */
function giveThread(): void {
  const next = waiting.shift()
  if (next) next()
  else threadsInUse--
}
