/** Where the files that come with the package lie, for the program run from `src/` as well as from `dist/`. */

import { readFile } from 'node:fs/promises'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The path of a file of the package, as short as it can be said from the current folder. */
export function packageFile(name: string): string {
  const path = fileURLToPath(new URL(`../../${name}`, import.meta.url))
  const short = relative(process.cwd(), path)
  return short.startsWith('..') ? path : short
}

export async function packageVersion(): Promise<string> {
  const { version } = JSON.parse(await readFile(packageFile('package.json'), 'utf8'))
  return String(version)
}
