/** The operators and what is done with them: everything that model and training code uses of this folder. */

export { type Activation, activate, gelu, geluTanh, sigmoidGate } from './activation.ts'
export {
  type AttentionOptions,
  attention,
  cachedAttention,
  causalMask,
  type KeyValueCache,
  type RotaryTables,
  reachOfMask,
  rotary,
  rotaryTables,
} from './attention.ts'
export { expand, reshape, reshapeLike, sum, sumTo, zeros } from './broadcast.ts'
export { type Dropout, dropout } from './dropout.ts'
export {
  add,
  cast,
  div,
  erf,
  exp,
  floor,
  log,
  minimum,
  mul,
  neg,
  scaleBy,
  sigmoid,
  sqrt,
  square,
  sub,
  sumOfSquares,
  tanh,
} from './elementwise.ts'
export { gradient } from './gradient.ts'
export { addPicked, addRows, gatherRows, pick, repeatHeads, replaceRows } from './indexing.ts'
export { concat, lastPositions, padEnd, rows, slice, splitLast, transpose } from './layout.ts'
export { crossEntropy, logSoftmax, sigmoidLoss } from './loss.ts'
export { addLowRank, linear, matmul } from './matmul.ts'
export { largestOfChannels, layerNorm, mean, rmsNorm, softmax } from './normalization.ts'
export { type GraphValue, type OnnxGraph, type OperatorSet, type ParameterPlacement, writeOnnx } from './onnx.ts'
export { fromBlocks, fromChannels, widen } from './quantized.ts'
export { recompute } from './recompute.ts'
export { type Dim, expectShape, formatShape, knownDim, productOf, type Shape, sameShape } from './shape.ts'
export { constant, type ElementType, input, parameter, scalar, type Tensor } from './tensor.ts'
