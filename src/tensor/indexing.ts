/** Looking rows up in a table and putting rows into one: embeddings, targets, and the place where text and picture meet. */

import { reshape, sum, zeros } from './broadcast.ts'
import { rowsOfCodes } from './quantized.ts'
import { formatShape, productOf, type Shape, sameShape } from './shape.ts'
import { apply, constant, type Tensor } from './tensor.ts'

/** Rows of `table` [R, D] at `index` (any shape): [.., D]. The embedding lookup. Rows may have more axes than one, if no gradient is asked for. */
export function gatherRows(table: Tensor, index: Tensor): Tensor {
  expectRank(table, 'gather rows')
  return rowsOfCodes(table, (part) => gatherFirst(part, index)) ?? gatherFirst(table, index)
}

function gatherFirst(table: Tensor, index: Tensor): Tensor {
  const width = table.shape.slice(1)
  return apply({
    operator: 'gatherRows',
    inputs: [table, index],
    dtype: table.dtype,
    shape: [...index.shape, ...width],
    onnx: (emit, inputs, outputs) => emit.node('Gather', inputs, outputs, { attributes: { axis: 0 } }),
    gradient: (g) => [addRows(zeros(table.shape), index, g), undefined],
  })
}

/**
 * `base` [R, D] with `rows` [.., D] added at `index` [..]; rows with the same index add up.
 *
 * Element by element, not as whole rows: ONNX Runtime's ScatterND adds rows on several threads at once, and where an index repeats (as every
 * token of a batch does) sums get lost. ScatterElements goes through them in order.
 */
export function addRows(base: Tensor, index: Tensor, rows: Tensor): Tensor {
  expectMatrix(base, 'add rows')
  expectRows(base, index, rows)
  const width = base.shape[1] ?? 1
  const count = productOf(index.shape)
  return apply({
    operator: 'addRows',
    inputs: [base, reshape(index, [count, 1]), reshape(rows, [count, width])],
    dtype: base.dtype,
    shape: base.shape,
    onnx: (emit, [table = '', at = '', added = ''], outputs) => {
      const [size, everywhere] = [emit.value(), emit.value()]
      emit.node('Shape', [added], [size])
      emit.node('Expand', [at, size], [everywhere]) // [count, D]
      emit.node('ScatterElements', [table, everywhere, added], outputs, { attributes: { axis: 0, reduction: 'add' } })
    },
    gradient: (g) => [g, undefined, reshape(gatherRows(g, index), [count, width])],
  })
}

/**
 * `base` [R, D] with the rows at `index` [..] replaced by `rows` [.., D]; each index at most once. Rows may have more axes than one. Where the
 * result is bound to the memory of `base`, only the rows are written.
 */
export function replaceRows(base: Tensor, index: Tensor, rows: Tensor): Tensor {
  expectRows(base, index, rows)
  return apply({
    operator: 'replaceRows',
    inputs: [base, reshape(index, [...index.shape, 1]), rows],
    dtype: base.dtype,
    shape: base.shape,
    onnx: (emit, inputs, outputs) => emit.node('ScatterND', inputs, outputs),
    gradient: (g) => {
      const toRows = gatherRows(g, index)
      return [replaceRows(g, index, mulZero(toRows)), undefined, toRows]
    },
  })
}

function expectRows(base: Tensor, index: Tensor, rows: Tensor): void {
  expectRank(base, 'scatter rows')
  const expected: Shape = [...index.shape, ...base.shape.slice(1)]
  if (sameShape(rows.shape, expected)) return
  throw new RangeError(`Cannot scatter rows of shape ${formatShape(rows.shape)}: expected ${formatShape(expected)}`)
}

/** Zeros like `x`, whose sizes need not be known. */
function mulZero(x: Tensor): Tensor {
  const zero = constant('float32', [], new Float32Array(1))
  return apply({
    operator: 'mul',
    inputs: [x, zero],
    dtype: x.dtype,
    shape: x.shape,
    onnx: (emit, inputs, outputs) => emit.node('Mul', inputs, outputs),
    gradient: () => [undefined, undefined],
  })
}

/** The element of each row of x [M, V] at `index` [M]: [M]. */
export function pick(x: Tensor, index: Tensor): Tensor {
  expectMatrix(x, 'pick elements')
  const [count = 1] = x.shape
  return apply({
    operator: 'pick',
    inputs: [x, reshape(index, [count, 1])],
    dtype: x.dtype,
    shape: [count],
    onnx: (emit, [values = '', at = ''], outputs) => {
      const picked = emit.value()
      emit.node('GatherElements', [values, at], [picked], { attributes: { axis: 1 } })
      emit.node('Reshape', [picked, emit.integers([-1])], outputs)
    },
    gradient: (g) => [addPicked(zeros(x.shape), index, g), undefined],
  })
}

/** `base` [M, V] with `values` [M] added at `index` [M] of each row. */
export function addPicked(base: Tensor, index: Tensor, values: Tensor): Tensor {
  const [count = 1] = base.shape
  return apply({
    operator: 'addPicked',
    inputs: [base, reshape(index, [count, 1]), reshape(values, [count, 1])],
    dtype: base.dtype,
    shape: base.shape,
    onnx: (emit, inputs, outputs) =>
      emit.node('ScatterElements', inputs, outputs, { attributes: { axis: 1, reduction: 'add' } }),
    gradient: (g) => [g, undefined, reshape(pick(g, index), [count, 1])],
  })
}

/** Repeats each of the N key or value heads `times` times in a row: [B, N, L, H] → [B, N·times, L, H]. */
export function repeatHeads(x: Tensor, times: number): Tensor {
  if (times === 1) return x
  const [batch = 1, heads, length = 1, size = 1] = x.shape
  if (typeof heads !== 'number') throw new RangeError(`Cannot repeat ${heads} heads: their number must be known`)
  const source = Array.from({ length: heads * times }, (_, head) => Math.floor(head / times))
  return apply({
    operator: 'repeatHeads',
    inputs: [x],
    dtype: x.dtype,
    shape: [batch, heads * times, length, size],
    onnx: (emit, [input = ''], outputs) =>
      emit.node('Gather', [input, emit.integers(source)], outputs, { attributes: { axis: 1 } }),
    gradient: (g) => [sum(reshape(g, [batch, heads, times, length, size]), { axes: [2] })],
  })
}

function expectRank(x: Tensor, action: string): void {
  if (x.shape.length >= 2) return
  throw new RangeError(`Cannot ${action}: expected two axes or more, found ${formatShape(x.shape)}`)
}

function expectMatrix(x: Tensor, action: string): void {
  if (x.shape.length !== 2) throw new RangeError(`Cannot ${action}: expected a matrix, found ${formatShape(x.shape)}`)
}
