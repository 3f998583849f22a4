/** Element types of tensors: their ONNX codes (onnx.proto, TensorProto.DataType) and the typed arrays that hold them. */

/** float16 and bfloat16 are held as their bit patterns; a bool is one byte, 0 or 1. */
export type TypedArrays = {
  float32: Float32Array
  float16: Uint16Array
  bfloat16: Uint16Array
  int32: Int32Array
  int64: BigInt64Array
  uint8: Uint8Array
  int8: Int8Array
  bool: Uint8Array
}
export type ElementType = keyof TypedArrays
export type TypedArray = TypedArrays[ElementType]

type ElementFormat = {
  code: number
  bytes: number
  array: new (buffer: ArrayBufferLike, byteOffset?: number, length?: number) => TypedArray
}

const formats: Readonly<Record<ElementType, ElementFormat>> = {
  float32: { code: 1, bytes: 4, array: Float32Array },
  uint8: { code: 2, bytes: 1, array: Uint8Array },
  int8: { code: 3, bytes: 1, array: Int8Array },
  int32: { code: 6, bytes: 4, array: Int32Array },
  int64: { code: 7, bytes: 8, array: BigInt64Array },
  bool: { code: 9, bytes: 1, array: Uint8Array },
  float16: { code: 10, bytes: 2, array: Uint16Array },
  bfloat16: { code: 16, bytes: 2, array: Uint16Array },
}

const names = new Map((Object.keys(formats) as ElementType[]).map((dtype) => [formats[dtype].code, dtype]))

/** How an element type is stored. Throws a TypeError when the name is not an element type. */
export function elementFormat(dtype: ElementType): ElementFormat {
  const format = Object.hasOwn(formats, dtype) ? formats[dtype] : undefined
  if (format === undefined) {
    throw new TypeError(`Cannot store elements of type ${dtype}: expected one of ${Object.keys(formats).join(', ')}`)
  }
  return format
}

/** The element type of an ONNX code, or undefined when typed arrays cannot hold it (text, float64, 4 bits). */
export function elementTypeOf(code: number): ElementType | undefined {
  return names.get(code)
}

/** The number of elements of a shape. Throws a RangeError when a dimension is not a whole number from 0 up. */
export function elementCount(shape: readonly number[]): number {
  const count = shape.reduce((product, size) => product * size, 1)
  if (!shape.every((size) => Number.isSafeInteger(size) && size >= 0) || !Number.isSafeInteger(count)) {
    throw new RangeError(`Cannot use shape [${shape.join(', ')}]: expected whole numbers from 0 up`)
  }
  return count
}
