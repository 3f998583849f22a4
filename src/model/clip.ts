/**
 * CLIP (Radford et al. 2021 §2.3, figure 3) and SigLIP (Zhai et al. 2023 §3): pictures and texts as vectors of one space, in which a picture lies near
 * the texts that are true of it.
 *
 *     e_v = pool(g(X_v))                      picture embedding   `pictureEmbeddings`   (here)
 *     e_t = f(X_t)                            text embedding      `textEmbeddings`      (text-encoder.ts)
 *     logit = exp(s) · cos(e_v, e_t) + b      how well they go together   `similarityLogits`   (here)
 */

import {
  add,
  attention,
  div,
  exp,
  expectShape,
  linear,
  matmul,
  mul,
  reshape,
  slice,
  sqrt,
  square,
  sum,
  type Tensor,
} from '../tensor/index.ts'
import type { ClipConfig } from './clip-config.ts'
import { affine, mlp, norm } from './encoder-block.ts'
import { hiddenState, repeatFor } from './vision-encoder.ts'
import { type WeightSource, within } from './weights.ts'

/** Pixels [I, 3, S, S], normalised → picture embeddings [I, E], of any length. */
export function pictureEmbeddings(config: ClipConfig, weights: WeightSource, pixels: Tensor): Tensor {
  return poolPictures(config, weights, hiddenState(config.vision, weights, { pixels, layer: -1 }))
}

/** The vision encoder's last hidden state [I, P (+1), C] → picture embeddings [I, E]. */
export function poolPictures(config: ClipConfig, weights: WeightSource, hidden: Tensor): Tensor {
  const { vision } = config
  const [I = 1] = hidden.shape
  expectShape(hidden.shape, ['_', '_', vision.width], 'Picture head input')
  const head = within(weights, 'pictureHead')
  const postNorm = within(weights, 'visionEncoder.postNorm')
  if (!vision.classToken) return attendToAll(config, head, norm(vision, postNorm, hidden))
  const classToken = reshape(slice(hidden, { axis: 1, start: 0, end: 1 }), [I, vision.width])
  const weight = head('projection.weight', [config.embeddingWidth, vision.width])
  return linear(norm(vision, postNorm, classToken), { weight }) // [I, E]
}

/** SigLIP's pooling: a learned query looks at all patches; what it finds passes one MLP. x [I, P, C] → [I, C] */
function attendToAll({ vision }: ClipConfig, weights: WeightSource, x: Tensor): Tensor {
  const { width: C, heads } = vision
  const [I = 1] = x.shape
  const all = {
    weight: weights('attention.inputs.weight', [3 * C, C]),
    bias: weights('attention.inputs.bias', [3 * C]),
  }
  const part = (index: number) => {
    const range = { axis: 0, start: index * C, end: (index + 1) * C }
    return { weight: slice(all.weight, range), bias: slice(all.bias, range) }
  }
  const query = repeatFor(x, linear(weights('probe', [1, 1, C]), part(0))) // [I, 1, C]
  const [key, value] = [linear(x, part(1)), linear(x, part(2))] // [I, P, C]
  const { output } = attention({ query, key, value }, { heads })
  const found = linear(output, affine(within(weights, 'attention.output'), [C, C]))
  const pooled = add(found, mlp(vision, within(weights, 'mlp'), norm(vision, within(weights, 'norm'), found)))
  return reshape(pooled, [I, C])
}

/** Embeddings of length 1: [.., E]. */
export function unitLength(x: Tensor): Tensor {
  return div(x, sqrt(sum(square(x), { axes: [-1], keepDims: true })))
}

/** Unit picture embeddings [I, E] and unit text embeddings [N, E] → logits [I, N]. */
export function similarityLogits(
  config: Pick<ClipConfig, 'kind' | 'bias'>,
  weights: WeightSource,
  { pictures, texts }: { pictures: Tensor; texts: Tensor },
): Tensor {
  const own = within(weights, 'similarity')
  const cosine = matmul(pictures, texts, { transposeB: true }) // [I, N]
  const shape = scaleShape(config)
  const scaled = mul(cosine, exp(reshape(own('scale', shape), [])))
  return config.bias ? add(scaled, reshape(own('bias', shape), [])) : scaled
}

/** CLIP keeps its scale as a number, SigLIP as a list of one. */
export function scaleShape({ kind }: Pick<ClipConfig, 'kind'>): readonly number[] {
  return kind === 'clip' ? [] : [1]
}
