/**
 * Runs the command that README shows and writes down what it printed, and on which machine, between the markers
 * `<!-- output:start COMMAND -->` and `<!-- output:end -->`. Nobody types that block.
 *
 *     npx tsx scripts/update-readme.ts
 */

import { readFile, writeFile } from 'node:fs/promises'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { pathToFileURL } from 'node:url'
import { type Finished, runProgram } from './process.ts'

export type Recording = {
  readonly command: string
  /** What README shows, or undefined when nothing has been recorded yet. */
  readonly shown: string | undefined
  readonly run: () => Promise<Finished>
}

const block = /<!-- output:start (.+?) -->\n([\s\S]*?)<!-- output:end -->/

/** The command in README and the output it shows there. */
export async function readRecording(): Promise<Recording> {
  const found = block.exec(await readFile('README.md', 'utf8'))
  const [, command, content = ''] = found ?? []
  if (command === undefined) throw new Error('Cannot read README.md: found no <!-- output:start COMMAND --> block')
  const shown = /^```text\n([\s\S]*?)^```$/m.exec(content)?.[1]
  const [program = '', ...args] = command.split(' ')
  return { command, shown, run: () => runProgram(program, program === 'npm' ? ['--silent', ...args] : args) }
}

/** Whether two outputs differ in nothing but durations and rates. */
export function sameOutput(one: string, other: string): boolean {
  return withoutTimes(one) === withoutTimes(other)
}

function withoutTimes(output: string): string {
  return output
    .replace(/\d[\d,.]*(?= ?(ms|s|min|tokens\/s|pictures\/s)\b)/g, '#')
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n')
    .trim()
}

async function updateReadme(): Promise<void> {
  const { command, run } = await readRecording()
  const { code, output, seconds } = await run()
  if (code !== 0) throw new Error(`Cannot record ${command}: it ended with code ${code}\n${output}`)
  const text = output.trimEnd()
  if (text === '' || text.includes('```'))
    throw new Error(`Cannot record ${command}: found output that cannot be shown`)
  const shown = ['```text', text, '```', '', `${seconds.toFixed(1)} s in all, ${machine()}.`, ''].join('\n')
  const readme = await readFile('README.md', 'utf8')
  await writeFile(
    'README.md',
    readme.replace(block, () => `<!-- output:start ${command} -->\n${shown}<!-- output:end -->`),
  )
  console.log(`README.md: recorded ${command}, ${text.split('\n').length} lines`)
}

/** Processor, cores, memory, Node: what the time was measured on. */
function machine(): string {
  const model = cpus()[0]?.model.replace(/\s+/g, ' ').trim() ?? process.arch
  const memory = Math.round(totalmem() / 2 ** 30)
  return `${availableParallelism()} cores of ${model}, ${memory} GiB, ${process.platform}, Node ${process.version.slice(1)}`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) await updateReadme()
