/** Loads the weights of a LLaVA checkpoint, in any published layout, under our names and as float32. */

import { join } from 'node:path'
import { type ImageProcessorConfig, readImageProcessorConfig } from '../image/processor-config.ts'
import { type LlavaConfig, parseLlavaConfig } from '../model/config.ts'
import { toFloat32 } from './dtype.ts'
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
import { compareTensors, entryOf, type Place, placeTensors, type Rename, type Shapes } from './places.ts'
import { readFully } from './ranged-read.ts'

/** All tensors of a model by our names (see layouts.ts). */
export type Weights = ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>

/** The weights of a checkpoint before they are read. Close it with `closeWeights`. */
export type OpenWeights = {
  /** Where each tensor stands that the config expects and the checkpoint has, by our name. */
  readonly places: ReadonlyMap<string, Place>
  /** The folder's own weight files, and those of its vision encoder where that has a folder of its own. */
  readonly checkpoints: readonly Checkpoint[]
}

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
 * Errors: those of `openWeights`.
 */
export async function loadWeights(folder: string, config: LlavaConfig): Promise<Weights> {
  const opened = await openWeights(folder, config)
  try {
    return await readPlaces(opened.places)
  } finally {
    await closeWeights(opened)
  }
}

/**
 * Opens the weight files of a checkpoint and reads their headers only.
 *
 * Errors: `Error` that lists missing, surplus and misshaped tensors together (at most 8 of each), or says that no known
 * layout fits; errors of `openCheckpoint` for broken files.
 */
export async function openWeights(folder: string, config: LlavaConfig): Promise<OpenWeights> {
  const checkpoints: Checkpoint[] = []
  try {
    const action = `load the weights of ${folder}`
    const own = await openCheckpoint(folder)
    checkpoints.push(own)
    const { places, unknown } = placeTensors(own, { action, rename: renameByLayout(own, config) })
    if (![...places.keys()].some((name) => name.startsWith('visionEncoder.'))) {
      const encoder = await openEncoder(folder)
      if (encoder !== undefined) {
        checkpoints.push(encoder)
        for (const [ours, place] of placeTensors(encoder, { action, rename: renameEncoder }).places)
          places.set(ours, place)
      }
    }
    const expected = expectedTensors(config)
    compareTensors({ action, expected, optional: optionalTensors(config), found: shapesOf(places), unknown })
    return { places: inOrder(places, expected), checkpoints }
  } catch (error) {
    for (const checkpoint of checkpoints) await closeCheckpoint(checkpoint)
    throw error
  }
}

/** Reads the expected tensors of an open checkpoint as float32, by our names. Nothing is read before all names and shapes agree. */
export async function readRenamed(
  checkpoint: Checkpoint,
  { expected, optional, rename }: { expected: Shapes; optional: ReadonlySet<string>; rename: Rename },
): Promise<Weights> {
  const action = `load the weights of ${checkpoint.folder}`
  const { places, unknown } = placeTensors(checkpoint, { action, rename })
  compareTensors({ action, expected, optional, found: shapesOf(places), unknown })
  return readPlaces(inOrder(places, expected))
}

/** Rows `from` to `to` (exclusive) along the first axis of one of our tensors, as float32. Errors: `RangeError` when there is none of that name. */
export async function readWeightRows(
  { places }: OpenWeights,
  name: string,
  { from, to }: { from: number; to: number },
): Promise<Float32Array> {
  const place = places.get(name)
  if (place === undefined)
    throw new RangeError(`Cannot read tensor ${quote(name)}: the checkpoint has none of that name`)
  const { file, dtype, shape, begin, end } = entryOf(place)
  const rowBytes = (end - begin) / Math.max(1, shape[0] ?? 1)
  const start = file.dataStart + begin
  const range = { begin: start + from * rowBytes, end: start + to * rowBytes, what: `tensor ${name} of ${file.path}` }
  return toFloat32(dtype, await readFully(file.handle, range))
}

export async function closeWeights({ checkpoints }: OpenWeights): Promise<void> {
  for (const checkpoint of checkpoints) await closeCheckpoint(checkpoint)
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

async function readPlaces(places: ReadonlyMap<string, Place>): Promise<Weights> {
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>()
  for (const [name, { checkpoint, foreign }] of places) {
    const { dtype, shape, data } = await readCheckpointTensor(checkpoint, foreign)
    weights.set(name, { shape, data: toFloat32(dtype, data) })
  }
  return weights
}

function shapesOf(places: ReadonlyMap<string, Place>): Map<string, readonly number[]> {
  return new Map([...places].map(([ours, place]) => [ours, entryOf(place).shape]))
}

/** The places of the expected tensors, in their order; optional ones may be absent. */
function inOrder(places: ReadonlyMap<string, Place>, expected: Shapes): Map<string, Place> {
  return new Map(
    [...expected.keys()].flatMap((name) => {
      const place = places.get(name)
      return place === undefined ? [] : [[name, place] as const]
    }),
  )
}

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

/** The vision encoder's tensors of a checkpoint that is only the encoder, or a whole CLIP. */
function renameEncoder(foreign: string): ReturnType<Rename> {
  const ours = isIgnored(foreign) ? undefined : toCanonical(encoderAlone(foreign), 'original')
  return ours?.startsWith('visionEncoder.') ? { ours } : 'ignored'
}
