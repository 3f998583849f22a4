/**
 * The text encoder: a text in, one vector of the space that it shares with pictures out.
 *
 * CLIP's looks only back and is read where the text ends (Radford et al. 2021 §2.4). SigLIP's looks everywhere and is read at the last position,
 * padding or not (Zhai et al. 2023 §3.1; as in its published code). Both are the blocks of the vision encoder over tokens with learned positions.
 */

import { add, constant, expectShape, gatherRows, linear, recompute, rows, type Tensor } from '../tensor/index.ts'
import type { TextEncoderConfig } from './clip-config.ts'
import { encoderBlock, norm } from './encoder-block.ts'
import { type WeightSource, within } from './weights.ts'

export type TextInput = {
  /** Token ids [N, T] int64. */
  readonly ids: Tensor
  /** 0 … T − 1: [T] int64. */
  readonly positions: Tensor
  /** Of the N·T positions, the one at which each text is read (`readingPlaces`): [N] int64. */
  readonly places: Tensor
  /** [T, T], which keeps CLIP's texts from looking ahead; SigLIP's have none. */
  readonly mask: Tensor | undefined
}

/** Texts → text embeddings [N, E], of any length. */
export function textEmbeddings(
  config: TextEncoderConfig,
  weights: WeightSource,
  { ids, positions, places, mask, checkpointing = false }: TextInput & { checkpointing?: boolean },
): Tensor {
  const [N = 1, T = 1] = ids.shape
  expectShape(positions.shape, [T], 'Positions of text tokens')
  expectShape(places.shape, [N], 'Places at which texts are read')
  if ((mask !== undefined) !== isCausal(config)) {
    throw new RangeError(`Cannot read texts ${mask ? 'with' : 'without'} a mask: ${config.kind} expects the opposite`)
  }
  const own = within(weights, 'textEncoder')
  const { vocabulary, width: D, context, embeddingWidth } = config
  const words = gatherRows(own('tokenEmbedding.weight', [vocabulary, D]), ids) // [N, T, D]
  let x = add(words, gatherRows(own('positionEmbedding', [context, D]), positions)) // [N, T, D]
  for (let block = 0; block < config.depth; block++) {
    const step = (x: Tensor) => encoderBlock(config, within(own, `blocks.${block}`), { x, mask })
    x = checkpointing ? recompute(x, step) : step(x)
  }
  const read = norm(config, within(own, 'norm'), gatherRows(rows(x), places)) // [N, D]
  return linear(read, {
    weight: own('projection.weight', [embeddingWidth, D]),
    bias: config.kind === 'siglip' ? own('projection.bias', [embeddingWidth]) : undefined,
  }) // [N, E]
}

/** Whether texts are read without looking ahead. */
export function isCausal({ kind }: TextEncoderConfig): boolean {
  return kind === 'clip'
}

/** 0 … T − 1 as a constant: the positions of texts whose length is known. */
export function textPositions(length: number): Tensor {
  return constant(
    'int64',
    [length],
    BigInt64Array.from({ length }, (_, i) => BigInt(i)),
  )
}

/**
 * The position at which each text of T tokens is read, among the N·T positions of all: [N].
 * @throws RangeError for a text that does not have the token at which it is to be read
 */
export function readingPlaces({ readAt }: TextEncoderConfig, texts: readonly (readonly number[])[]): number[] {
  return texts.map((ids, index) => {
    const place = readAt === 'last' ? ids.length - 1 : readAt === 'largest' ? largestAt(ids) : ids.indexOf(readAt)
    if (place >= 0) return index * ids.length + place
    throw new RangeError(`Cannot read text ${index}: its tokens have no end token ${readAt}`)
  })
}

/** Where the largest id stands first: in the first CLIP's vocabulary that is the end token. */
function largestAt(ids: readonly number[]): number {
  return ids.indexOf(ids.reduce((one, other) => Math.max(one, other), -1))
}
