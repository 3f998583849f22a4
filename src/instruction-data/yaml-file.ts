/** Files that people write: recipes, ablations, mixtures. */

import { readFile } from 'node:fs/promises'
import { parse } from 'yaml'
import { unreadable } from './lines.ts'

/** @throws Error in one sentence when the file cannot be read, SyntaxError that says where it is no YAML */
export async function readYaml(path: string): Promise<unknown> {
  const text = await readFile(path, 'utf8').catch((cause) => Promise.reject(unreadable(path, cause)))
  try {
    return parse(text)
  } catch (cause) {
    // Below its first line the library draws the place.
    const [reason = ''] = String(cause instanceof Error ? cause.message : cause).split(/[\r\n]/)
    throw new SyntaxError(`Cannot read ${path}: it is no YAML (${reason.replace(/:$/, '')})`, { cause })
  }
}
