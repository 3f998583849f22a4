import { describe, expect, test } from 'vitest'
import { sumsSaturate } from '../runtime/integer-sums.ts'
import { quantizeBlocks, quantizeRows, restoreBlocks, restoreRows } from '../runtime/quantize.ts'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import {
  fromBlocks,
  fromChannels,
  gatherRows,
  input,
  linear,
  parameter,
  type Tensor,
  widen,
  writeOnnx,
} from './index.ts'

/** Normal numbers; one in a hundred is an outlier. */
function numbers(count: number, seed: number): Float32Array {
  let state = seed
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state + 1) / 4294967297
  }
  return Float32Array.from({ length: count }, () => {
    const value = Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())
    return uniform() < 0.01 ? 12 * value : value
  })
}

function transposed(values: Int8Array, width: number): Int8Array {
  const rows = values.length / width
  return Int8Array.from(values, (_, i) => values[(i % rows) * width + Math.floor(i / rows)]!)
}

type Stored = { weight: Tensor; tensors: Record<string, ResidentTensor>; restored: Float32Array }

function stored(kind: string, weight: Float32Array, [out, width]: readonly [number, number]): Stored {
  if (kind.startsWith('channels')) {
    const { values, scales } = quantizeRows(weight, width, { most: kind === 'channels of 7 bits' ? 64 : 127 })
    const codes = transposed(values, width)
    const dtype = kind === 'channels, unsigned' ? 'uint8' : 'int8'
    return {
      weight: fromChannels({ values: parameter('v', [width, out], dtype), scales: parameter('s', [out]) }),
      tensors: {
        v:
          dtype === 'int8'
            ? residentTensor('int8', [width, out], { data: codes })
            : residentTensor('uint8', [width, out], { data: Uint8Array.from(codes, (code) => code + 128) }),
        s: residentTensor('float32', [out], { data: scales }),
      },
      restored: restoreRows({ values, scales }),
    }
  }
  const [bits, block] = kind.split(' ').map(Number) as [4 | 8, number]
  const format = { bits, block, width }
  const { values, scales } = quantizeBlocks(weight, format)
  const blocks = Math.ceil(width / block)
  const shape = [out, blocks, (block * bits) / 8]
  return {
    weight: fromBlocks({ values: parameter('v', shape, 'uint8'), scales: parameter('s', [out, blocks]) }, format),
    tensors: {
      v: residentTensor('uint8', shape, { data: values }),
      s: residentTensor('float32', [out, blocks], { data: scales }),
    },
    restored: restoreBlocks({ values, scales }, format),
  }
}

async function compute(
  output: Tensor,
  {
    tensors,
    inputs,
    parameters = 'initializers',
  }: { tensors: Stored['tensors']; inputs: Stored['tensors']; parameters?: 'initializers' | 'replaceable' },
) {
  const session = await createSession(writeOnnx({ y: output }, { parameters }).model, {
    threads: 1,
    initializers: tensors,
  })
  expect(session.inputNames).toEqual(Object.keys(inputs))
  const { y } = await run(session, inputs)
  await disposeSession(session)
  return y!
}

function product(x: Float32Array, weight: Float32Array, { width, bias }: { width: number; bias: Float32Array }) {
  const out = bias.length
  return Float32Array.from({ length: (x.length / width) * out }, (_, i) => {
    const [row, column] = [Math.floor(i / out), i % out]
    let sum = bias[column]!
    for (let k = 0; k < width; k++) sum += x[row * width + k]! * weight[column * width + k]!
    return sum
  })
}

function relativeError(found: ArrayLike<number>, expected: Float32Array): number {
  let [error, size] = [0, 0]
  for (let i = 0; i < expected.length; i++) {
    error += (found[i]! - expected[i]!) ** 2
    size += expected[i]! ** 2
  }
  return Math.sqrt(error / size)
}

const kinds = ['channels, unsigned', 'channels of 7 bits', '4 32', '4 128', '8 128']

// Signed codes of 8 bits are only for processors that add up their products exactly.
describe.each(sumsSaturate() ? kinds : ['channels', ...kinds])('a weight stored as %s', (kind) => {
  // 160 is no multiple of 128: the last block of a row is filled up.
  const [out, width] = [48, 160]
  const weight = numbers(out * width, 1)

  test('multiplies like the float32 weight that its codes stand for', async () => {
    const { weight: symbol, tensors, restored } = stored(kind, weight, [out, width])
    const x = numbers(2 * 3 * width, 2)
    const bias = numbers(out, 3)
    const y = await compute(
      linear(input('x', 'float32', ['B', 'L', width]), { weight: symbol, bias: parameter('b', [out]) }),
      {
        tensors: { ...tensors, b: residentTensor('float32', [out], { data: bias }) },
        inputs: { x: residentTensor('float32', [2, 3, width], { data: x }) },
      },
    )
    expect(y.shape).toEqual([2, 3, out])
    // What is left is the rounding of the activations to 8 bits, here with outliers of 30 deviations: steps of a quarter of one
    expect(relativeError(y.data as Float32Array, product(x, restored, { width, bias }))).toBeLessThan(0.05)
  })

  test('multiplies alike whether it is repacked or used as it lies', async () => {
    const { weight: symbol, tensors } = stored(kind, weight, [out, width])
    const inputs = { x: residentTensor('float32', [9, width], { data: numbers(9 * width, 5) }) }
    const output = linear(input('x', 'float32', ['L', width]), { weight: symbol })
    const [packed, lying] = [
      await compute(output, { tensors, inputs }),
      await compute(output, { tensors, inputs, parameters: 'replaceable' }),
    ]
    // Sums of integers are the same to the bit; blocks that are not repacked are multiplied in float32.
    if (kind.startsWith('channels')) expect(lying.data).toEqual(packed.data)
    else expect(relativeError(lying.data as Float32Array, packed.data as Float32Array)).toBeLessThan(0.05)
  })

  test('does not overflow where all numbers are near the largest', async () => {
    const even = weight.map((_, i) => 1 + 0.001 * Math.sin(i))
    const { weight: symbol, tensors, restored } = stored(kind, even, [out, width])
    const x = even.slice(0, width).map((_, i) => (i % 3 === 0 ? -1 : 1))
    const y = await compute(linear(input('x', 'float32', [1, width]), { weight: symbol }), {
      tensors,
      inputs: { x: residentTensor('float32', [1, width], { data: x }) },
    })
    const expected = product(x, restored, { width, bias: new Float32Array(out) })
    expect(relativeError(y.data as Float32Array, expected)).toBeLessThan(0.01)
  })

  test('keeps each token apart: a huge one does not drown a small one', async () => {
    const { weight: symbol, tensors, restored } = stored(kind, weight, [out, width])
    const x = numbers(2 * width, 4).map((value, i) => (i < width ? value * 1e4 : value))
    const y = await compute(linear(input('x', 'float32', [2, width]), { weight: symbol }), {
      tensors,
      inputs: { x: residentTensor('float32', [2, width], { data: x }) },
    })
    const expected = product(x, restored, { width, bias: new Float32Array(out) })
    expect(relativeError((y.data as Float32Array).slice(out), expected.slice(out))).toBeLessThan(0.05)
  })

  test('a token of zeros stays zero', async () => {
    const { weight: symbol, tensors } = stored(kind, weight, [out, width])
    const y = await compute(linear(input('x', 'float32', [1, width]), { weight: symbol }), {
      tensors,
      inputs: { x: residentTensor('float32', [1, width]) },
    })
    expect([...(y.data as Float32Array)].every((value) => value === 0)).toBe(true)
  })

  test('stands for the float32 weight where an operator does not know it', async () => {
    const { weight: symbol, tensors, restored } = stored(kind, weight, [out, width])
    const y = await compute(symbol, { tensors, inputs: {} })
    expect(y.shape).toEqual([out, width])
    expect(relativeError(y.data as Float32Array, restored)).toBeLessThan(1e-6)
  })
})

test.each(['4 32', '8 128'])('rows of a table stored as %s are the rows of the float32 table', async (kind) => {
  const [out, width] = [20, 160]
  const { weight, tensors, restored } = stored(kind, numbers(out * width, 5), [out, width])
  const y = await compute(gatherRows(weight, input('ids', 'int64', ['B', 'L'])), {
    tensors,
    inputs: { ids: residentTensor('int64', [2, 2], { data: BigInt64Array.of(3n, 0n, 19n, 3n) }) },
  })
  expect(y.shape).toEqual([2, 2, width])
  const expected = [3, 0, 19, 3].flatMap((row) => [...restored.slice(row * width, (row + 1) * width)])
  expect(relativeError(y.data as Float32Array, Float32Array.from(expected))).toBeLessThan(1e-6)
})

test('a float16 weight multiplies and is looked up as float32', async () => {
  const half = { w: residentTensor('float16', [2, 2], { data: Uint16Array.of(0x3c00, 0x4000, 0xbc00, 0x3800) }) } // 1 2 −1 0.5
  const weight = widen(parameter('w', [2, 2], 'float16'))
  const x = residentTensor('float32', [1, 2], { data: Float32Array.of(3, 5) })
  const y = await compute(linear(input('x', 'float32', [1, 2]), { weight }), { tensors: half, inputs: { x } })
  expect([...(y.data as Float32Array)]).toEqual([13, -0.5])
  const ids = residentTensor('int64', [1], { data: BigInt64Array.of(1n) })
  const rows = await compute(gatherRows(weight, input('ids', 'int64', [1])), { tensors: half, inputs: { ids } })
  expect([...(rows.data as Float32Array)]).toEqual([-1, 0.5])
})

describe('codes', () => {
  test.each([32, 128] as const)('blocks of %i: a searched scale errs less than that of the largest number', (block) => {
    const weight = numbers(64 * 256, 6)
    const format = { bits: 4, block, width: 256 } as const
    const searched = relativeError(restoreBlocks(quantizeBlocks(weight, format), format), weight)
    const plain = weight.map((_, i) => {
      const start = Math.floor(i / block) * block
      const extreme = weight.slice(start, start + block).reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a))
      const scale = extreme / -8
      return Math.max(-8, Math.min(7, Math.round(weight[i]! / scale))) * scale
    })
    expect(searched).toBeLessThan(relativeError(plain, weight))
  })

  test('8 bits lose less than half a step of the largest number of the row', () => {
    const weight = numbers(8 * 64, 7)
    const restored = restoreRows(quantizeRows(weight, 64))
    for (let row = 0; row < 8; row++) {
      const part = weight.slice(row * 64, row * 64 + 64)
      const step = Math.max(...part.map(Math.abs)) / 127
      part.forEach((value, i) => {
        expect(Math.abs(restored[row * 64 + i]! - value)).toBeLessThanOrEqual(step * 0.5001)
      })
    }
  })

  test('numbers too small or too many for codes do not become NaN', () => {
    const format = { bits: 4, block: 32, width: 32 } as const
    for (const value of [0, 1e-45, 3e38]) {
      const { scales } = quantizeBlocks(new Float32Array(32).fill(value), format)
      expect(Number.isFinite(scales[0])).toBe(true)
    }
  })
})
