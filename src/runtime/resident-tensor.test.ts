import { describe, expect, test } from 'vitest'
import type { ElementType } from './element-type.ts'
import { addressOf } from './foreign-functions.ts'
import { disposeTensor, type ResidentTensor, residentTensor, view } from './resident-tensor.ts'

describe('residentTensor', () => {
  test.each([
    ['float32', Float32Array],
    ['float16', Uint16Array],
    ['bfloat16', Uint16Array],
    ['int32', Int32Array],
    ['int64', BigInt64Array],
    ['uint8', Uint8Array],
    ['int8', Int8Array],
    ['bool', Uint8Array],
  ] as const)('holds %s as zeros in a fitting, aligned array', (dtype, array) => {
    const tensor = residentTensor(dtype, [2, 3])
    expect(tensor.data).toBeInstanceOf(array)
    expect(Array.from(tensor.data, Number)).toEqual([0, 0, 0, 0, 0, 0])
    expect(addressOf(tensor.data) % 64n).toBe(0n)
    disposeTensor(tensor)
  })

  test('takes the given array itself, not a copy', () => {
    const data = Float32Array.of(1, 2, 3)
    expect(residentTensor('float32', [3], { data }).data).toBe(data)
  })

  test('may be a scalar or empty', () => {
    expect(residentTensor('float32', []).data.length).toBe(1)
    expect(residentTensor('float32', [0, 4]).data.length).toBe(0)
    expect(residentTensor('int64', [2, 0], { data: new BigInt64Array(0) }).shape).toEqual([2, 0])
  })

  test('keeps its address when memory is under pressure', () => {
    const tensors = Array.from({ length: 200 }, (_, size) => residentTensor('float32', [size % 20]))
    const given = Array.from({ length: 50 }, (_, size) => new Float32Array(size % 20))
    tensors.push(...given.map((data) => residentTensor('float32', [data.length], { data })))
    const before = tensors.map(({ data }) => addressOf(data))
    let garbage: number[][] = []
    for (let round = 0; round < 300; round++)
      garbage = [...garbage.slice(-20), Array.from({ length: 10_000 }, Math.random)]
    expect(garbage.length).toBeGreaterThan(0)
    expect(tensors.map(({ data }) => addressOf(data))).toEqual(before)
  })

  test('refuses what does not fit', () => {
    const data = new Float32Array(3)
    expect(() => residentTensor('float32', [2, 2], { data })).toThrow(
      new RangeError('Cannot make a tensor of shape [2, 2]: data has 3 elements, expected 4'),
    )
    expect(() => residentTensor('int32', [3], { data: data as never })).toThrow(
      new TypeError('Cannot make a int32 tensor over Float32Array: expected Int32Array'),
    )
    expect(() => residentTensor('float64' as ElementType, [3])).toThrow(TypeError)
    for (const shape of [[-1], [1.5], [Number.NaN], [2 ** 30, 2 ** 30]]) {
      expect(() => residentTensor('float32', shape)).toThrow(RangeError)
    }
  })
})

describe('view', () => {
  test('shares a stretch of the memory and outlives its parent', () => {
    const cache = residentTensor('float32', [3, 4])
    const row = view(cache, { offset: 4, shape: [1, 4] })
    row.data.fill(7)
    expect([...cache.data]).toEqual([0, 0, 0, 0, 7, 7, 7, 7, 0, 0, 0, 0])
    disposeTensor(cache)
    expect([...view(row, { offset: 2, shape: [2] }).data]).toEqual([7, 7])
  })

  test('may be empty at the end, but not reach past it', () => {
    const tensor = residentTensor('int8', [8])
    expect(view(tensor, { offset: 8, shape: [0] }).data.length).toBe(0)
    expect(() => view(tensor, { offset: 5, shape: [2, 2] })).toThrow(
      new RangeError('Cannot view tensor: elements 5 to 9 do not lie inside its 8'),
    )
    expect(() => view(tensor, { offset: -1, shape: [1] })).toThrow(RangeError)
    expect(() => view(tensor, { offset: 0.5, shape: [1] })).toThrow(RangeError)
  })
})

describe('disposeTensor', () => {
  test('may be repeated and leaves the data readable', () => {
    const tensor: ResidentTensor = residentTensor('int32', [2], { data: Int32Array.of(5, 6) })
    disposeTensor(tensor)
    disposeTensor(tensor)
    expect([...tensor.data]).toEqual([5, 6])
    expect(() => view(tensor, { offset: 0, shape: [1] })).toThrow('Cannot view tensor: the tensor is disposed')
  })
})
