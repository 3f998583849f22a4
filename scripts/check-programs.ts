/** The parts of the gate that run what the project shows to others: examples, TypeScript in documents, shell commands in documents. */

import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { programs, runNode, runProgram, runTypeScript } from './process.ts'
import { type Findings, projectFiles } from './repository.ts'

/** Lines that an example may have. */
const longestExample = 30

type Snippet = { readonly path: string; readonly line: number; readonly code: string }

/** Every example is short, opens with a comment, and runs. */
export async function checkExamples(): Promise<Findings> {
  const paths = (await projectFiles('.ts')).filter((path) => path.startsWith('examples/'))
  const problems: string[] = []
  for (const path of paths) {
    const text = await readFile(path, 'utf8')
    const lines = text.trimEnd().split('\n').length
    if (lines > longestExample) problems.push(`${path}: ${lines} lines, expected at most ${longestExample}`)
    if (!text.startsWith('/*')) problems.push(`${path}: expected a comment at the top`)
    const { code, output } = await runTypeScript(path)
    if (code !== 0) problems.push(`${path}: ended with code ${code}:\n${output.trimEnd()}`)
    else if (output.trim() === '') problems.push(`${path}: printed nothing`)
  }
  if (paths.length === 0) problems.push('examples/: found no example')
  return { problems, scope: `${paths.length} programs` }
}

/** TypeScript in documents fits the types of the built package, and runs. */
export async function checkTypeScriptSnippets(): Promise<Findings> {
  const snippets = await snippetsOf('ts')
  // Inside the repository, so that 'llava-ts' is this package; in a folder that git ignores.
  await mkdir('runs', { recursive: true })
  const folder = await mkdtemp(join('runs', 'snippets-'))
  try {
    const files = snippets.map((_, index) => join(folder, `snippet-${index + 1}.ts`))
    const compilerOptions = { noUnusedLocals: false }
    const config = { extends: '../../tsconfig.json', compilerOptions, include: ['*.ts'] }
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config))
    for (const [index, { code }] of snippets.entries()) await writeFile(files[index] ?? '', `${code}\nexport {}\n`)
    const problems: string[] = []
    const types = await runNode([programs.tsc, '-p', folder, '--noEmit'])
    if (types.code !== 0 && snippets.length > 0) problems.push(named(types.output, { snippets, files }))
    for (const [index, snippet] of snippets.entries()) {
      const { code, output } = await runTypeScript(files[index] ?? '')
      if (code !== 0)
        problems.push(`${where(snippet)}: ended with code ${code}:\n${named(output, { snippets, files })}`)
    }
    return { problems, scope: `${snippets.length} snippets` }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Commands in documents succeed: lines that start with `npx llava` or `npm start` in ```sh blocks. */
export async function checkShellSnippets(): Promise<Findings> {
  const problems: string[] = []
  let count = 0
  for (const snippet of await snippetsOf('sh')) {
    for (const line of snippet.code.replaceAll('\\\n', ' ').split('\n')) {
      const command = toProgram(line)
      if (command === undefined) continue
      count++
      const { code, output } = await runProgram('bash', ['-c', command])
      if (code !== 0) problems.push(`${where(snippet)}: ${line.trim()}\nended with code ${code}:\n${output.trimEnd()}`)
    }
  }
  return { problems, scope: `${count} commands` }
}

/** The command line with the program that was just built in the place of the installed one. */
function toProgram(line: string): string | undefined {
  const command = line.trim()
  if (/^npm start\b/.test(command)) return command
  return /^npx llava\b/.test(command) ? command.replace('npx llava', `node ${programs.llava}`) : undefined
}

/** Fenced blocks of a language in all documents, except those below a comment that says why they are not run. */
async function snippetsOf(language: string): Promise<Snippet[]> {
  const snippets: Snippet[] = []
  for (const path of await projectFiles('.md')) {
    const text = await readFile(path, 'utf8')
    for (const match of text.matchAll(/^(`{3,})(\w*)\n([\s\S]*?)^\1$/gm)) {
      const before = text.slice(0, match.index).trimEnd().split('\n')
      if (match[2] !== language || /^<!-- not run: .+ -->$/.test(before.at(-1)?.trim() ?? '')) continue
      snippets.push({ path, line: text.slice(0, match.index).split('\n').length, code: match[3] ?? '' })
    }
  }
  return snippets
}

function where({ path, line }: Snippet): string {
  return `${path}:${line}`
}

/** Compiler and runtime messages with the document's lines instead of those of temporary files. */
function named(
  output: string,
  { snippets, files }: { snippets: readonly Snippet[]; files: readonly string[] },
): string {
  return snippets.reduce((text, { path, line }, index) => {
    const place = new RegExp(`\\S*${basename(files[index] ?? '')}([:(])(\\d+)`, 'g')
    return text.replace(place, (_, mark: string, number: string) => `${path}${mark}${line + Number(number)}`)
  }, output.trimEnd())
}
