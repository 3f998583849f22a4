/** Loads the weights of a LLaVA checkpoint, in any published layout, under our names and as float32. */

import { join } from 'node:path'
import { type ImageProcessorConfig, readImageProcessorConfig } from '../image/processor-config.ts'
import { type LlavaConfig, parseLlavaConfig } from '../model/config.ts'
import { isFloat, toFloat32 } from './dtype.ts'
import { type Checkpoint, closeCheckpoint, openCheckpoint, readCheckpointTensor } from './folder.ts'
import { quote, readStrictJson } from './json.ts'
import {
  detectLayout,
  encoderAlone,
  expectedTensors,
  isIgnored,
  layoutNames,
  optionalTensors,
  toCanonical,
} from './layouts.ts'
import { isOriginalConfig, readOriginalModel } from './original.ts'

/** All tensors of a model by our names (see layouts.ts). */
export type Weights = ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>

/** Reads and checks `config.json` of a checkpoint folder; errors as `readConfig`, `SyntaxError` for broken JSON. */
export async function loadConfig(folder: string): Promise<LlavaConfig> {
  return readConfig(await readStrictJson(join(folder, 'config.json')), { folder })
}

/** The config of a model folder from its parsed `config.json`, in Hugging Face's layout or the original; errors as `parseLlavaConfig` and `readOriginalModel`. */
export async function readConfig(json: unknown, { folder }: { folder: string }): Promise<LlavaConfig> {
  return isOriginalConfig(json) ? (await readOriginalModel(folder, json)).config : parseLlavaConfig(json)
}

/** How a model folder prepares pictures: as `preprocessor_config.json` says, or in the original layout as `config.json` and the vision encoder do. */
export async function loadImageProcessor(folder: string): Promise<ImageProcessorConfig> {
  const json = await readStrictJson(join(folder, 'config.json'))
  if (!isOriginalConfig(json)) {
    return readImageProcessorConfig(await readStrictJson(join(folder, 'preprocessor_config.json')))
  }
  return readImageProcessorConfig((await readOriginalModel(folder, json)).processor, { name: 'config.json' })
}

/**
 * Loads every tensor that `config` expects. Nothing is read before all names and shapes agree.
 *
 * Errors: `Error` that lists missing, surplus and misshaped tensors together (at most 8 of each), or says that no known
 * layout fits; errors of `openCheckpoint` for broken files.
 */
export async function loadWeights(folder: string, config: LlavaConfig): Promise<Weights> {
  const opened: Checkpoint[] = []
  try {
    const own = await openCheckpoint(folder)
    opened.push(own)
    const { places, unknown } = renameTensors(own, config)
    if (![...places.keys()].some((name) => name.startsWith('visionEncoder.'))) {
      const encoder = await openEncoder(folder)
      if (encoder !== undefined) {
        opened.push(encoder)
        for (const [ours, place] of encoderTensors(encoder)) places.set(ours, place)
      }
    }
    checkTensors({
      action: `load the weights of ${folder}`,
      config,
      found: new Map([...places].map(([ours, place]) => [ours, entryOf(place).shape])),
      unknown,
    })
    const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>()
    for (const name of expectedTensors(config).keys()) {
      const place = places.get(name)
      if (place === undefined) continue // optional
      const { dtype, shape, data } = await readCheckpointTensor(place.checkpoint, place.foreign)
      weights.set(name, { shape, data: toFloat32(dtype, data) })
    }
    return weights
  } finally {
    for (const checkpoint of opened) await closeCheckpoint(checkpoint)
  }
}

/** Where one of our tensors is stored, and under which name. */
type Place = { readonly checkpoint: Checkpoint; readonly foreign: string }

/** The weights of the vision encoder's own folder, which original releases have that do not hold it. */
async function openEncoder(folder: string): Promise<Checkpoint | undefined> {
  const json = await readStrictJson(join(folder, 'config.json'))
  if (!isOriginalConfig(json)) return undefined
  const { encoderFolder, encoderName } = await readOriginalModel(folder, json)
  if (encoderFolder !== undefined) return openCheckpoint(encoderFolder)
  throw new Error(
    `Cannot load the weights of ${folder}: found no vision encoder among them, expected a folder ${quote(encoderName)} with it inside the model's folder or beside it`,
  )
}

/** The vision encoder's tensors of a checkpoint that is only the encoder, or a whole CLIP. */
function encoderTensors(checkpoint: Checkpoint): Map<string, Place> {
  const places = new Map<string, Place>()
  for (const foreign of checkpoint.tensors.keys()) {
    const ours = isIgnored(foreign) ? undefined : toCanonical(encoderAlone(foreign), 'original')
    if (ours?.startsWith('visionEncoder.')) places.set(ours, { checkpoint, foreign })
  }
  return places
}

/**
 * Compares tensors with what a config expects. Errors: one `Error` that lists all that is missing, surplus (`unknown`
 * holds names that could not even be renamed) or misshaped, at most 8 of each.
 */
export function checkTensors({
  action,
  config,
  found,
  unknown = [],
}: {
  action: string
  config: LlavaConfig
  found: ReadonlyMap<string, readonly number[]>
  unknown?: readonly string[]
}): void {
  const expected = expectedTensors(config)
  const optional = optionalTensors(config)
  const missing = [...expected.keys()].filter((name) => !found.has(name) && !optional.has(name))
  const surplus = [...unknown.map(quote), ...[...found.keys()].filter((name) => !expected.has(name)).map(quote)]
  const misshaped: string[] = []
  for (const [name, shape] of found) {
    const wanted = expected.get(name)
    if (wanted !== undefined && wanted.join() !== shape.join()) {
      misshaped.push(`${name} [${shape.join(', ')}] instead of [${wanted.join(', ')}]`)
    }
  }
  const problems = [list('missing', missing), list('surplus', surplus), list('misshaped', misshaped)].filter(Boolean)
  if (problems.length > 0)
    throw new Error(`Cannot ${action}: the tensors do not fit the config: ${problems.join('; ')}`)
}

/** Our name → where it is stored, and the stored names that the layout does not know. */
function renameTensors(checkpoint: Checkpoint, config: LlavaConfig) {
  const action = `Cannot load the weights of ${checkpoint.folder}`
  const layout = detectLayout(checkpoint.tensors.keys())
  if (layout === undefined) {
    const examples = [...checkpoint.tensors.keys()].slice(0, 3).map(quote).join(', ')
    throw new Error(
      `${action}: found ${checkpoint.tensors.size} tensors (${examples || 'none'}), expected names of layout ${layoutNames.join(', ')}`,
    )
  }
  const places = new Map<string, Place>()
  const unknown: string[] = []
  for (const [foreign, { dtype }] of checkpoint.tensors) {
    if (isIgnored(foreign)) continue
    const ours = toCanonical(foreign, layout)
    // A tied head may be stored as a copy of the embedding.
    if (ours === 'languageModel.head.weight' && config.language.tiedHead) continue
    if (ours === undefined) unknown.push(foreign)
    else if (places.has(ours)) {
      throw new Error(`${action}: ${quote(foreign)} and ${quote(places.get(ours)?.foreign ?? '')} both mean ${ours}`)
    } else if (!isFloat(dtype)) {
      throw new Error(`${action}: tensor ${quote(foreign)} is ${dtype}, expected F64, F32, F16 or BF16`)
    } else places.set(ours, { checkpoint, foreign })
  }
  return { places, unknown }
}

function entryOf({ checkpoint, foreign }: Place) {
  const entry = checkpoint.tensors.get(foreign)
  if (entry === undefined) throw new RangeError(`Cannot find tensor ${quote(foreign)} in ${checkpoint.folder}`)
  return entry
}

function list(kind: string, names: readonly string[]): string {
  if (names.length === 0) return ''
  const rest = names.length > 8 ? `, … ${names.length - 8} more` : ''
  return `${names.length} ${kind} (${names.slice(0, 8).join(', ')}${rest})`
}
