/**
 * The gate: everything that must hold before a change is taken, besides the tests.
 *
 *     npm run check                    all checks
 *     npm run check -- types links     some of them
 */

import { checkLinks, checkOutput, checkTree } from './check-documents.ts'
import { checkExamples, checkShellSnippets, checkTypeScriptSnippets } from './check-programs.ts'
import { checkLicences, checkLock, checkSizes, checkSources } from './check-sources.ts'
import { programs, runNode } from './process.ts'
import type { Findings } from './repository.ts'

/** In this order: programs that run need the build. */
const checks: Readonly<Record<string, () => Promise<Findings>>> = {
  build: () => succeeds([programs.tsc, '-p', 'tsconfig.build.json']),
  types: () => succeeds([programs.tsc, '-p', 'tsconfig.json', '--noEmit']),
  biome: () => succeeds([programs.biome, 'ci', '--error-on-warnings', '--colors=off', '--max-diagnostics=20', '.']),
  sources: checkSources,
  lock: checkLock,
  licences: checkLicences,
  sizes: checkSizes,
  tree: checkTree,
  links: checkLinks,
  examples: checkExamples,
  snippets: checkTypeScriptSnippets,
  commands: checkShellSnippets,
  output: checkOutput,
}

/** Lines of detail per problem. */
const longestDetail = 80

const chosen = process.argv.slice(2)
const unknown = chosen.filter((name) => !(name in checks))
if (unknown.length > 0) {
  console.error(`Cannot check ${unknown.join(', ')}: expected some of ${Object.keys(checks).join(', ')}`)
  process.exit(1)
}

const failed: string[] = []
for (const [name, check] of Object.entries(checks)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue
  const started = performance.now()
  const {
    problems,
    warnings = [],
    scope = '',
  } = await check().catch(
    (error: unknown): Findings => ({
      problems: [error instanceof Error ? (error.stack ?? error.message) : `${error}`],
    }),
  )
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  const mark = problems.length > 0 ? 'FAIL' : warnings.length > 0 ? 'warn' : 'ok'
  console.log(`${mark.padEnd(5)} ${name.padEnd(9)} ${seconds.padStart(6)} s  ${scope}`.trimEnd())
  for (const problem of problems) console.log(indent(problem))
  for (const warning of warnings) console.log(indent(`warning: ${warning}`))
  if (problems.length > 0) failed.push(name)
}
console.log(failed.length === 0 ? '\nAll checks hold' : `\nFailed: ${failed.join(', ')}`)
process.exitCode = failed.length === 0 ? 0 : 1

async function succeeds(args: readonly string[]): Promise<Findings> {
  const { code, output } = await runNode(args)
  return { problems: code === 0 ? [] : [output.trimEnd() || `exit code ${code}`] }
}

/** Indented, and cut where nobody would read on. */
function indent(text: string): string {
  const lines = text.split('\n')
  const rest = lines.length - longestDetail
  const shown = rest > 0 ? [...lines.slice(0, longestDetail), `… ${rest} more lines`] : lines
  return shown.map((line) => `      ${line}`).join('\n')
}
