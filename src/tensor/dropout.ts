/**
 * Dropout (Srivastava et al. 2014) with a mask that is a function of its keys, so that a run which was stopped drops the same elements when it goes
 * on, and a block that is computed twice drops the same ones both times.
 */

import { reshape } from './broadcast.ts'
import { add, div, floor, mul, sub } from './elementwise.ts'
import { rows, slice } from './layout.ts'
import { formatShape } from './shape.ts'
import { scalar, type Tensor } from './tensor.ts'

export type Dropout = {
  /** Numbers from 0 to 1, at least as many as x has rows: [R, 1]. */
  readonly rowKeys: Tensor
  /** Numbers from 0 to 1, one for each element of a row: [1, D]. */
  readonly columnKeys: Tensor
  /** The share of elements that becomes 0, from 0 to below 1: []. */
  readonly rate: Tensor
}

/**
 * x [.., D] with a share `rate` of its elements set to 0 and the others divided by 1 − rate.
 *
 * Element (r, c) is dropped when the fraction of rowKey r + columnKey c is below the rate. With uniform keys each element is dropped with that
 * probability, and any three of them independently: sums of different pairs of keys tell nothing of each other until four elements form a rectangle.
 * So R + D drawn numbers do for R · D decisions.
 */
export function dropout(x: Tensor, { rowKeys, columnKeys, rate }: Dropout): Tensor {
  const flat = rows(x) // [R, D]
  const [count, width] = flat.shape
  if (typeof count !== 'number' || Number(rowKeys.shape[0]) < count || columnKeys.shape[1] !== width) {
    throw new RangeError(
      `Cannot drop elements of ${formatShape(x.shape)} by keys ${formatShape(rowKeys.shape)} and ${formatShape(columnKeys.shape)}`,
    )
  }
  const sums = add(slice(rowKeys, { axis: 0, start: 0, end: count }), columnKeys) // [R, D]
  const uniform = sub(sums, floor(sums))
  const share = sub(scalar(1), rate)
  const kept = floor(add(uniform, share)) // 1 where the fraction reaches the rate, else 0
  return reshape(mul(flat, div(kept, share)), x.shape)
}
