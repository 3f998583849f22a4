/** The parts of the gate that read files of the repository: length, unfinished work, lock file, licences, size. */

import { readFile, stat } from 'node:fs/promises'
import { z } from 'zod'
import { type Findings, projectFiles } from './repository.ts'

const longestFile = 350
const longFile = 300
const largestFile = 1_000_000 // bytes

/** Words of unfinished work, and comments that switch the type checker off; spelled so that this file does not find itself. */
const unfinished = new RegExp(`\\b(${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X', 'PEND' + 'ING'].join('|')})\\b`)
const silenced = /@ts-(?:ignore|expect-error|nocheck)|biome-ignore lint\/suspicious\/noExplicitAny/

/** Source files stay short and finished. Generated files are left out, and tests may be long. */
export async function checkSources(): Promise<Findings> {
  const paths = await projectFiles('.ts', '.yaml', '.md', '.jinja')
  const problems: string[] = []
  const warnings: string[] = []
  for (const path of paths.filter((name) => !name.endsWith('_pb.ts'))) {
    const lines = (await readFile(path, 'utf8')).split('\n')
    const count = lines.length - 1
    const limited = path.endsWith('.ts') && !path.endsWith('.test.ts')
    if (limited && count > longestFile) problems.push(`${path}: ${count} lines, expected at most ${longestFile}`)
    else if (limited && count > longFile) warnings.push(`${path}: ${count} lines, expected at most ${longFile}`)
    for (const [index, line] of lines.entries()) {
      const word = unfinished.exec(line)?.[0] ?? silenced.exec(line)?.[0]
      if (word !== undefined) problems.push(`${path}:${index + 1}: found ${word}`)
    }
  }
  return { problems, warnings, scope: `${paths.length} files` }
}

const lockSchema = z.looseObject({
  packages: z.record(
    z.string(),
    z.looseObject({
      version: z.string().optional(),
      license: z.string().optional(),
      dev: z.boolean().optional(),
      devOptional: z.boolean().optional(),
      hasInstallScript: z.boolean().optional(),
      dependencies: z.record(z.string(), z.string()).default({}),
      optionalDependencies: z.record(z.string(), z.string()).default({}),
    }),
  ),
})

const scriptsSchema = z.looseObject({ allowScripts: z.record(z.string(), z.boolean()) })

/**
 * The lock file names no registry host, so that whoever installs chooses where packages come from, and it is whole: where a registry lacked
 * a package for another platform, npm leaves it out silently and `npm ci` refuses the file later. It knows nothing of install scripts that
 * package.json forbids: an npm that does not read `allowScripts` runs those that the lock file knows. That of onnxruntime-node downloads
 * CUDA libraries; those for the CPU and WebGPU are in the package.
 */
export async function checkLock(): Promise<Findings> {
  const text = await readFile('package-lock.json', 'utf8')
  const lines = text.split('\n').filter((line) => line.includes('"resolved"'))
  const problems = lines.length === 0 ? [] : [`package-lock.json: ${lines.length} lines with "resolved", expected none`]
  const { packages } = lockSchema.parse(JSON.parse(text))
  const locked = new Set(Object.keys(packages).map(packageName))
  for (const [path, { dependencies, optionalDependencies }] of Object.entries(packages)) {
    const missing = Object.keys({ ...dependencies, ...optionalDependencies }).filter((name) => !locked.has(name))
    if (missing.length > 0) {
      problems.push(
        `package-lock.json: ${packageName(path) || 'this package'} needs ${missing.join(', ')}, which is not there`,
      )
    }
  }
  const { allowScripts } = scriptsSchema.parse(JSON.parse(await readFile('package.json', 'utf8')))
  for (const [path, { hasInstallScript }] of Object.entries(packages)) {
    if (hasInstallScript && allowScripts[packageName(path)] === false) {
      problems.push(
        `package-lock.json: ${path} has "hasInstallScript", expected none as package.json forbids it in "allowScripts"`,
      )
    }
  }
  return { problems, scope: `${locked.size} packages` }
}

/** THIRD-PARTY.md has a row with name and licence for every package that an installation without development tools brings. */
export async function checkLicences(): Promise<Findings> {
  const { packages } = lockSchema.parse(JSON.parse(await readFile('package-lock.json', 'utf8')))
  const rows = (await readFile('THIRD-PARTY.md', 'utf8')).split('\n').filter((line) => line.startsWith('|'))
  const installed = Object.entries(packages).filter(
    ([path, { dev, devOptional }]) => path !== '' && !dev && !devOptional,
  )
  const problems: string[] = []
  for (const [path, { license }] of installed) {
    const name = packageName(path)
    const row = mostExactRow(name, rows)
    if (row === undefined) problems.push(`THIRD-PARTY.md: ${name} is missing (licence ${license ?? 'unknown'})`)
    else if (license === undefined || !row.includes(license)) {
      problems.push(`THIRD-PARTY.md: the row of ${name} does not say ${license ?? 'its licence'}`)
    }
  }
  return { problems, scope: `${installed.length} packages` }
}

/** Large files live in checkpoints/, nowhere else. */
export async function checkSizes(): Promise<Findings> {
  const paths = (await projectFiles()).filter((path) => !path.startsWith('checkpoints/'))
  const problems: string[] = []
  for (const path of paths) {
    const { size } = await stat(path)
    if (size > largestFile) problems.push(`${path}: ${size} bytes, expected at most ${largestFile}`)
  }
  return { problems, scope: `${paths.length} files` }
}

/** The name at the end of a path such as `node_modules/a/node_modules/@b/c`. */
function packageName(path: string): string {
  return path.split('node_modules/').at(-1) ?? ''
}

/**
 * The table row about a package. Names stand in backticks in the first column; `*` at the end stands for the variants of a package
 * per platform, and the longest name that fits counts.
 */
function mostExactRow(name: string, rows: readonly string[]): string | undefined {
  const fitting = rows.flatMap((row) =>
    [...(row.split('|')[1] ?? '').matchAll(/`([^`]+)`/g)]
      .map(([, pattern = '']) => pattern)
      .filter((pattern) => (pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern))
      .map((pattern) => ({ row, exactness: pattern.length })),
  )
  return fitting.sort((one, other) => other.exactness - one.exactness)[0]?.row
}
