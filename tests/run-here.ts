/** The program in this process, with what it printed and its exit code. */

import { vi } from 'vitest'
import { runProgram } from '../src/cli/program.ts'

/** Runs one command line. */
export async function runHere(...words: string[]) {
  const said = { stdout: '', stderr: '' }
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      said[name] += text
      return true
    }),
  )
  try {
    return { code: await runProgram(words), ...said }
  } finally {
    for (const spy of spies) spy.mockRestore()
  }
}
