/**
 * Gradient checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): what a part of the network computes on the way to
 * its result is not kept for the backward pass but computed again in it.
 */

import { pullBack } from './gradient.ts'
import { sortNodes } from './onnx.ts'
import { apply, input, type Node, type Tensor } from './tensor.ts'

/**
 * `block(x)`, whose inner values are forgotten and made again from `x` once its gradient arrives: only `x` waits in memory for it. Costs one more
 * forward pass through the block; values and gradients are those of `block(x)`.
 *
 * `block` must give the same operators every time it is called. It may read other tensors than `x`: they are kept, as `x` is.
 */
export function recompute(x: Tensor, block: (x: Tensor) => Tensor): Tensor {
  const first = block(x)
  const others = readBesides(x, { first, again: block })
  return apply({
    operator: 'recompute',
    inputs: [first, x, ...others],
    dtype: first.dtype,
    shape: first.shape,
    onnx: (emit, [result = ''], outputs) => emit.node('Identity', [result], outputs),
    gradient: (g) => {
      const late = after(x, g)
      const second = block(late)
      // Nothing flows into the values of the first pass: nobody reads them after it.
      return [
        undefined,
        ...pullBack(second, g, { through: newNodes(second, { known: [first, late] }), to: [late, ...others] }),
      ]
    },
  })
}

/** What the block reads besides its input: parameters, graph inputs, and results that were computed outside of it. */
function readBesides(x: Tensor, { first, again }: { first: Tensor; again: (x: Tensor) => Tensor }): Tensor[] {
  const standIn = input('stands in for the input of a block', x.dtype, x.shape)
  const own = newNodes(again(standIn), { known: [first] })
  const made = new Set(own.flatMap((node) => node.outputs))
  const found = new Map<string | Tensor, Tensor>()
  for (const tensor of own.flatMap((node) => node.inputs)) {
    const { origin } = tensor
    if (tensor === standIn || made.has(tensor) || origin.kind === 'constant') continue
    // A weight is known by its name: it may have been asked for more than once.
    found.set(origin.kind === 'node' ? tensor : `${origin.kind}:${origin.name}`, tensor)
  }
  return [...found.values()]
}

/** The nodes that `tensor` depends on and none of `known` does. */
function newNodes(tensor: Tensor, { known }: { known: readonly Tensor[] }): readonly Node[] {
  const old = new Set(sortNodes(known))
  return sortNodes([tensor]).filter((node) => !old.has(node))
}

/**
 * `x`, but not before `other` is there. Without it a runtime that looks for common subexpressions would find the second pass to be the first one
 * and keep its values after all. The tie must be a number that depends on `other` as far as a runtime can know and yet changes no bit of `x`: the
 * place of the largest of one number is 0, and x − 0 is x, also where x is −0, infinite or not a number.
 */
function after(x: Tensor, other: Tensor): Tensor {
  return apply({
    operator: 'after',
    inputs: [x, other],
    dtype: x.dtype,
    shape: x.shape,
    onnx: (emit, [given = '', late = ''], outputs) => {
      const [flat, one, place, zero] = [emit.value(), emit.value(), emit.value(), emit.value()]
      emit.node('Reshape', [late, emit.integers([-1])], [flat])
      emit.node('Slice', [flat, emit.integers([0]), emit.integers([1]), emit.integers([0])], [one])
      emit.node('ArgMax', [one], [place], { attributes: { axis: 0, keepdims: 0 } }) // []
      emit.node('CastLike', [place, given], [zero])
      emit.node('Sub', [given, zero], outputs)
    },
    gradient: (g) => [g, undefined],
  })
}
