/** What the parts of the gate share: the files they look at, and how they report. */

import { existsSync } from 'node:fs'
import { runProgram } from './process.ts'

/** What a check found. Problems fail the gate, warnings are only shown. */
export type Findings = {
  readonly problems: readonly string[]
  readonly warnings?: readonly string[]
  /** What was looked at, in a few words. */
  readonly scope?: string
}

/** Files that git knows or would add, as paths from the root with forward slashes, optionally of some endings. */
export async function projectFiles(...endings: readonly string[]): Promise<string[]> {
  const { code, output } = await runProgram('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'])
  if (code !== 0) throw new Error(`Cannot list the files of the repository: git says ${output.trim()}`)
  const files = output.split('\0').filter((path) => path !== '' && existsSync(path))
  return endings.length === 0 ? files : files.filter((path) => endings.some((ending) => path.endsWith(ending)))
}
