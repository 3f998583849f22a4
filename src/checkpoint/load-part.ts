/**
 * One part of a model, from a folder that may hold nothing else: the vision encoder of a CLIP or SigLIP model, the language model of a plain
 * `LlamaForCausalLM`, `MistralForCausalLM` or `Qwen2ForCausalLM`, or any part of a whole LLaVA.
 */

import { join } from 'node:path'
import { parseVisionEncoder } from '../model/clip-config.ts'
import { type LlavaConfig, readLanguage } from '../model/config.ts'
import { closeCheckpoint, openCheckpoint } from './folder.ts'
import { readStrictJson } from './json.ts'
import { expectedTensors, isIgnored, optionalTensors, toCanonical } from './layouts.ts'
import { loadConfig, loadWeights, readRenamed, type Weights } from './load.ts'
import { renameClip } from './load-clip.ts'
import type { Rename } from './places.ts'

export type WantedPart = {
  /** As the names of its weights begin. */
  readonly part: string
  /** The model that the part is for, and the folder whose config that is. */
  readonly config: LlavaConfig
  readonly model: string
}

/**
 * The weights of a part, by our names; of a whole LLaVA, those of all parts. A language model that was made before the model's added tokens (`<image>`,
 * padding) gets rows for them that are the mean of all others, as LLaVA begins them.
 * @throws RangeError, one sentence, when the part that is there is not of the model's shape; errors of `loadWeights`
 */
export async function loadPart(folder: string, wanted: WantedPart): Promise<Weights> {
  const json = await readStrictJson(join(folder, 'config.json'))
  const { model_type: kind } = Object(json) as { model_type?: unknown }
  const alone = partAlone(kind)
  if (alone === undefined) return loadWeights(folder, await loadConfig(folder))
  if (alone !== wanted.part) {
    throw new RangeError(
      `Cannot start ${wanted.part} from ${folder}: found model_type ${kind}, of which only the ${alone} can be taken`,
    )
  }
  return alone === 'visionEncoder' ? loadVisionEncoder(folder, json, wanted) : loadLanguageModel(folder, json, wanted)
}

function partAlone(kind: unknown): 'visionEncoder' | 'languageModel' | undefined {
  if (typeof kind !== 'string') return undefined
  if (/^(clip|siglip)(_vision_model)?$/.test(kind)) return 'visionEncoder'
  return /^(llama|mistral|qwen2)$/.test(kind) ? 'languageModel' : undefined
}

async function loadVisionEncoder(folder: string, json: unknown, wanted: WantedPart): Promise<Weights> {
  expectSame(folder, wanted, { found: parseVisionEncoder(json), expected: wanted.config.vision })
  return readPart(folder, { config: wanted.config, part: wanted.part, rename: renameClip })
}

async function loadLanguageModel(folder: string, json: unknown, wanted: WantedPart): Promise<Weights> {
  const { language } = wanted.config
  const found = readLanguage(json)
  // Rotary positions have no weights: a model may be used with another context than it was made for.
  const same = { kind: language.kind, context: language.context, bosToken: 0, eosTokens: [], padToken: 0 }
  const { vocabulary } = found
  const rows = vocabulary <= language.vocabulary ? language.vocabulary : vocabulary // fewer are added, more do not fit
  expectSame(folder, wanted, {
    found: { ...found, ...same, vocabulary: rows },
    expected: { ...language, ...same },
  })
  const config = { ...wanted.config, language: { ...language, vocabulary } }
  const rename: Rename = (foreign) => {
    if (isIgnored(foreign)) return 'ignored'
    const ours = toCanonical(foreign, 'original') // the names of a language model are those that the first LLaVA kept
    if (ours === undefined) return 'unknown'
    return ours === 'languageModel.head.weight' && language.tiedHead ? 'ignored' : { ours }
  }
  const weights = await readPart(folder, { config, part: wanted.part, rename })
  return new Map(
    [...weights].map(([name, tensor]) => [name, perToken.has(name) ? withRows(tensor, language.vocabulary) : tensor]),
  )
}

/** The weights with a row for each token. */
const perToken = new Set(['languageModel.tokenEmbedding.weight', 'languageModel.head.weight'])

type Values = { readonly shape: readonly number[]; readonly data: Float32Array }

/** A table [R, D] with `count` rows: those that are added are the mean of the others. */
function withRows({ shape, data }: Values, count: number): Values {
  const [R = 1, D = 1] = shape
  if (R === count) return { shape, data }
  const mean = new Float64Array(D)
  data.forEach((value, i) => {
    mean[i % D] = (mean[i % D] ?? 0) + value / R
  })
  const grown = new Float32Array(count * D)
  grown.set(data)
  for (let row = R; row < count; row++) grown.set(mean, row * D)
  return { shape: [count, D], data: grown }
}

/** Reads the tensors of one part; those of others are passed over. */
async function readPart(
  folder: string,
  { config, part, rename }: { config: LlavaConfig; part: string; rename: Rename },
): Promise<Weights> {
  const checkpoint = await openCheckpoint(folder)
  const isOwn = (name: string) => name.startsWith(`${part}.`)
  try {
    return await readRenamed(checkpoint, {
      expected: new Map([...expectedTensors(config)].filter(([name]) => isOwn(name))),
      optional: optionalTensors(config),
      rename: (foreign) => {
        const named = rename(foreign)
        return typeof named === 'object' && !isOwn(named.ours) ? 'ignored' : named
      },
    })
  } finally {
    await closeCheckpoint(checkpoint)
  }
}

/** Weights of equal shapes can still mean something else: heads, activations and epsilons are compared too. */
function expectSame<T extends object>(
  folder: string,
  { part, model }: WantedPart,
  { found, expected }: { found: T; expected: T },
): void {
  const keys = (Object.keys(expected) as (keyof T & string)[]).filter(
    (key) => JSON.stringify(found[key]) !== JSON.stringify(expected[key]),
  )
  if (keys.length === 0) return
  const list = (from: T) => keys.map((key) => `${key} ${JSON.stringify(from[key])}`).join(', ')
  throw new RangeError(
    `Cannot start ${part} from ${folder}: found ${list(found)}, expected ${list(expected)} as in ${model}`,
  )
}
