/**
 * LoRA (Hu et al. 2021): a layer's weight stays as it is and learns a change of low rank beside it,
 *
 *     y = x Wᵀ + (α/r) · (x Aᵀ) Bᵀ        W [Out, In] frozen, A [r, In] begins at random, B [Out, r] at 0
 *
 * As in LLaVA's own LoRA recipe, some parts may learn this way and others whole: a part with adapters learns nothing but them.
 */

import { expectedTensors, optionalTensors } from '../checkpoint/layouts.ts'
import type { Weights } from '../checkpoint/load.ts'
import type { LoraAdapter } from '../checkpoint/lora.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { WeightSource } from '../model/weights.ts'
import { addLowRank, scaleBy } from '../tensor/index.ts'
import { type AdapterDropout, dropoutOf } from './adapter-dropout.ts'
import type { Recipe } from './recipe.ts'
import { partOf } from './stages.ts'

export type LoraSettings = NonNullable<Recipe['lora']>
type LoraRecipe = Pick<Recipe, 'name' | 'lora' | 'rates' | 'start'>

/**
 * The linear layers that a recipe's targets name, among those of the parts that learn; none without `lora`. A target is a layer's name or the end of
 * one, in which `*` stands for any word: `attention.query`, `languageModel.blocks.*.mlp.up`.
 *
 * @throws RangeError for a target that names no layer, and for an adapted part that does not start from a trained one
 */
export function adaptedLayers(recipe: LoraRecipe, config: LlavaConfig): ReadonlySet<string> {
  const { lora, rates, start } = recipe
  if (lora === undefined) return new Set()
  const failure = `Cannot use recipe ${recipe.name}`
  const candidates = linearLayers(config).filter((layer) => partOf(layer) in rates)
  const layers = new Set(
    lora.targets.flatMap((target) => {
      const named = candidates.filter((layer) => targetPattern(target).test(layer))
      if (named.length > 0) return named
      const ends = new Set(candidates.map((layer) => layer.replace(/^.*\.blocks\.\d+\./, '')))
      throw new RangeError(
        `${failure}: lora target ${target} names no linear layer of ${Object.keys(rates).join(', ')}, expected some of ${[...ends].join(', ')}`,
      )
    }),
  )
  for (const part of new Set([...layers].map(partOf))) {
    if (part in start) continue
    throw new RangeError(`${failure}: lora adapts ${part}, which starts at random, expected a folder in start.${part}`)
  }
  return layers
}

/**
 * `weights`, in which the adapted layers are sums of a frozen weight and a learned change (see `linear` in tensor/matmul.ts). `dropout` is for learning
 * alone: what is scored or saved drops nothing.
 */
export function adaptedWeights(
  weights: WeightSource,
  { lora, layers, dropout }: { lora: LoraSettings | undefined; layers: ReadonlySet<string>; dropout?: AdapterDropout },
): WeightSource {
  if (lora === undefined) return weights
  return (name, shape) => {
    const weight = weights(name, shape)
    const layer = layerOf(name)
    if (layer === undefined || !layers.has(layer)) return weight
    const [out = 0, width = 0] = shape
    const A = weights(`${layer}.lora.A`, [lora.rank, width])
    const B = weights(`${layer}.lora.B`, [out, lora.rank])
    return addLowRank(weight, {
      down: A,
      up: scaleBy(B, lora.alpha / lora.rank),
      dropout: dropout && dropoutOf(dropout, layer),
    })
  }
}

/** The part whose rate a weight learns at, or undefined when it is frozen. */
export function learningPart(
  name: string,
  { rates, layers }: { rates: Recipe['rates']; layers: ReadonlySet<string> },
): string | undefined {
  const part = partOf(name)
  const hasAdapters = [...layers].some((layer) => partOf(layer) === part)
  return part in rates && hasAdapters === isAdapter(name) ? part : undefined
}

/** Whether a weight is half of a learned change. */
export function isAdapter(name: string): boolean {
  return /\.lora\.[AB]$/.test(name)
}

/** What a run has learned, apart from the model it began with; undefined without `lora`. */
export function learnedAdapter(
  { recipe, layers }: { recipe: LoraRecipe; layers: ReadonlySet<string> },
  { trained, model }: { trained: Weights; model: Weights },
): LoraAdapter | undefined {
  const { lora, rates, start } = recipe
  const [first] = layers
  if (lora === undefined || first === undefined) return undefined
  const half = (name: string) => {
    const found = trained.get(name)
    if (found === undefined) throw new Error(`Cannot make an adapter: the run has no weight ${name}`)
    return { shape: found.shape, data: found.data.slice() }
  }
  return {
    base: Object.entries(start).find(([part]) => part === partOf(first))?.[1] ?? '',
    rank: lora.rank,
    alpha: lora.alpha,
    dropout: lora.dropout,
    layers: new Map([...layers].map((layer) => [layer, { A: half(`${layer}.lora.A`), B: half(`${layer}.lora.B`) }])),
    whole: new Map([...model].filter(([name]) => learningPart(name, { rates, layers }) !== undefined)),
  }
}

/** Names of the layers that are a matrix applied to vectors; blocks that the model never reaches left out. */
function linearLayers(config: LlavaConfig): string[] {
  const unused = optionalTensors(config)
  return [...expectedTensors(config)].flatMap(([name, shape]) => {
    const layer = layerOf(name)
    const isLinear = shape.length === 2 && !name.endsWith('.tokenEmbedding.weight') && !unused.has(name)
    return layer !== undefined && isLinear ? [layer] : []
  })
}

function layerOf(weight: string): string | undefined {
  return weight.endsWith('.weight') ? weight.slice(0, -'.weight'.length) : undefined
}

function targetPattern(target: string): RegExp {
  return new RegExp(`(^|\\.)${target.replaceAll('.', '\\.').replaceAll('*', '[^.]+')}$`)
}
