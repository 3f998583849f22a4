/** The computations of a model as outputs of symbolic graphs: what `compileModel` compiles and what the ONNX export writes. */

import type { LlavaConfig } from '../model/config.ts'
import { type Context, languageModel, logits } from '../model/language-model.ts'
import { arrange, mergedSequence } from '../model/llava.ts'
import { project } from '../model/projector.ts'
import { patchFeatures } from '../model/vision-encoder.ts'
import { parameters, type WeightSource } from '../model/weights.ts'
import { type Dim, gatherRows, input, rows, type Tensor } from '../tensor/index.ts'
import type { CacheType } from './kv-cache.ts'

/** The computations of a model, by name, as outputs of symbolic graphs in float32. */
export function modelGraphs(config: LlavaConfig): Readonly<Record<string, Readonly<Record<string, Tensor>>>> {
  return {
    encode: encodeGraph(config, parameters),
    ...(config.tiles && { arrange: arrangeGraph(config, parameters) }),
    language: languageGraph(config, parameters, 'float32'),
  }
}

export function encodeGraph(config: LlavaConfig, weights: WeightSource): Record<string, Tensor> {
  const { imageSide: S } = config.vision
  const features = patchFeatures(config, weights, input('pixels', 'float32', ['I', 3, S, S])) // [I, P, C]
  return { patchFeatures: features, visualTokens: project(config, weights, features) } // [I, P, D]
}

export function arrangeGraph(config: LlavaConfig, weights: WeightSource): Record<string, Tensor> {
  const tokens = input('tokens', 'float32', ['J', config.visualTokens, config.language.width])
  const sources = input('sources', 'int64', ['K', 'M'])
  const shares = input('shares', 'float32', ['K', 'M', 1])
  return { visualTokens: arrange(config, weights, { tokens, sources, shares }) } // [M, D]
}

/** Token ids [B, L] and visual tokens → logits [N, V] after N of the positions, mostly the last of each row, and the longer cache. For one token more, L is 1. */
export function languageGraph(
  config: LlavaConfig,
  weights: WeightSource,
  cacheType: CacheType,
): Record<string, Tensor> {
  const ids = input('ids', 'int64', ['B', 'L'])
  const tokens = input('visualTokens', 'float32', ['M', config.language.width])
  const places = input('places', 'int64', ['M'])
  const lastRows = input('lastRows', 'int64', ['N'])
  const embeddings = mergedSequence(config, weights, { ids, pictures: { tokens, places } }) // [B, L, D]
  const { depth, keyValueHeads, headSize } = config.language
  const part = (kind: 'key' | 'value', block: number) =>
    input(cacheName(kind, block), cacheType, ['B', keyValueHeads, 'capacity' satisfies Dim, headSize])
  const context: Context = {
    kind: 'cached',
    caches: Array.from({ length: depth }, (_, block) => ({ key: part('key', block), value: part('value', block) })),
    lastIndex: input('lastIndex', 'int32', ['B']),
    total: input('total', 'int32', []),
  }
  const { hidden, caches } = languageModel(config.language, weights, { embeddings, context })
  const next = caches.flatMap(({ key, value }, block) => [
    [`next:${cacheName('key', block)}`, key] as const,
    [`next:${cacheName('value', block)}`, value] as const,
  ])
  return { logits: logits(config.language, weights, gatherRows(rows(hidden), lastRows)), ...Object.fromEntries(next) }
}

export function cacheName(kind: 'key' | 'value', block: number): string {
  return `${kind}.${block}`
}
