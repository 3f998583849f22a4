/**
 * Shapes of symbolic tensors: static rank, each dim a number or a name.
 *
 * Shape card (used in every comment of this project):
 * `B` batch · `S` image side · `P` patches · `C` vision width · `T` text tokens · `L` merged length · `D` language width ·
 * `N` heads · `H` head size · `V` vocabulary · `J` views of a picture · `M` visual tokens where their number depends on the picture.
 */

/** A size known now, or a name for a size known when the graph runs; equal names are equal sizes. */
export type Dim = number | string
export type Shape = readonly Dim[]

export function formatShape(shape: Shape): string {
  return `[${shape.join(', ')}]`
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, axis) => dim === b[axis])
}

/** Throws unless `actual` equals `expected`; a `_` in `expected` accepts any dim. `what` names the value in the message. */
export function expectShape(actual: Shape, expected: Shape, what: string): void {
  const fits = actual.length === expected.length && expected.every((dim, axis) => dim === '_' || dim === actual[axis])
  if (!fits) throw new RangeError(`${what} must have shape ${formatShape(expected)}, found ${formatShape(actual)}`)
}

/** NumPy broadcasting: shapes are aligned at the last axis, and a dim of 1 stretches. */
export function broadcastShapes(a: Shape, b: Shape, operator: string): Shape {
  const rank = Math.max(a.length, b.length)
  return Array.from({ length: rank }, (_, axis) => {
    const left = a[axis - rank + a.length] ?? 1
    const right = b[axis - rank + b.length] ?? 1
    if (left === right || right === 1) return left
    if (left === 1) return right
    throw new RangeError(`Cannot ${operator}: shapes ${formatShape(a)} and ${formatShape(b)} do not broadcast`)
  })
}

/** The number of elements, as one dim: a number if every dim is known, else a product of names such as `B*T*64`. */
export function productOf(dims: Shape): Dim {
  const names = dims.filter((dim) => typeof dim === 'string')
  const size = dims.reduce<number>((total, dim) => (typeof dim === 'number' ? total * dim : total), 1)
  if (names.length === 0) return size
  return size === 1 ? names.join('*') : `${names.join('*')}*${size}`
}

/** A dim that must be known now, such as a width; `what` names it in the message. */
export function knownDim(dim: Dim | undefined, what: string): number {
  if (typeof dim === 'number') return dim
  throw new RangeError(`${what} must be a number when the graph is built, found ${dim === undefined ? 'no axis' : dim}`)
}

/** Turns a negative axis into the one counted from the front. */
export function axisOf(axis: number, shape: Shape, operator: string): number {
  const positive = axis < 0 ? axis + shape.length : axis
  if (Number.isInteger(axis) && positive >= 0 && positive < shape.length) return positive
  throw new RangeError(`Cannot ${operator}: axis ${axis} is outside of shape ${formatShape(shape)}`)
}
