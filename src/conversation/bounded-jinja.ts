/** Jinja programs of strangers, run so that one that loops or fills memory ends with an error instead of the process. */

import { createContext, runInContext } from 'node:vm'
import { parse, Template, tokenize } from '@huggingface/jinja'

export type JinjaProgram = Template

const longestRange = 100_000 // numbers of one range()
const longestRun = 2000 // milliseconds; published templates take one or two

/** The program of a template's source; `trimsBlocks` drops the white space around block tags, as chat templates want it. */
export function parseJinja(source: string, { trimsBlocks }: { trimsBlocks: boolean }): JinjaProgram {
  const tokens = tokenize(source, { lstrip_blocks: trimsBlocks, trim_blocks: trimsBlocks })
  const program = new Template('')
  // The library's own range() fills memory before anything could stop it, and its name cannot be given to another.
  program.parsed = parse(
    tokens.map((token: { readonly type: string; readonly value: string }) =>
      token.type === 'Identifier' && token.value === 'range' ? { ...token, value: 'shortRange' } : token,
    ),
  )
  return program
}

/** What a program writes. Errors: `Error` when it takes too long, and whatever it throws itself. */
export function runJinja(program: JinjaProgram, variables: Readonly<Record<string, unknown>>): string {
  const run = () => program.render({ ...variables, shortRange })
  try {
    // Node stops code that was called from within a context, wherever it is.
    return runInContext('run()', createContext({ run }), { timeout: longestRun })
  } catch (cause) {
    if (!isTimeout(cause)) throw cause
    throw new Error(`it has not ended after ${longestRun / 1000} seconds`, { cause })
  }
}

function shortRange(first: number, second?: number, step = 1): number[] {
  const [start, stop] = second === undefined ? [0, first] : [first, second]
  const count = Math.max(0, Math.ceil((stop - start) / step))
  if (!(count <= longestRange)) throw new RangeError(`found range() of ${count}, expected at most ${longestRange}`)
  return Array.from({ length: count }, (_, index) => start + index * step)
}

/** The error comes from another realm, whose Error is not ours. */
function isTimeout(error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'code' in error && error.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT'
}
