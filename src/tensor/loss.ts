/** Losses. */

import { reshape, sum } from './broadcast.ts'
import { exp, log, mul, scaleBy, sigmoid, sub } from './elementwise.ts'
import { addPicked, pick } from './indexing.ts'
import { formatShape } from './shape.ts'
import { apply, type Tensor } from './tensor.ts'

/** log(softmax(x)) over the last axis. */
export function logSoftmax(x: Tensor): Tensor {
  return apply({
    operator: 'logSoftmax',
    inputs: [x],
    dtype: x.dtype,
    shape: x.shape,
    onnx: (emit, inputs, outputs) => {
      if (emit.operators === 'cpu') emit.node('LogSoftmax', inputs, outputs, { attributes: { axis: -1 } })
      else {
        const shifted = sub(x, max(x)) // so that no exponential overflows
        const total = sum(exp(shifted), { axes: [-1], keepDims: true })
        emit.node('Identity', [emit.tensor(sub(shifted, log(total)))], outputs)
      }
    },
    gradient: (g, y) => [sub(g, mul(exp(y), sum(g, { axes: [-1], keepDims: true })))],
  })
}

/** The largest element along the last axis, which stays as 1. */
function max(x: Tensor): Tensor {
  return apply({
    operator: 'max',
    inputs: [x],
    dtype: x.dtype,
    shape: [...x.shape.slice(0, -1), 1],
    onnx: (emit, [input = ''], outputs) => emit.node('ReduceMax', [input, emit.integers([-1])], outputs),
  })
}

/**
 * Σ weight · −log p(target): logits [M, V], targets [M] int64, weights [M] → [].
 * Rows that carry no loss have weight 0; dividing by the sum of weights is left to whoever makes them, because with accumulation
 * the sum runs over several steps.
 */
export function crossEntropy(logits: Tensor, { targets, weights }: { targets: Tensor; weights: Tensor }): Tensor {
  const [count = 1] = logits.shape
  if (logits.shape.length !== 2 || targets.shape[0] !== count || weights.shape[0] !== count) {
    throw new RangeError(
      `Cannot compute cross-entropy: logits ${formatShape(logits.shape)}, targets ${formatShape(targets.shape)}, weights ${formatShape(weights.shape)}`,
    )
  }
  const logProbabilities = logSoftmax(logits) // [M, V]
  return apply({
    operator: 'crossEntropy',
    inputs: [logProbabilities, targets, weights, logits],
    dtype: logits.dtype,
    shape: [],
    onnx: (emit, [logP = '', target = '', weight = ''], [loss = '']) => {
      const [column, picked, flat, weighted, total] = [
        emit.value(),
        emit.value(),
        emit.value(),
        emit.value(),
        emit.value(),
      ]
      emit.node('Unsqueeze', [target, emit.integers([1])], [column])
      emit.node('GatherElements', [logP, column], [picked], { attributes: { axis: 1 } })
      emit.node('Squeeze', [picked, emit.integers([1])], [flat])
      emit.node('Mul', [flat, weight], [weighted])
      emit.node('ReduceSum', [weighted, emit.integers([0])], [total], { attributes: { keepdims: 0 } })
      emit.node('Neg', [total], [loss])
    },
    // Straight to the logits, (softmax − one-hot) · weight, which is cheaper and more exact than through the logarithm.
    gradient: (g) => {
      const rowWeights = mul(weights, g) // [M]
      const scaled = mul(exp(logProbabilities), reshape(rowWeights, [count, 1])) // [M, V]
      const toLogits = addPicked(scaled, targets, scaleBy(rowWeights, -1))
      return [undefined, undefined, scaleBy(mul(pick(logProbabilities, targets), g), -1), toLogits]
    },
  })
}

/**
 * Σ weight · −log sigmoid(label · logit) for labels ±1: the sigmoid loss of SigLIP (§3.2), all tensors of one shape → [].
 */
export function sigmoidLoss(logits: Tensor, { labels, weights }: { labels: Tensor; weights: Tensor }): Tensor {
  const signed = mul(logits, labels)
  return apply({
    operator: 'sigmoidLoss',
    inputs: [signed, weights],
    dtype: logits.dtype,
    shape: [],
    onnx: (emit, [x = '', weight = ''], [loss = '']) => {
      const [negative, softplus, weighted] = [emit.value(), emit.value(), emit.value()]
      emit.node('Neg', [x], [negative])
      emit.node('Softplus', [negative], [softplus])
      emit.node('Mul', [softplus, weight], [weighted])
      emit.node('ReduceSum', [weighted], [loss], { attributes: { keepdims: 0 } })
    },
    gradient: (g) => [scaleBy(mul(mul(sigmoid(scaleBy(signed, -1)), weights), g), -1), undefined],
  })
}
