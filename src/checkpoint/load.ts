/** Loads the weights of a LLaVA checkpoint, in any published layout, under our names and as float32. */

import { join } from 'node:path'
import { type LlavaConfig, parseLlavaConfig } from '../model/config.ts'
import { isFloat, toFloat32 } from './dtype.ts'
import { type Checkpoint, closeCheckpoint, openCheckpoint, readCheckpointTensor } from './folder.ts'
import { quote, readStrictJson } from './json.ts'
import { detectLayout, expectedTensors, isIgnored, layoutNames, optionalTensors, toCanonical } from './layouts.ts'
import { readFully } from './ranged-read.ts'

/** All tensors of a model by our names (see layouts.ts). */
export type Weights = ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>

/** Reads and checks `config.json` of a checkpoint folder; errors as `parseLlavaConfig`, `SyntaxError` for broken JSON. */
export async function loadConfig(folder: string): Promise<LlavaConfig> {
  return parseLlavaConfig(await readStrictJson(join(folder, 'config.json')))
}

/** The weights of a checkpoint before they are read. Close it with `closeWeights`. */
export type OpenWeights = {
  readonly checkpoint: Checkpoint
  /** Our name → stored name, of every tensor that the config expects and the checkpoint has. */
  readonly foreignNames: ReadonlyMap<string, string>
}

/**
 * Loads every tensor that `config` expects. Nothing is read before all names and shapes agree.
 *
 * Errors: those of `openWeights`.
 */
export async function loadWeights(folder: string, config: LlavaConfig): Promise<Weights> {
  const opened = await openWeights(folder, config)
  try {
    const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>()
    for (const [name, foreign] of opened.foreignNames) {
      const { dtype, shape, data } = await readCheckpointTensor(opened.checkpoint, foreign)
      weights.set(name, { shape, data: toFloat32(dtype, data) })
    }
    return weights
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
  const checkpoint = await openCheckpoint(folder)
  try {
    const { foreignNames, unknown } = renameTensors(checkpoint, config)
    checkTensors({
      action: `load the weights of ${folder}`,
      config,
      found: new Map([...foreignNames].map(([ours, theirs]) => [ours, entryOf(checkpoint, theirs).shape])),
      unknown,
    })
    const present = [...expectedTensors(config).keys()].flatMap((name) => {
      const foreign = foreignNames.get(name)
      return foreign === undefined ? [] : [[name, foreign] as const] // an optional one may be absent
    })
    return { checkpoint, foreignNames: new Map(present) }
  } catch (error) {
    await closeCheckpoint(checkpoint)
    throw error
  }
}

/** Rows `from` to `to` (exclusive) along the first axis of one of our tensors, as float32. Errors: `RangeError` when there is none of that name. */
export async function readWeightRows(
  { checkpoint, foreignNames }: OpenWeights,
  name: string,
  { from, to }: { from: number; to: number },
): Promise<Float32Array> {
  const { file, dtype, shape, begin, end } = entryOf(checkpoint, foreignNames.get(name) ?? name)
  const rowBytes = (end - begin) / Math.max(1, shape[0] ?? 1)
  const start = file.dataStart + begin
  const range = { begin: start + from * rowBytes, end: start + to * rowBytes, what: `tensor ${name} of ${file.path}` }
  return toFloat32(dtype, await readFully(file.handle, range))
}

export async function closeWeights({ checkpoint }: OpenWeights): Promise<void> {
  await closeCheckpoint(checkpoint)
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

/** Our name → stored name, and the stored names that the layout does not know. */
function renameTensors(checkpoint: Checkpoint, config: LlavaConfig) {
  const action = `Cannot load the weights of ${checkpoint.folder}`
  const layout = detectLayout(checkpoint.tensors.keys())
  if (layout === undefined) {
    const examples = [...checkpoint.tensors.keys()].slice(0, 3).map(quote).join(', ')
    throw new Error(
      `${action}: found ${checkpoint.tensors.size} tensors (${examples || 'none'}), expected names of layout ${layoutNames.join(', ')}`,
    )
  }
  const foreignNames = new Map<string, string>()
  const unknown: string[] = []
  for (const [foreign, { dtype }] of checkpoint.tensors) {
    if (isIgnored(foreign)) continue
    const ours = toCanonical(foreign, layout)
    // A tied head may be stored as a copy of the embedding.
    if (ours === 'languageModel.head.weight' && config.language.tiedHead) continue
    if (ours === undefined) unknown.push(foreign)
    else if (foreignNames.has(ours)) {
      throw new Error(`${action}: ${quote(foreign)} and ${quote(foreignNames.get(ours) ?? '')} both mean ${ours}`)
    } else if (!isFloat(dtype)) {
      throw new Error(`${action}: tensor ${quote(foreign)} is ${dtype}, expected F64, F32, F16 or BF16`)
    } else foreignNames.set(ours, foreign)
  }
  return { foreignNames, unknown }
}

function entryOf(checkpoint: Checkpoint, foreign: string) {
  const entry = checkpoint.tensors.get(foreign)
  if (entry === undefined) throw new RangeError(`Cannot find tensor ${quote(foreign)} in ${checkpoint.folder}`)
  return entry
}

function list(kind: string, names: readonly string[]): string {
  if (names.length === 0) return ''
  const rest = names.length > 8 ? `, … ${names.length - 8} more` : ''
  return `${names.length} ${kind} (${names.slice(0, 8).join(', ')}${rest})`
}
