/**
 * Writes symbolic tensors as an ONNX ModelProto (https://onnx.ai, IR version 10, operator set 21 plus ONNX Runtime's `com.microsoft`).
 *
 * Only what the outputs need is written. Parameters become graph inputs (training: they change in place) or initializers whose
 * data is supplied when the session is made (inference: they are read-only and may be packed by the runtime).
 */

import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf'
import { type AttributeProtoSchema, ModelProtoSchema, type NodeProtoSchema, type TensorProtoSchema } from './onnx_pb.ts'
import { formatShape, type Shape, sameShape } from './shape.ts'
import type { ConstantData, ElementType, Node, Tensor } from './tensor.ts'

export type OnnxAttribute = number | bigint | string | readonly number[]
export type OnnxNodeOptions = {
  /** '' is the ONNX standard; 'com.microsoft' holds ONNX Runtime's fused operators. */
  domain?: '' | 'com.microsoft'
  /** Numbers are written as int64 when integral, else as float; `floats` names those that are floats all the same. */
  attributes?: Readonly<Record<string, OnnxAttribute>>
  floats?: readonly string[]
}

/** What an operator's lowering may do: add nodes, name helper values, add small constants. */
export type OnnxEmitter = {
  readonly operators: OperatorSet
  node(type: string, inputs: readonly string[], outputs: readonly string[], options?: OnnxNodeOptions): void
  /** A fresh value name for a result inside one lowering. */
  value(): string
  constant(dtype: ElementType, shape: readonly number[], data: ConstantData): string
  /** int64 vector, as axes and target shapes are written. */
  integers(values: readonly number[]): string
  /** Writes what a symbolic tensor needs and returns its value name: for a composite written in terms of operators. */
  tensor(tensor: Tensor): string
}

export type GraphValue = { readonly name: string; readonly dtype: ElementType; readonly shape: Shape }
export type OnnxGraph = {
  readonly model: Uint8Array
  readonly inputs: readonly GraphValue[]
  readonly parameters: readonly GraphValue[]
  readonly outputs: readonly GraphValue[]
}

const elementTypeCodes: Record<ElementType, number> = {
  float32: 1,
  uint8: 2,
  int8: 3,
  int32: 6,
  int64: 7,
  bool: 9,
  float16: 10,
}

/**
 * `cpu`: what ONNX Runtime's CPU kernels have, fused products among them. `gpu`: without what its WebGPU kernels lack: FusedMatMul and
 * LogSoftmax, which would be computed on the CPU with a copy there and back, the statistics of norms, which would stay unwritten, and
 * MultiHeadAttention, which counts keys twice where subgroups have fewer than 8 threads.
 */
export type OperatorSet = 'cpu' | 'gpu'

/** Where a value lies: a file beside the model, and a stretch of it in bytes. */
export type ExternalValue = { readonly location: string; readonly offset?: number; readonly length?: number }

/** `replaceable`: initializers that a run could replace, so that ONNX Runtime uses them as they lie and does not repack them. */
export type ParameterPlacement = 'inputs' | 'initializers' | 'replaceable'

/**
 * Writes the graph that computes `outputs`.
 * @throws RangeError when two inputs or parameters of one name have different shapes or types
 */
export function writeOnnx(
  outputs: Readonly<Record<string, Tensor>>,
  options: {
    parameters: ParameterPlacement | ((name: string) => ParameterPlacement)
    name?: string
    operators?: OperatorSet
    /** Initializers whose values lie in files. */
    files?: (name: string) => ExternalValue | undefined
  },
): OnnxGraph {
  const draft = draftOf(outputs, options.operators ?? 'cpu')
  for (const node of sortNodes(Object.values(outputs))) writeNode(draft, node)
  const graphOutputs = Object.entries(outputs).map(([name, tensor]) => {
    const inner = nameOf(draft, tensor)
    if (inner !== name) emitterOf(draft).node('Identity', [inner], [name])
    return { name, dtype: tensor.dtype, shape: tensor.shape }
  })

  const { nodes, initializers, inputs, parameters } = draft
  const placement = ({ name }: GraphValue) =>
    typeof options.parameters === 'function' ? options.parameters(name) : options.parameters
  const asInputs = [...inputs, ...parameters.filter((value) => placement(value) !== 'initializers')]
  const external = parameters
    .filter((value) => placement(value) !== 'inputs')
    .map((value) => externalInitializer(value, options.files?.(value.name)))
  const model = create(ModelProtoSchema, {
    irVersion: 10n,
    producerName: 'llava-ts',
    opsetImport: [
      { domain: '', version: 21n },
      { domain: 'com.microsoft', version: 1n },
    ],
    graph: {
      name: options.name ?? 'graph',
      node: nodes,
      initializer: [...initializers, ...external],
      input: asInputs.map(valueInfo),
      output: graphOutputs.map(valueInfo),
    },
  })
  return { model: toBinary(ModelProtoSchema, model), inputs, parameters, outputs: graphOutputs }
}

/** A graph that is being written. */
type Draft = {
  readonly nodes: MessageInitShape<typeof NodeProtoSchema>[]
  readonly initializers: MessageInitShape<typeof TensorProtoSchema>[]
  readonly inputs: GraphValue[]
  readonly parameters: GraphValue[]
  readonly names: Map<Tensor, string>
  /** What an output or another node reads: other results are not computed. */
  readonly consumed: ReadonlySet<Tensor>
  readonly written: Set<Node>
  readonly integers: Map<string, string>
  readonly fresh: (stem: string) => string
  readonly operators: OperatorSet
}

function draftOf(outputs: Readonly<Record<string, Tensor>>, operators: OperatorSet): Draft {
  // An output that is computed here bears its own name, so that a run writes it straight to where it is wanted.
  const names = new Map<Tensor, string>()
  for (const [name, tensor] of Object.entries(outputs)) {
    if (tensor.origin.kind === 'node' && !names.has(tensor)) names.set(tensor, name)
  }
  const tensors = Object.values(outputs)
  let counter = 0
  const fresh = (stem: string): string => {
    const name = `${stem}${counter++}`
    return Object.hasOwn(outputs, name) ? fresh(stem) : name
  }
  return {
    nodes: [],
    initializers: [],
    inputs: [],
    parameters: [],
    names,
    consumed: new Set([...tensors, ...sortNodes(tensors).flatMap((node) => node.inputs)]),
    written: new Set(),
    integers: new Map(),
    fresh,
    operators,
  }
}

function emitterOf(draft: Draft): OnnxEmitter {
  const { nodes, initializers, integers, fresh, operators } = draft
  const constant: OnnxEmitter['constant'] = (dtype, shape, data) => {
    const name = fresh('c')
    initializers.push({
      name,
      dataType: elementTypeCodes[dtype],
      dims: shape.map(BigInt),
      rawData: new Uint8Array(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength)),
    })
    return name
  }
  return {
    operators,
    constant,
    value: () => fresh('v'),
    node(type, inputs, outputs, { domain = '', attributes = {}, floats = [] } = {}) {
      nodes.push({
        opType: type,
        domain,
        name: `${nodes.length}:${type}`,
        input: [...inputs],
        output: [...outputs],
        attribute: Object.entries(attributes).map(([name, value]) => attribute(name, value, floats.includes(name))),
      })
    },
    integers(values) {
      const key = values.join(',')
      const name = integers.get(key) ?? constant('int64', [values.length], BigInt64Array.from(values, BigInt))
      integers.set(key, name)
      return name
    },
    tensor(tensor) {
      for (const node of sortNodes([tensor])) writeNode(draft, node)
      return nameOf(draft, tensor)
    },
  }
}

/** Writes a node unless it is written; those that it reads have been. */
function writeNode(draft: Draft, node: Node): void {
  const { written, consumed, names } = draft
  if (written.has(node)) return
  written.add(node)
  const inputs = node.inputs.map((input) => nameOf(draft, input))
  const outputs = node.outputs.map((output) => (consumed.has(output) || names.has(output) ? nameOf(draft, output) : ''))
  // A node reached only through a composite has no recorded reader yet: all its outputs get names.
  const isUnread = outputs.every((name) => name === '')
  node.onnx(emitterOf(draft), inputs, isUnread ? node.outputs.map((output) => nameOf(draft, output)) : outputs)
}

function nameOf(draft: Draft, tensor: Tensor): string {
  const known = draft.names.get(tensor)
  if (known !== undefined) return known
  const name = declare(draft, tensor)
  draft.names.set(tensor, name)
  return name
}

/** @throws RangeError when two inputs or parameters of one name have different shapes or types */
function declare(draft: Draft, { origin, dtype, shape }: Tensor): string {
  const { fresh, inputs, parameters } = draft
  if (origin.kind === 'constant') return emitterOf(draft).constant(dtype, shape as readonly number[], origin.data)
  if (origin.kind === 'node') return fresh(origin.node.operator)
  const list = origin.kind === 'input' ? inputs : parameters
  const twin = list.find((value) => value.name === origin.name)
  if (twin === undefined) list.push({ name: origin.name, dtype, shape })
  else if (!sameShape(twin.shape, shape) || twin.dtype !== dtype) {
    throw new RangeError(
      `Cannot write graph: ${origin.kind} ${origin.name} is used with shapes ${formatShape(twin.shape)} and ${formatShape(shape)}`,
    )
  }
  return origin.name
}

/** Every node that the tensors depend on, each after its inputs. Iterative: graphs are deeper than the call stack. */
export function sortNodes(tensors: readonly Tensor[]): readonly Node[] {
  const order: Node[] = []
  const seen = new Set<Node>()
  const stack: { node: Node; next: number }[] = []
  const push = (tensor: Tensor) => {
    if (tensor.origin.kind !== 'node' || seen.has(tensor.origin.node)) return
    seen.add(tensor.origin.node)
    stack.push({ node: tensor.origin.node, next: 0 })
  }
  for (const tensor of tensors) {
    push(tensor)
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const dependency = top.node.inputs[top.next++]
      if (dependency !== undefined) push(dependency)
      else {
        order.push(top.node)
        stack.pop()
      }
    }
  }
  return order
}

function attribute(name: string, value: OnnxAttribute, float: boolean): MessageInitShape<typeof AttributeProtoSchema> {
  if (typeof value === 'string') return { name, type: 3, s: new TextEncoder().encode(value) }
  if (typeof value === 'bigint') return { name, type: 2, i: value }
  if (typeof value === 'number') {
    return float || !Number.isInteger(value) ? { name, type: 1, f: value } : { name, type: 2, i: BigInt(value) }
  }
  return { name, type: 7, ints: value.map(BigInt) }
}

function valueInfo({ name, dtype, shape }: GraphValue) {
  const dim = shape.map((size) => ({
    value:
      typeof size === 'number'
        ? { case: 'dimValue' as const, value: BigInt(size) }
        : { case: 'dimParam' as const, value: size },
  }))
  const tensorType = { elemType: elementTypeCodes[dtype], shape: { dim } }
  return { name, type: { value: { case: 'tensorType' as const, value: tensorType } } }
}

function externalInitializer(
  { name, dtype, shape }: GraphValue,
  file: ExternalValue = { location: `${name}.supplied-by-the-session` },
): MessageInitShape<typeof TensorProtoSchema> {
  return {
    name,
    dataType: elementTypeCodes[dtype],
    dims: shape.map((dim) => BigInt(dim)),
    dataLocation: 1,
    externalData: Object.entries(file).map(([key, value]) => ({ key, value: `${value}` })),
  }
}
