/**
 * Symbolic tensors: a value that a graph will compute, described by element type, shape and where it comes from.
 *
 * Nothing is computed here. `gradient` (gradient.ts) derives new symbolic tensors, `writeOnnx` (onnx.ts) turns them into a
 * graph file, and `runtime/` runs it. An operator is one function: shape rule, ONNX node, gradient.
 */

import type { OnnxEmitter } from './onnx.ts'
import { formatShape, type Shape } from './shape.ts'

export type ElementType = 'float32' | 'float16' | 'int64' | 'int32' | 'uint8' | 'int8' | 'bool'
export type ConstantData = Float32Array | Uint16Array | BigInt64Array | Int32Array | Uint8Array | Int8Array

export type Tensor = {
  readonly dtype: ElementType
  readonly shape: Shape
  readonly origin: Origin
}

export type Origin =
  | { readonly kind: 'input'; readonly name: string }
  | { readonly kind: 'parameter'; readonly name: string }
  | { readonly kind: 'constant'; readonly data: ConstantData }
  | { readonly kind: 'node'; readonly node: Node; readonly output: number }

/** One application of an operator. */
export type Node = {
  readonly operator: string
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly Tensor[]
  readonly onnx: Lowering
  readonly gradient: GradientRule | undefined
}

/**
 * How a node is written into the graph file. `inputs` and `outputs` are value names; an output that nobody reads is the empty
 * string, so a composite operator can choose a fused ONNX node when its intermediate results are not wanted by a gradient.
 */
export type Lowering = (emit: OnnxEmitter, inputs: readonly string[], outputs: readonly string[]) => void

/**
 * From the gradients of the outputs (undefined: the loss does not depend on that output) to those of the inputs
 * (undefined: not differentiable there). Rules are written with operators, so a gradient can be differentiated again.
 */
export type GradientRule = (gradients: readonly (Tensor | undefined)[]) => readonly (Tensor | undefined)[]

/** A value given to the graph at every run. */
export function input(name: string, dtype: ElementType, shape: Shape): Tensor {
  return { dtype, shape, origin: { kind: 'input', name } }
}

/** A weight: given once and kept; the only tensors that `gradient` is usually asked about. */
export function parameter(name: string, shape: readonly number[], dtype: ElementType = 'float32'): Tensor {
  return { dtype, shape, origin: { kind: 'parameter', name } }
}

const dataTypes = {
  float32: Float32Array,
  float16: Uint16Array,
  int64: BigInt64Array,
  int32: Int32Array,
  uint8: Uint8Array,
  int8: Int8Array,
  bool: Uint8Array,
} as const satisfies Record<ElementType, unknown>

/** A value written into the graph file. Keep it small: weights are parameters. */
export function constant(dtype: ElementType, shape: readonly number[], data: ConstantData): Tensor {
  const elements = shape.reduce((total, dim) => total * dim, 1)
  if (!(data instanceof dataTypes[dtype])) {
    throw new TypeError(
      `Cannot make a ${dtype} constant from ${data.constructor.name}: expected ${dataTypes[dtype].name}`,
    )
  }
  if (data.length !== elements) {
    throw new RangeError(
      `Cannot make a constant of shape ${formatShape(shape)} from ${data.length} values: expected ${elements}`,
    )
  }
  return { dtype, shape, origin: { kind: 'constant', data } }
}

/** A float32 constant without axes. */
export function scalar(value: number): Tensor {
  return constant('float32', [], new Float32Array([value]))
}

export type NodeDescription = {
  readonly operator: string
  readonly inputs: readonly Tensor[]
  readonly outputs: readonly { readonly dtype: ElementType; readonly shape: Shape }[]
  readonly onnx: Lowering
  /** Receives the node's own outputs, because many rules are shortest in terms of the result. */
  readonly gradient?: (
    gradients: readonly (Tensor | undefined)[],
    outputs: readonly Tensor[],
  ) => readonly (Tensor | undefined)[]
}

/** Applies an operator: the way every operator function ends. Returns one tensor per output. */
export function applyAll(description: NodeDescription): readonly Tensor[] {
  const { operator, inputs, onnx, gradient } = description
  const outputs: Tensor[] = []
  const node: Node = {
    operator,
    inputs,
    outputs,
    onnx,
    gradient: gradient && ((gradients) => gradient(gradients, outputs)),
  }
  description.outputs.forEach(({ dtype, shape }, output) => {
    outputs.push({ dtype, shape, origin: { kind: 'node', node, output } })
  })
  return outputs
}

/** `applyAll` for the many operators with one result: the gradient rule gets one gradient and the result. */
export function apply(
  description: Omit<NodeDescription, 'outputs' | 'gradient'> & {
    readonly dtype: ElementType
    readonly shape: Shape
    readonly gradient?: (gradient: Tensor, result: Tensor) => readonly (Tensor | undefined)[]
  },
): Tensor {
  const { dtype, shape, gradient, ...rest } = description
  const [result] = applyAll({
    ...rest,
    outputs: [{ dtype, shape }],
    ...(gradient && {
      gradient: ([g], [y]) => {
        if (g === undefined || y === undefined) throw new Error(`No gradient reached the result of ${rest.operator}`)
        return gradient(g, y)
      },
    }),
  })
  if (result === undefined) throw new Error(`Operator ${rest.operator} has no output`)
  return result
}
