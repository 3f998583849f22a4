/** Softmax, layer normalisation and root-mean-square normalisation, all over the last axis. */

import { type ReduceOptions, reshape, sum } from './broadcast.ts'
import { add, div, mul, scaleBy, sqrt, square, sub } from './elementwise.ts'
import { rows } from './layout.ts'
import { matmul } from './matmul.ts'
import { axisOf, expectShape, knownDim, type Shape } from './shape.ts'
import { apply, applyAll, scalar, type Tensor } from './tensor.ts'

/** Mean over `axes`, whose sizes must be known. */
export function mean(x: Tensor, options: ReduceOptions = {}): Tensor {
  const axes = (options.axes ?? x.shape.map((_, axis) => axis)).map((axis) => axisOf(axis, x.shape, 'mean'))
  const count = axes.reduce((total, axis) => total * knownDim(x.shape[axis], 'an averaged axis'), 1)
  return scaleBy(sum(x, options), 1 / count)
}

/** The largest size of a number in each channel: x [.., D] → [D]. For calibration; it has no gradient. */
export function largestOfChannels(x: Tensor): Tensor {
  return apply({
    operator: 'largestOfChannels',
    inputs: [x],
    dtype: x.dtype,
    shape: x.shape.slice(-1),
    onnx: (emit, inputs, outputs) => {
      const size = emit.value()
      emit.node('Abs', inputs, [size])
      const axes = emit.integers(x.shape.slice(0, -1).map((_, axis) => axis))
      emit.node('ReduceMax', [size, axes], outputs, { attributes: { keepdims: 0 } })
    },
  })
}

export function softmax(x: Tensor): Tensor {
  return apply({
    operator: 'softmax',
    inputs: [x],
    dtype: x.dtype,
    shape: x.shape,
    onnx: (emit, inputs, outputs) => emit.node('Softmax', inputs, outputs, { attributes: { axis: -1 } }),
    gradient: (g, y) => [mul(y, sub(g, sum(mul(g, y), { axes: [-1], keepDims: true })))],
  })
}

/** (x − mean) / √(variance + ε) · weight + bias: weight and bias [D]. */
export function layerNorm(
  x: Tensor,
  { weight, bias, epsilon }: { weight: Tensor; bias: Tensor; epsilon: number },
): Tensor {
  const width = x.shape.slice(-1)
  expectShape(weight.shape, width, 'Layer norm weight')
  expectShape(bias.shape, width, 'Layer norm bias')
  const [y] = applyAll({
    operator: 'layerNorm',
    inputs: [x, weight, bias],
    outputs: [x, { dtype: x.dtype, shape: oneAtEnd(x.shape) }, { dtype: x.dtype, shape: oneAtEnd(x.shape) }],
    onnx: (emit, inputs, [y = '', center = '', inverse = '']) => {
      const options = { attributes: { axis: -1, epsilon }, floats: ['epsilon'] }
      if (emit.operators === 'cpu') emit.node('LayerNormalization', inputs, [y, center, inverse], options)
      else {
        emit.node('LayerNormalization', inputs, [y], options)
        const average = mean(x, { axes: [-1], keepDims: true })
        if (center !== '') emit.node('Identity', [emit.tensor(average)], [center])
        if (inverse !== '') emit.node('Identity', [emit.tensor(inverseSize(sub(x, average), epsilon))], [inverse])
      }
    },
    gradient: ([g], [_, center, inverse]) => {
      if (g === undefined || center === undefined || inverse === undefined) return []
      const normal = mul(sub(x, center), inverse) // [.., D]
      const toNormal = mul(g, weight)
      const along = mul(normal, mean(mul(toNormal, normal), { axes: [-1], keepDims: true }))
      const average = mean(toNormal, { axes: [-1], keepDims: true })
      const leading = leadingAxes(x.shape)
      return [
        mul(inverse, sub(toNormal, add(average, along))),
        sum(mul(g, normal), { axes: leading }),
        sum(g, { axes: leading }),
      ]
    },
  })
  return first(y)
}

/** x / √(mean(x²) + ε) · weight: weight [D]. LLaMA's norm. */
export function rmsNorm(x: Tensor, { weight, epsilon }: { weight: Tensor; epsilon: number }): Tensor {
  expectShape(weight.shape, x.shape.slice(-1), 'RMS norm weight')
  const [y] = applyAll({
    operator: 'rmsNorm',
    inputs: [x, weight],
    outputs: [x, { dtype: x.dtype, shape: oneAtEnd(x.shape) }],
    onnx: (emit, inputs, [y = '', inverse = '']) => {
      const options = { attributes: { axis: -1, epsilon, stash_type: 1 }, floats: ['epsilon'] }
      if (emit.operators === 'cpu') emit.node('SimplifiedLayerNormalization', inputs, [y, inverse], options)
      else {
        emit.node('SimplifiedLayerNormalization', inputs, [y], options)
        if (inverse !== '') emit.node('Identity', [emit.tensor(inverseSize(x, epsilon))], [inverse])
      }
    },
    gradient: ([g], [_, inverse]) => {
      if (g === undefined || inverse === undefined) return []
      // With x̂ = x / rms: x̄ = (ȳ w − x̂ · mean(ȳ w x̂)) / rms and w̄ = Σ ȳ x̂. Both sums are matrix products over one ȳ x.
      const width = knownDim(weight.shape[0], 'the width of an RMS norm')
      const product = mul(g, x) // [.., D]
      const average = scaleBy(matmul(product, reshape(weight, [width, 1])), 1 / width) // [.., 1]
      const along = mul(x, mul(average, square(inverse)))
      const toWeight = matmul(rows(inverse), rows(product), { transposeA: true }) // [1, D]
      return [mul(inverse, sub(mul(g, weight), along)), reshape(toWeight, [width])]
    },
  })
  return first(y)
}

/** 1 / √(mean(x²) + ε) over the last axis, which stays as 1: what the CPU's norms return and WebGPU's leave unwritten. */
function inverseSize(x: Tensor, epsilon: number): Tensor {
  const size = sqrt(add(mean(square(x), { axes: [-1], keepDims: true }), scalar(epsilon)))
  return div(scalar(1), size)
}

function leadingAxes(shape: Shape): number[] {
  return shape.slice(0, -1).map((_, axis) => axis)
}

function oneAtEnd(shape: Shape): Shape {
  return [...shape.slice(0, -1), 1]
}

function first(tensor: Tensor | undefined): Tensor {
  if (tensor === undefined) throw new Error('A normalisation node has no output')
  return tensor
}
