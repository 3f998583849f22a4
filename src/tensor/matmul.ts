/** Matrix products: where nearly all the time goes. */

import { reshape, sum, sumTo } from './broadcast.ts'
import { type Dropout, dropout } from './dropout.ts'
import { add, scaleBy } from './elementwise.ts'
import { rows, transpose } from './layout.ts'
import { linearOfCodes } from './quantized.ts'
import { broadcastShapes, type Dim, formatShape, sameShape } from './shape.ts'
import { apply, type Tensor } from './tensor.ts'

type MatmulOptions = { transposeA?: boolean; transposeB?: boolean; scale?: number }

/**
 * `scale` · op(a) · op(b) over the last two axes, where op transposes them on request; the axes before broadcast.
 * a [.., M, K] · b [.., K, N] → [.., M, N]. The flags save writing a transposed copy.
 */
export function matmul(a: Tensor, b: Tensor, options: MatmulOptions = {}): Tensor {
  const { transposeA = false, transposeB = false, scale = 1 } = options
  const [m, k] = lastTwo(a, transposeA)
  const [k2, n] = lastTwo(b, transposeB)
  if (k !== k2) {
    throw new RangeError(
      `Cannot multiply matrices ${formatShape(a.shape)}${transposeA ? 'ᵀ' : ''} and ${formatShape(b.shape)}${transposeB ? 'ᵀ' : ''}: inner sizes ${k} and ${k2} differ`,
    )
  }
  const batch = broadcastShapes(a.shape.slice(0, -2), b.shape.slice(0, -2), 'multiply matrices')
  const plain = !transposeA && !transposeB && scale === 1
  return apply({
    operator: 'matmul',
    inputs: [a, b],
    dtype: a.dtype,
    shape: [...batch, m, n],
    onnx: (emit, inputs, outputs) => {
      const attributes = { transA: transposeA ? 1 : 0, transB: transposeB ? 1 : 0, alpha: scale }
      if (plain) emit.node('MatMul', inputs, outputs)
      else if (emit.operators === 'cpu') {
        emit.node('FusedMatMul', inputs, outputs, { domain: 'com.microsoft', attributes, floats: ['alpha'] })
      } else if (a.shape.length === 2 && b.shape.length === 2) {
        emit.node('Gemm', inputs, outputs, { attributes, floats: ['alpha'] })
      } else {
        const left = transposeA ? transpose(a, swapLast(a)) : a
        const right = transposeB ? transpose(b, swapLast(b)) : b
        const product = scale === 1 ? matmul(left, right) : scaleBy(matmul(left, right), scale)
        emit.node('Identity', [emit.tensor(product)], outputs)
      }
    },
    gradient: (g) => {
      const toA = transposeA
        ? matmul(b, g, { transposeA: transposeB, transposeB: true, scale })
        : matmul(g, b, { transposeB: !transposeB, scale })
      const toB = transposeB
        ? matmul(g, a, { transposeA: true, transposeB: transposeA, scale })
        : matmul(a, g, { transposeA: !transposeA, scale })
      return [sumTo(toA, a.shape), sumTo(toB, b.shape)]
    },
  })
}

/**
 * x Wᵀ + b: x [.., In], weight [Out, In] as checkpoints store it, bias [Out] → [.., Out].
 *
 * A weight that `addLowRank` made is never summed up: x (W + U D)ᵀ = x Wᵀ + (x Dᵀ) Uᵀ, so the gradient of D and U passes through r numbers
 * per row and none of the size of W is made for a W that is frozen (LoRA, Hu et al. 2021 §4.1, equation 3).
 */
export function linear(x: Tensor, { weight, bias }: { weight: Tensor; bias?: Tensor | undefined }): Tensor {
  const sum = lowRankSum(weight)
  if (sum !== undefined) {
    const seen = sum.dropout === undefined ? x : dropout(x, sum.dropout)
    const change = linear(linear(seen, { weight: sum.down }), { weight: sum.up }) // [.., r] → [.., Out]
    return add(linear(x, { weight: sum.weight, bias }), change)
  }
  const [out, width] = weight.shape
  if (weight.shape.length !== 2 || x.shape.at(-1) !== width) {
    throw new RangeError(`Cannot apply a linear layer of shape ${formatShape(weight.shape)} to ${formatShape(x.shape)}`)
  }
  const ofCodes = linearOfCodes(x, weight, bias)
  if (ofCodes !== undefined) return ofCodes
  const shape = [...x.shape.slice(0, -1), out as Dim]
  if (shape.slice(0, -1).filter((dim) => typeof dim === 'string').length > 1) {
    const product = matmul(x, weight, { transposeB: true })
    return bias === undefined ? product : add(product, bias)
  }
  const flat = rows(x) // [rows, In]
  return reshape(bias === undefined ? matmul(flat, weight, { transposeB: true }) : gemm(flat, weight, bias), shape)
}

type LowRankChange = {
  readonly down: Tensor
  readonly up: Tensor
  /** What `linear` drops of x on its way through the change, and only there. */
  readonly dropout?: Dropout | undefined
}

/** W + U D: a weight [Out, In] changed by the product of up [Out, r] and down [r, In], which has rank r at most. */
export function addLowRank(weight: Tensor, { down, up, dropout }: LowRankChange): Tensor {
  const [out, width] = weight.shape
  const rank = down.shape[0]
  if (
    weight.shape.length !== 2 ||
    !sameShape(down.shape, [rank ?? 1, width ?? 1]) ||
    !sameShape(up.shape, [out ?? 1, rank ?? 1])
  ) {
    throw new RangeError(
      `Cannot change a weight ${formatShape(weight.shape)} by ${formatShape(up.shape)} times ${formatShape(down.shape)}: expected [Out, r] times [r, In]`,
    )
  }
  return apply({
    operator: lowRankOperator,
    inputs: [weight, down, up, ...(dropout ? [dropout.rowKeys, dropout.columnKeys, dropout.rate] : [])],
    dtype: weight.dtype,
    shape: weight.shape,
    onnx: (emit, [w = '', d = '', u = ''], outputs) => emit.node('Gemm', [u, d, w], outputs),
    gradient: (g) => [g, matmul(up, g, { transposeA: true }), matmul(g, down, { transposeB: true })],
  })
}

const lowRankOperator = 'addLowRank'

/** The parts of what `addLowRank` made, undefined for any other tensor. */
function lowRankSum({ origin }: Tensor): ({ weight: Tensor } & LowRankChange) | undefined {
  if (origin.kind !== 'node' || origin.node.operator !== lowRankOperator) return undefined
  const [weight, down, up, rowKeys, columnKeys, rate] = origin.node.inputs
  const dropout = rowKeys && columnKeys && rate && { rowKeys, columnKeys, rate }
  return weight && down && up && { weight, down, up, dropout }
}

/** One node for product and bias on matrices: x [M, K] · weight [N, K]ᵀ + bias [N]. */
function gemm(x: Tensor, weight: Tensor, bias: Tensor): Tensor {
  return apply({
    operator: 'gemm',
    inputs: [x, weight, bias],
    dtype: x.dtype,
    shape: [x.shape[0] ?? 1, weight.shape[0] ?? 1],
    onnx: (emit, inputs, outputs) => emit.node('Gemm', inputs, outputs, { attributes: { transB: 1 } }),
    gradient: (g) => [matmul(g, weight), matmul(g, x, { transposeA: true }), sum(g, { axes: [0] })],
  })
}

/** The axes of x with the last two exchanged. */
function swapLast(x: Tensor): number[] {
  const last = x.shape.length - 1
  return x.shape.map((_, axis) => (axis < last - 1 ? axis : 2 * last - 1 - axis))
}

function lastTwo(x: Tensor, transposed: boolean): [Dim, Dim] {
  const [first, second] = x.shape.slice(-2)
  if (first === undefined || second === undefined) {
    throw new RangeError(`Cannot multiply matrices: ${formatShape(x.shape)} has fewer than two axes`)
  }
  return transposed ? [second, first] : [first, second]
}
