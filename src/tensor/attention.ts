/**
 * Rotary positions and attention.
 *
 * `attention` is written once in plain operators. Where no gradient asks for the probabilities it is written as one fused node,
 * when ONNX Runtime has one of that form. `cachedAttention` is its twin for generation: the same result, over a cache of keys and values.
 */

import { reshape, sum } from './broadcast.ts'
import { add, cast, mul, sub } from './elementwise.ts'
import { repeatHeads } from './indexing.ts'
import { splitLast, transpose } from './layout.ts'
import { matmul } from './matmul.ts'
import { softmax } from './normalization.ts'
import { formatShape, type Shape } from './shape.ts'
import { apply, applyAll, constant, type Tensor } from './tensor.ts'

/** Cosines and sines of rotary angles, one row per position: [positions, H/2] each. */
export type RotaryTables = { readonly cos: Tensor; readonly sin: Tensor }

/** Tables for angles position · θ^(−2i/H), i < H/2 (RoFormer §3.2.2). */
export function rotaryTables({
  positions,
  headSize,
  theta,
}: {
  positions: number
  headSize: number
  theta: number
}): RotaryTables {
  const half = headSize / 2
  const table = (wave: (angle: number) => number) =>
    constant(
      'float32',
      [positions, half],
      Float32Array.from({ length: positions * half }, (_, i) =>
        wave(Math.floor(i / half) * theta ** ((-2 * (i % half)) / headSize)),
      ),
    )
  return { cos: table(Math.cos), sin: table(Math.sin) }
}

/** Turns pairs (i, i + H/2) of every head of x [B, L, N·H] by the angles of `positions` [B, L]: LLaMA's "rotate half" layout. */
export function rotary(
  x: Tensor,
  { positions, tables, heads }: { positions: Tensor; tables: RotaryTables; heads: number },
): Tensor {
  return apply({
    operator: 'rotary',
    inputs: [x, positions, tables.cos, tables.sin],
    dtype: x.dtype,
    shape: x.shape,
    onnx: (emit, inputs, outputs) =>
      emit.node('RotaryEmbedding', inputs, outputs, {
        domain: 'com.microsoft',
        attributes: { num_heads: heads, interleaved: 0 },
      }),
    // A rotation is undone by the opposite angles.
    gradient: (g) => {
      const back = { cos: tables.cos, sin: negated(tables.sin) }
      return [rotary(g, { positions, tables: back, heads }), undefined, undefined, undefined]
    },
  })
}

/** What to add to scores [L, L] so that no position looks ahead: a score far below any other, which softmax turns into exactly 0. */
export function causalMask(length: number): Float32Array {
  return Float32Array.from({ length: length * length }, (_, i) => (i % length > Math.floor(i / length) ? -1e9 : 0))
}

export type AttentionOptions = {
  heads: number
  /** Fewer key and value heads than query heads: grouped-query attention. */
  keyValueHeads?: number
  /** Added to the scores: [L, K] or [B, 1, L, K]; −∞ (or a very negative number) where a query must not look. */
  mask?: Tensor
}

/**
 * softmax(Q Kᵀ / √H + mask) V for each head ("Attention Is All You Need" §3.2).
 * query [B, L, N·H], key and value [B, K, Nkv·H] → [B, L, N·H], and the probabilities [B, N, L, K]; in self-attention, K = L.
 */
export function attention(
  inputs: { query: Tensor; key: Tensor; value: Tensor },
  options: AttentionOptions,
): { output: Tensor; probabilities: Tensor } {
  const { query, key, value } = inputs
  const { heads, keyValueHeads = heads, mask } = options
  const [batch = 1, length = 1, width] = query.shape
  const [, keys = 1] = key.shape
  if (typeof width !== 'number' || width % heads !== 0 || heads % keyValueHeads !== 0) {
    throw new RangeError(
      `Cannot attend: query ${formatShape(query.shape)} does not split into ${heads} heads (${keyValueHeads} of keys)`,
    )
  }
  const size = width / heads
  const scale = 1 / Math.sqrt(size)
  const groups = heads / keyValueHeads
  const perHead = (x: Tensor, n: number) => transpose(splitLast(x, n), [0, 2, 1, 3]) // [B, n, L, H]
  const whole = (x: Tensor, shape: Shape) => reshape(transpose(x, [0, 2, 1, 3]), shape) // [B, L, n·H]
  const ungroup = (x: Tensor) =>
    groups === 1 ? x : sum(reshape(x, [batch, keyValueHeads, groups, size, keys]), { axes: [2] }) // [B, Nkv, H, K]
  const queryHeads = perHead(query, heads)
  const keyHeads = repeatHeads(perHead(key, keyValueHeads), groups)
  const valueHeads = repeatHeads(perHead(value, keyValueHeads), groups)

  const [output, probabilities] = applyAll({
    operator: 'attention',
    inputs: mask === undefined ? [query, key, value] : [query, key, value, mask],
    outputs: [query, { dtype: query.dtype, shape: [batch, heads, length, keys] }],
    onnx: (emit, names, [output = '', probabilities = '']) => {
      if (emit.operators === 'cpu' && probabilities === '' && groups === 1 && mask === undefined) {
        emit.node('MultiHeadAttention', names, [output], {
          domain: 'com.microsoft',
          attributes: { num_heads: heads, scale },
          floats: ['scale'],
        })
        return
      }
      const scores = matmul(queryHeads, keyHeads, { transposeB: true, scale }) // [B, N, L, K]
      const weights = softmax(mask === undefined ? scores : add(scores, mask))
      if (probabilities !== '') emit.node('Identity', [emit.tensor(weights)], [probabilities])
      const mixed = matmul(weights, valueHeads) // [B, N, L, H]
      if (output !== '') emit.node('Identity', [emit.tensor(whole(mixed, query.shape))], [output])
    },
    gradient: ([g], [y, p]) => {
      if (g === undefined || p === undefined || y === undefined) return []
      const gHeads = perHead(g, heads)
      const toProbabilities = matmul(gHeads, valueHeads, { transposeB: true }) // [B, N, L, K]
      // Σ over keys of p · p̄ equals Σ over the head of y · ȳ, which is much smaller (FlashAttention, §3.1 and appendix B.2).
      const along = sum(perHead(mul(g, y), heads), { axes: [-1], keepDims: true }) // [B, N, L, 1]
      const toScores = mul(p, sub(toProbabilities, along))
      // Keys and values get their gradients as columns, q̄ᵀ S rather than Sᵀ q̄: the small factor is the one to be transposed.
      const columns = (x: Tensor, shape: Shape) => reshape(transpose(ungroup(x), [0, 3, 1, 2]), shape) // from [B, n, H, K]
      return [
        whole(matmul(toScores, keyHeads, { scale }), query.shape),
        columns(matmul(queryHeads, toScores, { transposeA: true, scale }), key.shape),
        columns(matmul(gHeads, p, { transposeA: true }), value.shape),
        undefined,
      ]
    },
  })
  if (output === undefined || probabilities === undefined) throw new Error('Attention has no output')
  return { output, probabilities }
}

export type KeyValueCache = {
  /** [B, Nkv, capacity, H] */
  readonly key: Tensor
  readonly value: Tensor
  /** What one step of an int8 cache stands for: [1, Nkv, 1, H] each. */
  readonly scales?: { readonly key: Tensor; readonly value: Tensor } | undefined
}

/**
 * Causal attention over everything in the cache and the new tokens, whose keys and values are appended to it.
 * query [B, L, N·H], key and value [B, L, Nkv·H] without rotary positions: the node adds them from `tables`.
 * `lastIndex` [B] int32 is, per row, the number of tokens in the cache after this call, minus 1; `total` int32 [] the largest such number.
 * When the returned cache is bound to the memory of the given one, nothing is copied.
 * A cache of float16 takes half of the memory, one of int8 with scales a quarter; what goes through it is rounded, and in int8 cut off at 127 steps.
 */
export function cachedAttention(
  inputs: { query: Tensor; key: Tensor; value: Tensor; cache: KeyValueCache; lastIndex: Tensor; total: Tensor },
  { heads, keyValueHeads, tables }: { heads: number; keyValueHeads: number; tables: RotaryTables },
): { output: Tensor; cache: KeyValueCache } {
  const { cache, lastIndex, total } = inputs
  const half = cache.key.dtype === 'float16'
  const alike = (x: Tensor) => (half ? cast(x, 'float16') : x)
  const [query, key, value] = [alike(inputs.query), alike(inputs.key), alike(inputs.value)]
  const { scales } = cache
  if ((cache.key.dtype === 'int8') !== (scales !== undefined)) {
    throw new TypeError(`Cannot attend to a cache of ${cache.key.dtype}: expected scales for int8 and for nothing else`)
  }
  const plain = [query, key, value, cache.key, cache.value, lastIndex, total, alike(tables.cos), alike(tables.sin)]
  const [mixed, nextKey, nextValue] = applyAll({
    operator: 'cachedAttention',
    inputs: scales === undefined ? plain : [...plain, scales.key, scales.value],
    outputs: [query, cache.key, cache.value],
    onnx: (emit, names, outputs) => {
      const unused = ['', '', ''] // positions, a bias of the scores, attention sinks
      const inputs =
        scales === undefined ? names : [...names.slice(0, plain.length), ...unused, ...names.slice(plain.length)]
      const codes = { k_quant_type: 'PER_CHANNEL', v_quant_type: 'PER_CHANNEL', kv_cache_bit_width: 8 }
      emit.node('GroupQueryAttention', inputs, outputs, {
        domain: 'com.microsoft',
        attributes: { num_heads: heads, kv_num_heads: keyValueHeads, do_rotary: 1, ...(scales !== undefined && codes) },
      })
    },
  })
  if (mixed === undefined || nextKey === undefined || nextValue === undefined)
    throw new Error('Attention has no output')
  return { output: half ? cast(mixed, 'float32') : mixed, cache: { key: nextKey, value: nextValue, scales } }
}

/**
 * How far each row reaches, as `cachedAttention` wants to be told, from a mask [B, total] (int64) of ones for the tokens that count: those in the cache
 * and the new ones. Rows may end in zeros; zeros before ones are not known to the cache.
 */
export function reachOfMask(mask: Tensor): { lastIndex: Tensor; total: Tensor } {
  const [batch = 1] = mask.shape
  const [lastIndex, total] = applyAll({
    operator: 'reachOfMask',
    inputs: [mask],
    outputs: [
      { dtype: 'int32', shape: [batch] },
      { dtype: 'int32', shape: [] },
    ],
    onnx: (emit, [ones = ''], [last = '', width = '']) => {
      const [count, before, sizes, columns] = [emit.value(), emit.value(), emit.value(), emit.value()]
      emit.node('ReduceSum', [ones, emit.integers([1])], [count], { attributes: { keepdims: 0 } })
      emit.node('Sub', [count, emit.constant('int64', [], BigInt64Array.of(1n))], [before])
      emit.node('Cast', [before], [last], { attributes: { to: 6 } })
      emit.node('Shape', [ones], [sizes])
      emit.node('Gather', [sizes, emit.constant('int64', [], BigInt64Array.of(1n))], [columns])
      emit.node('Cast', [columns], [width], { attributes: { to: 6 } })
    },
  })
  if (lastIndex === undefined || total === undefined) throw new Error('A mask has no reach')
  return { lastIndex, total }
}

const negatives = new WeakMap<Tensor, Tensor>()

/** The negated constant, made once per table so that all layers share it in the file. */
function negated(table: Tensor): Tensor {
  const known = negatives.get(table)
  if (known !== undefined) return known
  if (table.origin.kind !== 'constant') throw new TypeError('Rotary tables must be constants')
  const data = Float32Array.from(table.origin.data as Float32Array, (value) => -value)
  const result = constant('float32', table.shape as number[], data)
  negatives.set(table, result)
  negatives.set(result, table)
  return result
}
