/**
 * Weights of fewer bits: symbolic tensors that stand for a float32 weight [Out, In] and remember how it is stored.
 *
 * `linear` and `gatherRows` read the stored form (ONNX Runtime has products for it); anything else reads the float32 weight that it stands for.
 * So model code names no precision: the weight that it is given decides. How numbers become codes: runtime/quantize.ts.
 */

import { add, cast, mul } from './elementwise.ts'
import { slice } from './layout.ts'
import { knownDim, type Shape } from './shape.ts'
import { apply, constant, type Tensor } from './tensor.ts'
import { codesOfTokens, middle } from './token-codes.ts'

/** A float16 weight as float32. */
export function widen(half: Tensor): Tensor {
  return apply({
    operator: widened,
    inputs: [half],
    dtype: 'float32',
    shape: half.shape,
    onnx: (emit, inputs, outputs) => emit.node('Cast', inputs, outputs, { attributes: { to: 1 } }),
  })
}

/**
 * Codes of 8 bits with one scale per output channel: values int8 or uint8, whose zero is 128, [In, Out], as the integer product wants them, and
 * scales float32 [Out] → [Out, In]. In a linear layer the activations become 8 bits too, each token with a scale of its own, and the product is one
 * of integers. Where the sums of such products overflow (runtime/integer-sums.ts), int8 values must lie between −64 and 64.
 */
export function fromChannels({ values, scales }: { values: Tensor; scales: Tensor }): Tensor {
  const [width = 1, out = 1] = values.shape
  return apply({
    operator: channels,
    inputs: [values, scales],
    dtype: 'float32',
    shape: [out, width],
    onnx: (emit, [codes = '', scale = ''], outputs) => {
      const [turned, numbers, column] = [emit.value(), emit.value(), emit.value()]
      emit.node('Transpose', [codes], [turned], { attributes: { perm: [1, 0] } })
      emit.node('Cast', [turned], [numbers], { attributes: { to: 1 } })
      emit.node('Unsqueeze', [scale, emit.integers([1])], [column])
      if (values.dtype === 'int8') emit.node('Mul', [numbers, column], outputs)
      else {
        const centred = emit.value()
        emit.node('Sub', [numbers, emit.constant('float32', [], Float32Array.of(middle))], [centred])
        emit.node('Mul', [centred, column], outputs)
      }
    },
  })
}

/**
 * Codes of 4 or 8 bits with a scale for each `block` numbers of a row: values uint8 [Out, blocks, block · bits / 8], low half first, zero at the
 * middle code; scales float32 [Out, blocks] → [Out, In]. Where `block` does not divide In, the last block of a row is filled up.
 */
export function fromBlocks(
  { values, scales }: { values: Tensor; scales: Tensor },
  { bits, width }: { bits: 4 | 8; width: number },
): Tensor {
  return apply({
    operator: bits === 4 ? blocks4 : blocks8,
    inputs: [values, scales],
    dtype: 'float32',
    shape: [values.shape[0] ?? 1, width],
    onnx: (emit, _, outputs) =>
      emit.node('Identity', [emit.tensor(expanded(values, scales, { bits, width }))], outputs),
  })
}

/** x Wᵀ + b for a weight that is stored in codes: x [.., In] → [.., Out]. Undefined for any other weight. */
export function linearOfCodes(x: Tensor, weight: Tensor, bias: Tensor | undefined): Tensor | undefined {
  const stored = storedForm(weight)
  if (stored === undefined || stored.operator === widened) return undefined
  const product =
    stored.operator === channels
      ? productOfIntegers(x, stored)
      : productOfBlocks(x, stored, knownDim(weight.shape[1], 'the width of a weight'))
  return bias === undefined ? product : add(product, bias)
}

/** Rows of a weight that is stored in fewer bits, of which only the rows asked for are read. Undefined for any other table. */
export function rowsOfCodes(table: Tensor, gather: (part: Tensor) => Tensor): Tensor | undefined {
  const stored = storedForm(table)
  if (stored === undefined || stored.operator === channels) return undefined
  const [values, scales] = stored.inputs.map(gather)
  if (values === undefined) return undefined
  if (scales === undefined) return widen(values)
  return expanded(values, scales, { bits: bitsOf(stored), width: knownDim(table.shape[1], 'the width of a table') })
}

const widened = 'widen'
const channels = 'fromChannels'
const blocks4 = 'fromBlocks4'
const blocks8 = 'fromBlocks8'

type StoredForm = { readonly operator: string; readonly inputs: readonly Tensor[] }

function storedForm({ origin }: Tensor): StoredForm | undefined {
  if (origin.kind !== 'node' || ![widened, channels, blocks4, blocks8].includes(origin.node.operator)) return undefined
  return origin.node
}

function bitsOf({ operator }: StoredForm): 4 | 8 {
  return operator === blocks4 ? 4 : 8
}

function productOfBlocks(x: Tensor, stored: StoredForm, width: number): Tensor {
  const [values, scales] = stored.inputs as [Tensor, Tensor]
  const bits = bitsOf(stored)
  const [out = 1, , bytes] = values.shape
  return apply({
    operator: 'productOfBlocks',
    inputs: [x, values, scales],
    dtype: 'float32',
    shape: [...x.shape.slice(0, -1), out],
    onnx: (emit, inputs, outputs) =>
      emit.node('MatMulNBits', inputs, outputs, {
        domain: 'com.microsoft',
        attributes: {
          K: width,
          N: knownDim(out, 'the outputs of a weight'),
          bits,
          block_size: (knownDim(bytes, 'the bytes of a block') * 8) / bits,
          accuracy_level: 4, // products of 8 bit integers; otherwise the weight becomes float32 at each run
        },
      }),
  })
}

/**
 * The scale of a token is its largest absolute value: LLaMA's outliers would drown the other tokens if all shared one. They stand in few channels, always
 * the same: the channels with the largest numbers are multiplied in float32, so that the others share the scale among themselves (LLM.int8(), Dettmers
 * et al. 2022 §3.2; here a fixed count of channels instead of a threshold).
 */
function productOfIntegers(x: Tensor, stored: StoredForm): Tensor {
  const [values, scales] = stored.inputs as [Tensor, Tensor]
  const { codes, scale, channels, outliers } = codesOfTokens(x)
  return apply({
    operator: 'productOfIntegers',
    inputs: [codes, values, scales, scale, channels, outliers],
    dtype: 'float32',
    shape: [...x.shape.slice(0, -1), values.shape[1] ?? 1],
    onnx: (emit, [a = '', b = '', columns = '', tokens = '', channel = '', large = ''], outputs) => {
      const one = emit.constant('float32', [], Float32Array.of(1))
      const zero = emit.constant('uint8', [], Uint8Array.of(middle))
      const isUnsigned = values.dtype === 'uint8'
      const zeros = isUnsigned ? [zero, zero] : [zero]
      const [product, most, rest] = [emit.value(), emit.value(), emit.value()]
      const [rows, numbers, weights] = [emit.value(), emit.value(), emit.value()]
      emit.node('MatMulIntegerToFloat', [a, b, one, columns, ...zeros], [product], { domain: 'com.microsoft' })
      emit.node('Mul', [product, tokens], [most])
      emit.node('Gather', [b, channel], [rows], { attributes: { axis: 0 } }) // [k, Out]
      const codes = isUnsigned ? emit.value() : numbers
      emit.node('Cast', [rows], [codes], { attributes: { to: 1 } })
      if (isUnsigned) emit.node('Sub', [codes, emit.constant('float32', [], Float32Array.of(middle))], [numbers])
      emit.node('Mul', [numbers, columns], [weights])
      emit.node('MatMul', [large, weights], [rest])
      emit.node('Add', [most, rest], outputs)
    },
  })
}

/** Numbers [.., In] of codes uint8 [.., blocks, bytes] and scales [.., blocks]. */
function expanded(values: Tensor, scales: Tensor, { bits, width }: { bits: 4 | 8; width: number }): Tensor {
  const bytes = knownDim(values.shape.at(-1), 'the bytes of a block')
  const count = knownDim(values.shape.at(-2), 'the blocks of a row')
  const leading = values.shape.slice(0, -2)
  const codes = bits === 8 ? values : unpacked(values)
  const block = (bytes * 8) / bits
  const zero = constant('float32', [], Float32Array.of(bits === 8 ? -middle : -8))
  const numbers = mul(add(cast(codes, 'float32'), zero), columnOf(scales)) // [.., blocks, block]
  const whole = joinLast(numbers, [...leading, count * block])
  return count * block === width ? whole : slice(whole, { axis: -1, start: 0, end: width })
}

/** Two codes of 4 bits per byte, low half first: [.., bytes] → [.., 2 · bytes]. */
function unpacked(values: Tensor): Tensor {
  const bytes = knownDim(values.shape.at(-1), 'the bytes of a block')
  const shape: Shape = [...values.shape.slice(0, -1), 2 * bytes]
  const pairs = apply({
    operator: 'unpacked',
    inputs: [values],
    dtype: 'uint8',
    shape: [...values.shape, 2],
    onnx: (emit, [codes = ''], outputs) => {
      const [low, high, a, b] = [emit.value(), emit.value(), emit.value(), emit.value()]
      emit.node('BitwiseAnd', [codes, emit.constant('uint8', [], Uint8Array.of(15))], [low])
      emit.node('BitShift', [codes, emit.constant('uint8', [], Uint8Array.of(4))], [high], {
        attributes: { direction: 'RIGHT' },
      })
      emit.node('Unsqueeze', [low, emit.integers([-1])], [a])
      emit.node('Unsqueeze', [high, emit.integers([-1])], [b])
      emit.node('Concat', [a, b], outputs, { attributes: { axis: -1 } })
    },
  })
  return joinLast(pairs, shape)
}

/** [.., M, N] to [.., M·N], also where several of the other sizes are only known when the graph runs. */
function joinLast(x: Tensor, shape: Shape): Tensor {
  return apply({
    operator: 'joinLast',
    inputs: [x],
    dtype: x.dtype,
    shape,
    onnx: (emit, [input = ''], outputs) =>
      // 0 keeps a size, −1 is what is left.
      emit.node(
        'Reshape',
        [input, emit.integers(shape.map((_, axis) => (axis === shape.length - 1 ? -1 : 0)))],
        outputs,
      ),
  })
}

/** [.., M] to [.., M, 1]. */
function columnOf(x: Tensor): Tensor {
  return apply({
    operator: 'columnOf',
    inputs: [x],
    dtype: x.dtype,
    shape: [...x.shape, 1],
    onnx: (emit, [input = ''], outputs) => emit.node('Unsqueeze', [input, emit.integers([-1])], outputs),
  })
}
