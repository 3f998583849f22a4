/** Activations in 8 bits, for products of integers: a scale per token, and the channels with the outliers kept apart (see `productOfIntegers`). */

import { knownDim } from './shape.ts'
import { apply, applyAll, type Tensor } from './tensor.ts'

/** The code of 8 bits that stands for 0. */
export const middle = 128
const smallest = 1e-20

/** Channels that are multiplied in float32: enough for the outliers that were found in trained models, next to nothing of the work. */
function countOutliers(width: number): number {
  return Math.min(32, Math.max(1, Math.floor(width / 32)))
}

type TokenCodes = {
  readonly codes: Tensor // uint8 [.., In], the middle code in the outlier channels
  readonly scale: Tensor // float32 [.., 1]
  readonly channels: Tensor // int64 [k], those with the outliers
  readonly outliers: Tensor // float32 [.., k]
}

const known = new WeakMap<Tensor, TokenCodes>()

/** Each token's numbers as 8 bits, but for the channels with the largest numbers of all tokens. Made once, however many layers read x. */
export function codesOfTokens(x: Tensor): TokenCodes {
  const before = known.get(x)
  if (before !== undefined) return before
  const width = knownDim(x.shape.at(-1), 'the width of the input of a linear layer')
  const count = countOutliers(width)
  const leading = x.shape.slice(0, -1)
  const [channels, outliers, rest] = applyAll({
    operator: 'outlierChannels',
    inputs: [x],
    outputs: [
      { dtype: 'int64', shape: [count] },
      { dtype: 'float32', shape: [...leading, count] },
      { dtype: 'float32', shape: x.shape },
    ],
    onnx: (emit, [numbers = ''], [channel = '', large = '', small = '']) => {
      const [size, largest, ranked, kept] = [emit.value(), emit.value(), emit.value(), emit.value()]
      emit.node('Abs', [numbers], [size])
      emit.node('ReduceMax', [size, emit.integers(leading.map((_, axis) => axis))], [largest], {
        attributes: { keepdims: 0 },
      })
      emit.node('TopK', [largest, emit.integers([count])], [ranked, channel])
      emit.node('Gather', [numbers, channel], [large], { attributes: { axis: -1 } })
      const ones = emit.constant('float32', [width], new Float32Array(width).fill(1))
      const zeros = emit.constant('float32', [count], new Float32Array(count))
      emit.node('ScatterElements', [ones, channel, zeros], [kept])
      emit.node('Mul', [numbers, kept], [small])
    },
  })
  if (channels === undefined || outliers === undefined || rest === undefined) throw new Error('Outliers have no output')
  const scale = apply({
    operator: 'scaleOfTokens',
    inputs: [rest],
    dtype: 'float32',
    shape: [...leading, 1],
    onnx: (emit, inputs, outputs) => {
      const [size, largest, shrunk] = [emit.value(), emit.value(), emit.value()]
      emit.node('Abs', inputs, [size])
      emit.node('ReduceMax', [size, emit.integers([-1])], [largest], { attributes: { keepdims: 1 } })
      emit.node('Mul', [largest, emit.constant('float32', [], Float32Array.of(1 / 127))], [shrunk])
      emit.node('Max', [shrunk, emit.constant('float32', [], Float32Array.of(smallest))], outputs) // a token of zeros
    },
  })
  const codes = apply({
    operator: 'codesOfTokens',
    inputs: [rest, scale],
    dtype: 'uint8',
    shape: x.shape,
    onnx: (emit, inputs, outputs) => {
      const scaled = emit.value()
      const one = emit.constant('float32', [], Float32Array.of(1))
      emit.node('Div', inputs, [scaled])
      emit.node('QuantizeLinear', [scaled, one, emit.constant('uint8', [], Uint8Array.of(middle))], outputs)
    },
  })
  const result = { codes, scale, channels, outliers }
  known.set(x, result)
  return result
}
