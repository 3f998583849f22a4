/** Reverse-mode differentiation: from a scalar loss to symbolic gradients, which are ordinary tensors of the same graph. */

import { add } from './elementwise.ts'
import { sortNodes } from './onnx.ts'
import { formatShape, sameShape } from './shape.ts'
import { type Node, scalar, type Tensor } from './tensor.ts'

/**
 * The gradient of `loss` (shape []) with respect to each of `variables`, in their order and shapes.
 * A variable that the loss does not depend on is an error, because a silent zero would hide a forgotten connection.
 */
export function gradient(loss: Tensor, variables: readonly Tensor[]): readonly Tensor[] {
  if (loss.shape.length !== 0) {
    throw new RangeError(`Cannot differentiate a loss of shape ${formatShape(loss.shape)}: expected a single number`)
  }
  const results = pullBack(loss, scalar(1), { through: sortNodes([loss]), to: variables })
  return results.map((result, index) => {
    if (result !== undefined) return result
    const variable = variables[index]
    throw new Error(`Cannot differentiate: the loss does not depend on ${variable ? describe(variable) : index}`)
  })
}

/**
 * Takes the gradient of a tensor back to `to`, along the nodes of `through` alone (each after its inputs): tensors that other nodes make count as
 * given. Undefined where nothing leads. In the order and shapes of `to`.
 */
export function pullBack(
  tensor: Tensor,
  arriving: Tensor,
  { through, to }: { through: readonly Node[]; to: readonly Tensor[] },
): readonly (Tensor | undefined)[] {
  const canonical = canonicalParameters(through, to)
  const relevant = nodesBetween(through, new Set([...canonical.values(), ...to]))
  const gradients = new Map<Tensor, Tensor>([[canonical.get(nameOf(tensor)) ?? tensor, arriving]])

  for (const node of [...through].reverse()) {
    if (!relevant.has(node)) continue
    const fromOutputs = node.outputs.map((output) => gradients.get(output))
    if (fromOutputs.every((g) => g === undefined)) continue
    if (node.gradient === undefined)
      throw new TypeError(`Cannot differentiate: operator ${node.operator} has no gradient`)
    node.gradient(fromOutputs).forEach((contribution, index) => {
      const target = node.inputs[index]
      if (contribution === undefined || target === undefined) return
      if (!sameShape(contribution.shape, target.shape)) {
        throw new RangeError(
          `Gradient of ${node.operator} for input ${index} has shape ${formatShape(contribution.shape)}: expected ${formatShape(target.shape)}`,
        )
      }
      const key = canonical.get(nameOf(target)) ?? target
      const sofar = gradients.get(key)
      gradients.set(key, sofar === undefined ? contribution : add(sofar, contribution))
    })
  }
  return to.map((variable) => gradients.get(canonical.get(nameOf(variable)) ?? variable))
}

/** Parameters are equal when their names are: a weight may be asked for several times, as tied embeddings are. */
function canonicalParameters(nodes: readonly Node[], variables: readonly Tensor[]): Map<string, Tensor> {
  const found = new Map<string, Tensor>()
  const used = nodes.flatMap((node) => node.inputs)
  const wanted = new Set(variables.map(nameOf))
  for (const tensor of [...variables, ...used]) {
    const name = nameOf(tensor)
    if (wanted.has(name) && !found.has(name)) found.set(name, tensor)
  }
  found.delete('')
  return found
}

/** Nodes that depend on a wanted tensor: only through them can a gradient flow there. */
function nodesBetween(order: readonly Node[], wanted: ReadonlySet<Tensor>): Set<Node> {
  const names = new Set([...wanted].map(nameOf).filter((name) => name !== ''))
  const relevant = new Set<Node>()
  for (const node of order) {
    const depends = node.inputs.some(
      (tensor) =>
        wanted.has(tensor) ||
        names.has(nameOf(tensor)) ||
        (tensor.origin.kind === 'node' && relevant.has(tensor.origin.node)),
    )
    if (depends) relevant.add(node)
  }
  return relevant
}

function nameOf(tensor: Tensor): string {
  const { origin } = tensor
  return origin.kind === 'parameter' || origin.kind === 'input' ? `${origin.kind}:${origin.name}` : ''
}

function describe(tensor: Tensor): string {
  return nameOf(tensor) || `a value of shape ${formatShape(tensor.shape)}`
}
