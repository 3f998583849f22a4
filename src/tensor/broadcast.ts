/** Reshape, expand and sum: the three operators that undo one another, and so live together. */

import { axisOf, formatShape, type Shape, sameShape } from './shape.ts'
import { apply, constant, type Tensor } from './tensor.ts'

/** The same elements in row-major order under another shape; at most one named dim may be new. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x
  if (!productsMatch(x.shape, shape)) {
    throw new RangeError(`Cannot reshape ${formatShape(x.shape)} to ${formatShape(shape)}: element counts differ`)
  }
  const target = reshapeTarget(x.shape, shape)
  return apply({
    operator: 'reshape',
    inputs: [x],
    dtype: x.dtype,
    shape,
    onnx: (emit, [input = ''], outputs) => emit.node('Reshape', [input, emit.integers(target)], outputs),
    gradient: (g) => [reshape(g, x.shape)],
  })
}

/** `reshape` to the shape that another tensor has when the graph runs: for several unknown sizes at once. */
export function reshapeLike(x: Tensor, like: Tensor): Tensor {
  if (!productsMatch(x.shape, like.shape)) {
    throw new RangeError(`Cannot reshape ${formatShape(x.shape)} to ${formatShape(like.shape)}: element counts differ`)
  }
  return apply({
    operator: 'reshape',
    inputs: [x, like],
    dtype: x.dtype,
    shape: like.shape,
    onnx: (emit, [input = '', model = ''], outputs) => {
      const shape = emit.value()
      emit.node('Shape', [model], [shape])
      emit.node('Reshape', [input, shape], outputs)
    },
    gradient: (g) => [reshape(g, x.shape), undefined],
  })
}

/** Repeats axes of size 1 (or missing at the front) up to `shape`. */
export function expand(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x
  if (shape.some((dim) => typeof dim === 'string')) {
    throw new RangeError(`Cannot expand ${formatShape(x.shape)} to ${formatShape(shape)}: sizes must be known`)
  }
  return apply({
    operator: 'expand',
    inputs: [x],
    dtype: x.dtype,
    shape,
    onnx: (emit, [input = ''], outputs) => emit.node('Expand', [input, emit.integers(shape as number[])], outputs),
    gradient: (g) => [sumTo(g, x.shape)],
  })
}

/** Zeros of a known shape, kept as one number in the file. */
export function zeros(shape: Shape): Tensor {
  return expand(constant('float32', [], new Float32Array(1)), shape)
}

export type ReduceOptions = { axes?: readonly number[]; keepDims?: boolean }

/** Sum over `axes` (default: all); with `keepDims` the summed axes stay as 1. */
export function sum(x: Tensor, { axes, keepDims = false }: ReduceOptions = {}): Tensor {
  const summed = (axes ?? x.shape.map((_, axis) => axis)).map((axis) => axisOf(axis, x.shape, 'sum'))
  const kept = x.shape.map((dim, axis) => (summed.includes(axis) ? 1 : dim))
  const shape = keepDims ? kept : x.shape.filter((_, axis) => !summed.includes(axis))
  return apply({
    operator: 'sum',
    inputs: [x],
    dtype: x.dtype,
    shape,
    onnx: (emit, [input = ''], outputs) =>
      emit.node('ReduceSum', [input, emit.integers(summed)], outputs, { attributes: { keepdims: keepDims ? 1 : 0 } }),
    gradient: (g) => [expand(reshape(g, kept), x.shape)],
  })
}

/** Sums `x` down to `shape`: the gradient of broadcasting `shape` up to the shape of `x`. */
export function sumTo(x: Tensor, shape: Shape): Tensor {
  if (sameShape(x.shape, shape)) return x
  const extra = x.shape.length - shape.length
  const axes = x.shape.flatMap((dim, axis) => (axis < extra || (shape[axis - extra] === 1 && dim !== 1) ? [axis] : []))
  if (extra < 0)
    throw new RangeError(`Cannot sum shape ${formatShape(x.shape)} to the larger shape ${formatShape(shape)}`)
  return reshape(sum(x, { axes, keepDims: true }), shape)
}

function productsMatch(a: Shape, b: Shape): boolean {
  const normal = (shape: Shape) => {
    const names = shape.flatMap((dim) => (typeof dim === 'string' ? dim.split('*') : []))
    const factors = names.filter((name) => /^\d+$/.test(name)).map(Number)
    const size = [...shape.filter((dim) => typeof dim === 'number'), ...factors].reduce((x, y) => x * y, 1)
    return `${names.filter((name) => !/^\d+$/.test(name)).sort()} ${size}`
  }
  return normal(a) === normal(b)
}

/** ONNX writes an unknown size as 0 where it copies the same axis of the input, or once as -1. */
function reshapeTarget(from: Shape, to: Shape): number[] {
  const target = to.map((dim, axis) => (typeof dim === 'number' ? dim : dim === from[axis] ? 0 : -1))
  if (target.filter((size) => size === -1).length > 1) {
    throw new RangeError(`Cannot reshape ${formatShape(from)} to ${formatShape(to)}: more than one size is unknown`)
  }
  return target
}
