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
    const action = `load the weights of ${folder}`
    const { places, unknown } = renameTensors(own, { action, rename: renameByLayout(own, config) })
    if (![...places.keys()].some((name) => name.startsWith('visionEncoder.'))) {
      const encoder = await openEncoder(folder)
      if (encoder !== undefined) {
        opened.push(encoder)
        for (const [ours, place] of encoderTensors(encoder)) places.set(ours, place)
      }
    }
    const [expected, optional] = [expectedTensors(config), optionalTensors(config)]
    return await readPlaces(places, { action, expected, optional, unknown })
  } finally {
    for (const checkpoint of opened) await closeCheckpoint(checkpoint)
  }
}

/** Our name of a stored tensor: `unknown` when there is none, `ignored` when it is surplus that does no harm. */
export type Rename = (foreign: string) => { readonly ours: string } | 'ignored' | 'unknown'

type Shapes = ReadonlyMap<string, readonly number[]>
type Expected = { readonly expected: Shapes; readonly optional: ReadonlySet<string> }

/** Reads the expected tensors of an open checkpoint as float32, by our names. Errors: those of `loadWeights`. */
export async function readRenamed(
  checkpoint: Checkpoint,
  { rename, ...tensors }: Expected & { rename: Rename },
): Promise<Weights> {
  const action = `load the weights of ${checkpoint.folder}`
  const { places, unknown } = renameTensors(checkpoint, { action, rename })
  return readPlaces(places, { action, ...tensors, unknown })
}

/** Where one of our tensors is stored, and under which name. */
type Place = { readonly checkpoint: Checkpoint; readonly foreign: string }

/** Nothing is read before all names and shapes agree. */
async function readPlaces(
  places: ReadonlyMap<string, Place>,
  tensors: Expected & { action: string; unknown: readonly string[] },
): Promise<Weights> {
  const found = new Map([...places].map(([ours, place]) => [ours, entryOf(place).shape]))
  compareTensors({ ...tensors, found })
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>()
  for (const name of tensors.expected.keys()) {
    const place = places.get(name)
    if (place === undefined) continue // optional
    const { dtype, shape, data } = await readCheckpointTensor(place.checkpoint, place.foreign)
    weights.set(name, { shape, data: toFloat32(dtype, data) })
  }
  return weights
}

/** The weights of the vision encoder's own folder, which original releases may have. */
async function openEncoder(folder: string): Promise<Checkpoint | undefined> {
  const json = await readStrictJson(join(folder, 'config.json'))
  if (!isOriginalConfig(json)) return undefined
  const { encoderFolder } = await readOriginalModel(folder, json)
  return encoderFolder === undefined ? undefined : openCheckpoint(encoderFolder)
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
  found: Shapes
  unknown?: readonly string[]
}): void {
  compareTensors({ action, expected: expectedTensors(config), optional: optionalTensors(config), found, unknown })
}

function compareTensors({
  action,
  expected,
  optional,
  found,
  unknown,
}: {
  action: string
  expected: Shapes
  optional: ReadonlySet<string>
  found: Shapes
  unknown: readonly string[]
}): void {
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

/** How the layout that fits best names a model's tensors. */
function renameByLayout({ folder, tensors }: Checkpoint, config: LlavaConfig): Rename {
  const layout = detectLayout(tensors.keys())
  if (layout === undefined) {
    const examples = [...tensors.keys()].slice(0, 3).map(quote).join(', ')
    throw new Error(
      `Cannot load the weights of ${folder}: found ${tensors.size} tensors (${examples || 'none'}), expected names of layout ${layoutNames.join(', ')}`,
    )
  }
  return (foreign) => {
    const ours = isIgnored(foreign) ? undefined : toCanonical(foreign, layout)
    if (ours === undefined) return isIgnored(foreign) ? 'ignored' : 'unknown'
    // A tied head may be stored as a copy of the embedding.
    return ours === 'languageModel.head.weight' && config.language.tiedHead ? 'ignored' : { ours }
  }
}

/** Our name → where it is stored, and the stored names that mean nothing to us. */
function renameTensors(checkpoint: Checkpoint, { action, rename }: { action: string; rename: Rename }) {
  const places = new Map<string, Place>()
  const unknown: string[] = []
  for (const [foreign, { dtype }] of checkpoint.tensors) {
    const named = rename(foreign)
    if (named === 'ignored') continue
    if (named === 'unknown') unknown.push(foreign)
    else if (places.has(named.ours)) {
      const other = quote(places.get(named.ours)?.foreign ?? '')
      throw new Error(`Cannot ${action}: ${quote(foreign)} and ${other} both mean ${named.ours}`)
    } else if (!isFloat(dtype)) {
      throw new Error(`Cannot ${action}: tensor ${quote(foreign)} is ${dtype}, expected F64, F32, F16 or BF16`)
    } else places.set(named.ours, { checkpoint, foreign })
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
