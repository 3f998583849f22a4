/** Arithmetic on each element, with NumPy broadcasting. */

import { sumTo } from './broadcast.ts'
import { broadcastShapes } from './shape.ts'
import { apply, type Lowering, scalar, type Tensor } from './tensor.ts'

export function add(a: Tensor, b: Tensor): Tensor {
  return binary({ operator: 'add', type: 'Add', a, b, gradient: (g) => [g, g] })
}

export function sub(a: Tensor, b: Tensor): Tensor {
  return binary({ operator: 'sub', type: 'Sub', a, b, gradient: (g) => [g, neg(g)] })
}

export function mul(a: Tensor, b: Tensor): Tensor {
  return binary({ operator: 'mul', type: 'Mul', a, b, gradient: (g) => [mul(g, b), mul(g, a)] })
}

export function div(a: Tensor, b: Tensor): Tensor {
  return binary({ operator: 'div', type: 'Div', a, b, gradient: (g, y) => [div(g, b), neg(div(mul(g, y), b))] })
}

/** The smaller of each pair; used by clipping, so only the values flow, not a gradient. */
export function minimum(a: Tensor, b: Tensor): Tensor {
  return binary({ operator: 'minimum', type: 'Min', a, b })
}

/** The largest whole number that is not above each value. Its slope is 0 wherever it has one. */
export function floor(x: Tensor): Tensor {
  return apply({
    operator: 'floor',
    inputs: [x],
    dtype: x.dtype,
    shape: x.shape,
    onnx: sameNode('Floor'),
    gradient: () => [undefined],
  })
}

export function neg(x: Tensor): Tensor {
  return unary({ operator: 'neg', type: 'Neg', x, gradient: (g) => neg(g) })
}

export function exp(x: Tensor): Tensor {
  return unary({ operator: 'exp', type: 'Exp', x, gradient: (g, y) => mul(g, y) })
}

export function log(x: Tensor): Tensor {
  return unary({ operator: 'log', type: 'Log', x, gradient: (g) => div(g, x) })
}

export function sqrt(x: Tensor): Tensor {
  return unary({ operator: 'sqrt', type: 'Sqrt', x, gradient: (g, y) => div(mul(g, scalar(0.5)), y) })
}

/** x times a number. */
export function scaleBy(x: Tensor, factor: number): Tensor {
  return mul(x, scalar(factor))
}

export function square(x: Tensor): Tensor {
  return mul(x, x)
}

export function sigmoid(x: Tensor): Tensor {
  return unary({ operator: 'sigmoid', type: 'Sigmoid', x, gradient: (g, y) => mul(g, mul(y, sub(scalar(1), y))) })
}

export function tanh(x: Tensor): Tensor {
  return unary({ operator: 'tanh', type: 'Tanh', x, gradient: (g, y) => mul(g, sub(scalar(1), square(y))) })
}

/** Σ x² over everything, in one pass: []. */
export function sumOfSquares(x: Tensor): Tensor {
  return apply({
    operator: 'sumOfSquares',
    inputs: [x],
    dtype: x.dtype,
    shape: [],
    onnx: (emit, inputs, outputs) => emit.node('ReduceSumSquare', inputs, outputs, { attributes: { keepdims: 0 } }),
    gradient: (g) => [mul(scaleBy(x, 2), g)],
  })
}

/** The error function, 2/√π ∫₀ˣ exp(−t²) dt. */
export function erf(x: Tensor): Tensor {
  const slope = scalar(2 / Math.sqrt(Math.PI))
  return unary({ operator: 'erf', type: 'Erf', x, gradient: (g) => mul(g, mul(slope, exp(neg(square(x))))) })
}

/** Rounds to another element type. Only floats carry a gradient. */
export function cast(x: Tensor, dtype: 'float32' | 'float16' | 'int64' | 'int32'): Tensor {
  const code = { float32: 1, float16: 10, int64: 7, int32: 6 }[dtype]
  return apply({
    operator: 'cast',
    inputs: [x],
    dtype,
    shape: x.shape,
    onnx: (emit, inputs, outputs) => emit.node('Cast', inputs, outputs, { attributes: { to: code } }),
  })
}

function binary({
  operator,
  type,
  a,
  b,
  gradient,
}: {
  operator: string
  type: string
  a: Tensor
  b: Tensor
  gradient?: (g: Tensor, y: Tensor) => [Tensor, Tensor]
}): Tensor {
  if (a.dtype !== b.dtype) throw new TypeError(`Cannot ${operator}: element types ${a.dtype} and ${b.dtype} differ`)
  return apply({
    operator,
    inputs: [a, b],
    dtype: a.dtype,
    shape: broadcastShapes(a.shape, b.shape, operator),
    onnx: sameNode(type),
    ...(gradient && {
      gradient: (g: Tensor, y: Tensor) => {
        const [left, right] = gradient(g, y)
        return [sumTo(left, a.shape), sumTo(right, b.shape)]
      },
    }),
  })
}

function unary({
  operator,
  type,
  x,
  gradient,
}: {
  operator: string
  type: string
  x: Tensor
  gradient: (g: Tensor, y: Tensor) => Tensor
}): Tensor {
  return apply({
    operator,
    inputs: [x],
    dtype: x.dtype,
    shape: x.shape,
    onnx: sameNode(type),
    gradient: (g, y) => [gradient(g, y)],
  })
}

function sameNode(type: string): Lowering {
  return (emit, inputs, outputs) => emit.node(type, inputs, outputs)
}
