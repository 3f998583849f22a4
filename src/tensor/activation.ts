/** Activation functions, named as in Hugging Face configs. */

import { add, erf, exp, mul, neg, scaleBy, sigmoid, square, sub, tanh } from './elementwise.ts'
import { apply, scalar, type Tensor } from './tensor.ts'

export type Activation = 'quick_gelu' | 'gelu' | 'gelu_tanh' | 'silu'

export function activate(x: Tensor, activation: Activation): Tensor {
  switch (activation) {
    case 'quick_gelu':
      return sigmoidGate(x, 1.702)
    case 'silu':
      return sigmoidGate(x, 1)
    case 'gelu':
      return gelu(x)
    case 'gelu_tanh':
      return geluTanh(x)
  }
}

/** x · sigmoid(slope · x): SiLU for slope 1, CLIP's quick GELU for slope 1.702. */
export function sigmoidGate(x: Tensor, slope: number): Tensor {
  return apply({
    operator: 'sigmoidGate',
    inputs: [x],
    dtype: x.dtype,
    shape: x.shape,
    onnx: (emit, inputs, outputs) =>
      emit.node('QuickGelu', inputs, outputs, {
        domain: 'com.microsoft',
        attributes: { alpha: slope },
        floats: ['alpha'],
      }),
    gradient: (g, y) => {
      // y = x s, so y' = s + slope · y · (1 − s)
      const s = sigmoid(slope === 1 ? x : scaleBy(x, slope))
      const rest = sub(y, mul(y, s))
      return [mul(g, add(s, slope === 1 ? rest : scaleBy(rest, slope)))]
    },
  })
}

/** The exact GELU, x · Φ(x), as in LLaVA-1.5's projector. */
export function gelu(x: Tensor): Tensor {
  return apply({
    operator: 'gelu',
    inputs: [x],
    dtype: x.dtype,
    shape: x.shape,
    onnx: (emit, inputs, outputs) => emit.node('Gelu', inputs, outputs, { domain: 'com.microsoft' }),
    gradient: (g) => {
      const cumulative = scaleBy(add(erf(scaleBy(x, Math.SQRT1_2)), scalar(1)), 0.5)
      const density = scaleBy(exp(neg(scaleBy(square(x), 0.5))), 1 / Math.sqrt(2 * Math.PI))
      return [mul(g, add(cumulative, mul(x, density)))]
    },
  })
}

/** GELU with tanh in place of the error function, as SigLIP uses it. */
export function geluTanh(x: Tensor): Tensor {
  const inner = scaleBy(add(x, scaleBy(mul(x, square(x)), 0.044715)), Math.sqrt(2 / Math.PI))
  return scaleBy(mul(x, add(tanh(inner), scalar(1))), 0.5)
}
