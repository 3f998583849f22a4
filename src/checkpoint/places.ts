/** Where the tensors of a checkpoint stand by our names, and whether they are those that a model needs. */

import { isFloat } from './dtype.ts'
import type { Checkpoint } from './folder.ts'
import { quote } from './json.ts'

/** One of our tensors: the checkpoint that holds it, and its name there. */
export type Place = { readonly checkpoint: Checkpoint; readonly foreign: string }

/** Our name of a stored tensor: `unknown` when there is none, `ignored` when it is surplus that does no harm. */
export type Rename = (foreign: string) => { readonly ours: string } | 'ignored' | 'unknown'

export type Shapes = ReadonlyMap<string, readonly number[]>

/** Our name → where it stands, and the stored names that mean nothing to us. Errors: `Error` for two names of one tensor or a dtype without fractions. */
export function placeTensors(
  checkpoint: Checkpoint,
  { action, rename }: { action: string; rename: Rename },
): { places: Map<string, Place>; unknown: string[] } {
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

/** What the header of a checkpoint says of a tensor. */
export function entryOf({ checkpoint, foreign }: Place) {
  const entry = checkpoint.tensors.get(foreign)
  if (entry === undefined) throw new RangeError(`Cannot find tensor ${quote(foreign)} in ${checkpoint.folder}`)
  return entry
}

/** Errors: one `Error` that lists all that is missing, surplus (`unknown` could not even be renamed) or misshaped, at most 8 of each. */
export function compareTensors({
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
  if (problems.length > 0) {
    throw new Error(`Cannot ${action}: the tensors do not fit the config: ${problems.join('; ')}`)
  }
}

function list(kind: string, names: readonly string[]): string {
  if (names.length === 0) return ''
  const rest = names.length > 8 ? `, … ${names.length - 8} more` : ''
  return `${names.length} ${kind} (${names.slice(0, 8).join(', ')}${rest})`
}
