/** Loads the weights of a LLaVA checkpoint, in any published layout, under our names and as float32. */

import { join } from 'node:path'
import { type LlavaConfig, parseLlavaConfig } from '../model/config.ts'
import { isFloat, toFloat32 } from './dtype.ts'
import { type Checkpoint, closeCheckpoint, openCheckpoint, readCheckpointTensor } from './folder.ts'
import { quote, readStrictJson } from './json.ts'
import { detectLayout, expectedTensors, isIgnored, layoutNames, optionalTensors, toCanonical } from './layouts.ts'

/** All tensors of a model by our names (see layouts.ts). */
export type Weights = ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>

/** Reads and checks `config.json` of a checkpoint folder; errors as `parseLlavaConfig`, `SyntaxError` for broken JSON. */
export async function loadConfig(folder: string): Promise<LlavaConfig> {
  return parseLlavaConfig(await readStrictJson(join(folder, 'config.json')))
}

/**
 * Loads every tensor that `config` expects. Nothing is read before all names and shapes agree.
 *
 * Errors: `Error` that lists missing, surplus and misshaped tensors together (at most 8 of each), or says that no known
 * layout fits; errors of `openCheckpoint` for broken files.
 */
export async function loadWeights(folder: string, config: LlavaConfig): Promise<Weights> {
  const checkpoint = await openCheckpoint(folder)
  try {
    return await readRenamed(checkpoint, {
      expected: expectedTensors(config),
      optional: optionalTensors(config),
      rename: renameByLayout(checkpoint, config),
    })
  } finally {
    await closeCheckpoint(checkpoint)
  }
}

/** Our name of a stored tensor: `unknown` when there is none, `ignored` when it is surplus that does no harm. */
export type Rename = (foreign: string) => { readonly ours: string } | 'ignored' | 'unknown'

type Shapes = ReadonlyMap<string, readonly number[]>

/** Reads the expected tensors of an open checkpoint as float32, by our names. Nothing is read before all names and shapes agree. */
export async function readRenamed(
  checkpoint: Checkpoint,
  { expected, optional, rename }: { expected: Shapes; optional: ReadonlySet<string>; rename: Rename },
): Promise<Weights> {
  const action = `load the weights of ${checkpoint.folder}`
  const { foreignNames, unknown } = renameTensors(checkpoint, { action, rename })
  const found = new Map([...foreignNames].map(([ours, theirs]) => [ours, entryOf(checkpoint, theirs).shape]))
  compareTensors({ action, expected, optional, found, unknown })
  const weights = new Map<string, { shape: readonly number[]; data: Float32Array }>()
  for (const name of expected.keys()) {
    const foreign = foreignNames.get(name)
    if (foreign === undefined) continue // optional
    const { dtype, shape, data } = await readCheckpointTensor(checkpoint, foreign)
    weights.set(name, { shape, data: toFloat32(dtype, data) })
  }
  return weights
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

/** Our name → stored name, and the stored names that mean nothing to us. */
function renameTensors({ tensors }: Checkpoint, { action, rename }: { action: string; rename: Rename }) {
  const foreignNames = new Map<string, string>()
  const unknown: string[] = []
  for (const [foreign, { dtype }] of tensors) {
    const named = rename(foreign)
    if (named === 'ignored') continue
    if (named === 'unknown') unknown.push(foreign)
    else if (foreignNames.has(named.ours)) {
      const other = quote(foreignNames.get(named.ours) ?? '')
      throw new Error(`Cannot ${action}: ${quote(foreign)} and ${other} both mean ${named.ours}`)
    } else if (!isFloat(dtype)) {
      throw new Error(`Cannot ${action}: tensor ${quote(foreign)} is ${dtype}, expected F64, F32, F16 or BF16`)
    } else foreignNames.set(named.ours, foreign)
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
