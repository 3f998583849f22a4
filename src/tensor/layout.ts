/** Operators that move values without changing them: transpose, slice, concat. */

import { reshape, zeros } from './broadcast.ts'
import { axisOf, type Dim, formatShape, productOf, type Shape, sameShape } from './shape.ts'
import { apply, type Tensor } from './tensor.ts'

/** Joins all axes but the last: [.., D] to [rows, D]. */
export function rows(x: Tensor): Tensor {
  return reshape(x, [productOf(x.shape.slice(0, -1)), x.shape.at(-1) ?? 1])
}

/** Axis `i` of the result is axis `order[i]` of `x`. */
export function transpose(x: Tensor, order: readonly number[]): Tensor {
  if (order.length !== x.shape.length || new Set(order).size !== order.length) {
    throw new RangeError(`Cannot transpose ${formatShape(x.shape)} by [${order}]: expected each of its axes once`)
  }
  const shape = order.map((axis) => x.shape[axisOf(axis, x.shape, 'transpose')] ?? 1)
  return apply({
    operator: 'transpose',
    inputs: [x],
    dtype: x.dtype,
    shape,
    onnx: (emit, inputs, outputs) => emit.node('Transpose', inputs, outputs, { attributes: { perm: order } }),
    gradient: (g) => [
      transpose(
        g,
        order.map((_, axis) => order.indexOf(axis)),
      ),
    ],
  })
}

/** Elements `start` to `end` (exclusive) along one axis of known size. */
export function slice(x: Tensor, { axis, start, end }: { axis: number; start: number; end: number }): Tensor {
  const at = axisOf(axis, x.shape, 'slice')
  const size = x.shape[at]
  if (start < 0 || end <= start || (typeof size === 'number' && end > size)) {
    throw new RangeError(`Cannot slice ${start} to ${end} along axis ${at} of ${formatShape(x.shape)}`)
  }
  return apply({
    operator: 'slice',
    inputs: [x],
    dtype: x.dtype,
    shape: x.shape.map((dim, i) => (i === at ? end - start : dim)),
    onnx: (emit, [input = ''], outputs) =>
      emit.node('Slice', [input, emit.integers([start]), emit.integers([end]), emit.integers([at])], outputs),
    gradient: (g) => {
      if (typeof size !== 'number') throw new RangeError(`Cannot differentiate a slice of the unknown dim ${size}`)
      const zerosBefore = zeros(replaceDim(x.shape, at, start))
      const zerosAfter = zeros(replaceDim(x.shape, at, size - end))
      return [concat([...(start > 0 ? [zerosBefore] : []), g, ...(end < size ? [zerosAfter] : [])], at)]
    },
  })
}

/** The last `count` (int64 []) positions of x [B, L, D], all of them for 0: [B, `name`, D]. For generation only; it has no gradient. */
export function lastPositions(x: Tensor, count: Tensor, { name }: { name: string }): Tensor {
  const [batch = 1, , width = 1] = x.shape
  return apply({
    operator: 'lastPositions',
    inputs: [x, count],
    dtype: x.dtype,
    shape: [batch, name, width],
    onnx: (emit, [input = '', wanted = ''], outputs) => {
      const [before, start] = [emit.value(), emit.value()]
      emit.node('Neg', [wanted], [before])
      emit.node('Unsqueeze', [before, emit.integers([0])], [start])
      const end = emit.integers([Number.MAX_SAFE_INTEGER])
      emit.node('Slice', [input, start, end, emit.integers([1])], outputs)
    },
  })
}

/** x with zeros behind it along one axis, as many as the scalar `count` (int64 [1]) says when the graph runs; the new size is then called `dim`. */
export function padEnd(x: Tensor, { axis, count, dim }: { axis: number; count: Tensor; dim: Dim }): Tensor {
  const at = axisOf(axis, x.shape, 'pad')
  return apply({
    operator: 'padEnd',
    inputs: [x, count],
    dtype: x.dtype,
    shape: replaceDim(x.shape, at, dim),
    onnx: (emit, [input = '', added = ''], outputs) => {
      const [before, after] = [x.shape.length + at, x.shape.length - at - 1]
      const parts = [emit.integers(new Array(before).fill(0)), added]
      if (after > 0) parts.push(emit.integers(new Array(after).fill(0)))
      const pads = emit.value()
      emit.node('Concat', parts, [pads], { attributes: { axis: 0 } })
      emit.node('Pad', [input, pads], outputs)
    },
  })
}

/** Joins tensors that differ only along `axis`. */
export function concat(parts: readonly Tensor[], axis: number): Tensor {
  const [first] = parts
  if (first === undefined) throw new RangeError('Cannot concatenate no tensors')
  if (parts.length === 1) return first
  const at = axisOf(axis, first.shape, 'concat')
  for (const part of parts) {
    if (!sameShape(replaceDim(part.shape, at, 0), replaceDim(first.shape, at, 0)) || part.dtype !== first.dtype) {
      throw new RangeError(
        `Cannot concatenate ${formatShape(first.shape)} and ${formatShape(part.shape)} along axis ${at}: other axes differ`,
      )
    }
  }
  const sizes = parts.map((part) => part.shape[at] ?? 1)
  const known = sizes.every((size) => typeof size === 'number')
  const total = known ? (sizes as number[]).reduce((sum, size) => sum + size, 0) : sizes.join('+')
  return apply({
    operator: 'concat',
    inputs: parts,
    dtype: first.dtype,
    shape: replaceDim(first.shape, at, total),
    onnx: (emit, inputs, outputs) => emit.node('Concat', inputs, outputs, { attributes: { axis: at } }),
    gradient: (g) => {
      let start = 0
      return sizes.map((size) => {
        if (typeof size !== 'number') throw new RangeError(`Cannot differentiate concat along the unknown dim ${size}`)
        start += size
        return slice(g, { axis: at, start: start - size, end: start })
      })
    },
  })
}

/** [.., N*H] to [.., N, H]. */
export function splitLast(x: Tensor, parts: number): Tensor {
  const last = x.shape.at(-1)
  if (typeof last !== 'number' || last % parts !== 0) {
    throw new RangeError(`Cannot split the last axis of ${formatShape(x.shape)} into ${parts} equal parts`)
  }
  return reshape(x, [...x.shape.slice(0, -1), parts, last / parts])
}

function replaceDim(shape: Shape, axis: number, dim: Dim): Shape {
  return shape.map((old, i) => (i === axis ? dim : old))
}
