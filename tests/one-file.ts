/** A program of the sources as one file: it starts three times faster than the many files that it is made of, which a loader would compile. */

import { mkdir, readFile, symlink } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { build, type Plugin } from 'esbuild'

/** What the sources find beside themselves, they find from the one file too. */
const placesOfSources: Plugin = {
  name: 'places of sources',
  setup({ onLoad }) {
    onLoad({ filter: /[\\/]src[\\/].*\.ts$/ }, async ({ path }) => ({
      contents: (await readFile(path, 'utf8')).replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href)),
      loader: 'ts',
    }))
  },
}

/** Writes a source file and all that it imports, packages apart, into a new folder; returns the path of the one file. */
export async function writeOneFile(source: string, folder: string): Promise<string> {
  await mkdir(folder)
  const packages = fileURLToPath(new URL('../node_modules', import.meta.url))
  await symlink(packages, join(folder, 'node_modules'), 'junction')
  const outfile = join(folder, basename(source).replace(/\.ts$/, '.mjs'))
  await build({
    entryPoints: [source],
    bundle: true,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    outfile,
    plugins: [placesOfSources],
    logLevel: 'error',
  })
  return outfile
}
