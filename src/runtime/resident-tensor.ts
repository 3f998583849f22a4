/**
 * Resident tensors: typed arrays that JavaScript and ONNX Runtime share without copying.
 *
 * The array's memory never moves, so a session reads and writes it in place for as long as the tensor is used:
 * weights, optimizer state and the KV cache stay where they are from run to run.
 */
import { created, onnxRuntime } from './api.ts'
import { type Device, inTurn } from './device.ts'
import { type ElementType, elementCount, elementFormat, type TypedArray, type TypedArrays } from './element-type.ts'
import { type Address, addressOf } from './foreign-functions.ts'

const handleKey: unique symbol = Symbol('handle')

export type ResidentTensor<D extends ElementType = ElementType> = {
  readonly dtype: D
  readonly shape: readonly number[]
  /** The elements in row-major order; what is written here is what the next run reads. Do not transfer its buffer. */
  readonly data: TypedArrays[D]
  readonly [handleKey]: Handle
}

/** A tensor in the memory of a GPU: sessions read and write it there; `run` copies it to and from a resident tensor. */
export type DeviceTensor<D extends ElementType = ElementType> = {
  readonly dtype: D
  readonly shape: readonly number[]
  readonly [handleKey]: Handle
}

/** Whatever a session can read and write. */
export type SessionTensor<D extends ElementType = ElementType> = ResidentTensor<D> | DeviceTensor<D>

/** ONNX Runtime's side of a tensor. It outlives a dispose until the last run that uses it has returned. */
type Handle = {
  value: Address
  elements: number
  uses: number
  disposed: boolean
  device: Device
  /** All tensors of the same device memory; none outlives it. */
  siblings: Set<Handle> | undefined
}

/** Memory of a GPU that tensors are made in, and those that are there. */
export type DeviceMemory = { readonly allocator: Address; readonly tensors: Set<Handle> }

/** Where ONNX Runtime's own allocator puts tensors too: one cache line, one AVX-512 register. */
const alignment = 64

/** Frees what was forgotten; disposing is the normal way. */
const forgotten = new FinalizationRegistry<Handle>(releaseHandle)

/**
 * A tensor over `data`, or over new memory filled with zeros.
 *
 * @param dtype the element type
 * @param shape dimensions, each a whole number from 0 up; `[]` is a scalar
 * @param options `data`: a typed array of the element type with exactly as many elements as the shape
 * @throws TypeError when the array's type does not fit, RangeError when its length or the shape does not
 */
export function residentTensor<D extends ElementType>(
  dtype: D,
  shape: readonly number[],
  options: { data?: TypedArrays[D] } = {},
): ResidentTensor<D> {
  const format = elementFormat(dtype)
  const elements = elementCount(shape)
  const data: TypedArray = options.data ?? alignedArray(dtype, elements)
  if (!(data instanceof format.array)) {
    throw new TypeError(`Cannot make a ${dtype} tensor over ${typeName(data)}: expected ${format.array.name}`)
  }
  if (data.length !== elements) {
    throw new RangeError(
      `Cannot make a tensor of shape [${shape.join(', ')}]: data has ${data.length} elements, expected ${elements}`,
    )
  }
  const { api, cpuMemory } = onnxRuntime()
  const dimensions = BigInt64Array.from(shape, BigInt)
  // An empty array may have no address, which ONNX Runtime refuses; nothing is read or written through this one.
  const start = elements === 0 ? dimensionsOfNothing : data
  const value = created(`make a ${dtype} tensor of shape [${shape.join(', ')}]`, (out) =>
    api.CreateTensorWithDataAsOrtValue(
      cpuMemory,
      addressOf(start),
      data.byteLength,
      dimensions,
      shape.length,
      format.code,
      out,
    ),
  )
  return withHandle({ dtype, shape: Object.freeze([...shape]), data: data as TypedArrays[D] }, { value, elements })
}

/** A tensor of zeros or of whatever was there before, in memory that a GPU's allocator gives. Call it in turn with the work of the device. */
export function tensorFrom<D extends ElementType>(
  { allocator, tensors }: DeviceMemory,
  { dtype, shape }: { dtype: D; shape: readonly number[] },
): DeviceTensor<D> {
  const { code } = elementFormat(dtype)
  const dimensions = BigInt64Array.from(shape, BigInt)
  const value = created(`make a ${dtype} tensor of shape [${shape.join(', ')}] on the device`, (out) =>
    onnxRuntime().api.CreateTensorAsOrtValue(allocator, dimensions, shape.length, code, out),
  )
  const description = { dtype, shape: Object.freeze([...shape]) }
  return withHandle(description, { value, elements: elementCount(shape), siblings: tensors })
}

/** Frees whatever is left of a device's memory before its allocator goes. Call it in turn, when no run uses it any more. */
export function releaseTensors({ tensors }: DeviceMemory): void {
  for (const handle of tensors) {
    handle.disposed = true
    forgotten.unregister(handle)
    releaseValue(handle)
  }
}

function withHandle<T extends object>(
  description: T,
  { value, elements, siblings }: { value: Address; elements: number; siblings?: Set<Handle> },
): T & { readonly [handleKey]: Handle } {
  const device = siblings === undefined ? 'cpu' : 'webgpu'
  const handle: Handle = { value, elements, uses: 0, disposed: false, device, siblings }
  siblings?.add(handle)
  const tensor = { ...description, [handleKey]: handle }
  Object.defineProperty(tensor, handleKey, { enumerable: false })
  forgotten.register(tensor, handle, handle)
  return Object.freeze(tensor)
}

/**
 * A tensor over a stretch of another tensor's memory, for example one row of a batched cache.
 *
 * It has its own life: disposing either leaves the other usable.
 *
 * @param options `offset`: first element, counted in elements; `shape`: dimensions of the view
 * @throws RangeError when the stretch does not lie inside the tensor
 */
export function view<D extends ElementType>(
  tensor: ResidentTensor<D>,
  options: { offset: number; shape: readonly number[] },
): ResidentTensor<D> {
  const { offset, shape } = options
  expectUsable(tensor, 'view tensor')
  const elements = elementCount(shape)
  if (!Number.isSafeInteger(offset) || offset < 0 || offset + elements > tensor.data.length) {
    throw new RangeError(
      `Cannot view tensor: elements ${offset} to ${offset + elements} do not lie inside its ${tensor.data.length}`,
    )
  }
  return residentTensor(tensor.dtype, shape, {
    data: tensor.data.subarray(offset, offset + elements) as TypedArrays[D],
  })
}

/** Frees ONNX Runtime's side of a tensor, after the runs that still use it. Its `data` stays readable. Safe to repeat. */
export function disposeTensor(tensor: SessionTensor): void {
  const handle = tensor[handleKey]
  if (handle.disposed) return
  handle.disposed = true
  forgotten.unregister(handle)
  if (handle.uses === 0) releaseHandle(handle)
}

/**
 * Keeps a tensor's OrtValue alive until it is given back; for calls into ONNX Runtime only.
 *
 * @throws Error when the tensor is disposed or its memory has been taken away (transferred to another thread)
 */
export function borrowValue(tensor: SessionTensor, action: string): Address {
  const handle = expectUsable(tensor, action)
  handle.uses++
  return handle.value
}

/** The end of a `borrowValue`. */
export function giveBackValue(tensor: SessionTensor): void {
  const handle = tensor[handleKey]
  handle.uses--
  if (handle.disposed && handle.uses === 0) releaseHandle(handle)
}

const dimensionsOfNothing = new BigInt64Array(1)

function expectUsable(tensor: SessionTensor, action: string): Handle {
  const handle = tensor[handleKey]
  if (handle.disposed) throw new Error(`Cannot ${action}: the tensor is disposed`)
  if ('data' in tensor && tensor.data.length !== handle.elements) {
    throw new Error(`Cannot ${action}: the tensor's memory is gone, its buffer was transferred or resized`)
  }
  return handle
}

/** Memory of a GPU is given back between its runs, never during one. */
function releaseHandle(handle: Handle): void {
  void inTurn(handle.device, async () => releaseValue(handle))
}

function releaseValue(handle: Handle): void {
  if (handle.value !== 0n) onnxRuntime().api.ReleaseValue(handle.value)
  handle.value = 0n
  handle.siblings?.delete(handle)
}

/** New memory filled with zeros. It is taken outside of V8's heap, where garbage collection moves nothing. */
function alignedArray(dtype: ElementType, elements: number): TypedArray {
  const { bytes, array } = elementFormat(dtype)
  const buffer = new ArrayBuffer(elements * bytes + alignment)
  const misaligned = Number(addressOf(new Uint8Array(buffer)) % BigInt(alignment))
  return new array(buffer, misaligned === 0 ? 0 : alignment - misaligned, elements)
}

function typeName(value: unknown): string {
  return value instanceof Object ? value.constructor.name : typeof value
}
