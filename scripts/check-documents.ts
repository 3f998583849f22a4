/** The parts of the gate that hold documents against the repository: the tree in README, links, the recorded output. */

import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, join, normalize } from 'node:path'
import { type Findings, projectFiles } from './repository.ts'
import { readRecording, sameOutput } from './update-readme.ts'

/** README's tree has one line with a comment for every folder of the root and of src/, and no other. */
export async function checkTree(): Promise<Findings> {
  const readme = await readFile('README.md', 'utf8')
  const blocks = [...readme.matchAll(/^```text\n([\s\S]*?)^```$/gm)].map(([, content = '']) => content)
  const tree = blocks.find((content) => /^src\/$/m.test(content))
  if (tree === undefined) return { problems: ['README.md: found no ```text block with a line src/'] }
  const lines = tree.trimEnd().split('\n')
  const problems: string[] = []
  const listed: string[] = []
  for (const line of lines) {
    const entry = /^( *)([\w.-]+)\/(?: +(\S.*))?$/.exec(line)
    if (entry === null) problems.push(`README.md: cannot read the tree line "${line}"`)
    else {
      const [, indent = '', name = '', comment] = entry
      listed.push(indent === '' ? name : `src/${name}`)
      if (comment === undefined && name !== 'src') problems.push(`README.md: ${name}/ has no comment in the tree`)
    }
  }
  const files = await projectFiles()
  const existing = new Set(files.flatMap(foldersShown))
  for (const folder of existing) if (!listed.includes(folder)) problems.push(`README.md: the tree lacks ${folder}/`)
  for (const folder of listed)
    if (!existing.has(folder)) problems.push(`README.md: the tree has ${folder}/, which does not exist`)
  for (const folder of new Set(listed)) {
    if (listed.filter((name) => name === folder).length > 1) problems.push(`README.md: the tree has ${folder}/ twice`)
  }
  return { problems, scope: `${existing.size} folders` }
}

/** Links lead to files that exist, to headings that exist, and, when their text is one symbol, to a file that has it. */
export async function checkLinks(): Promise<Findings> {
  const paths = await projectFiles('.md')
  const problems: string[] = []
  let count = 0
  for (const path of paths) {
    const text = withoutFences(await readFile(path, 'utf8'))
    for (const { label, target } of linksIn(text)) {
      if (/^(https?:|mailto:)/.test(target)) continue
      count++
      const [file = '', heading] = target.split('#')
      const found = file === '' ? path : normalize(join(dirname(path), decodeURIComponent(file)))
      if (!existsSync(found)) problems.push(`${path}: ${target} does not exist`)
      else if (found.startsWith('..')) problems.push(`${path}: ${target} lies outside of the repository`)
      else {
        const problem = await missingInside(found, { label, heading })
        if (problem !== undefined) problems.push(`${path}: ${problem}`)
      }
    }
  }
  return { problems, scope: `${count} links in ${paths.length} files` }
}

/** The output shown in README is what the command prints today, apart from durations. */
export async function checkOutput(): Promise<Findings> {
  const { command, shown, run } = await readRecording()
  if (shown === undefined)
    return { problems: ['README.md: no output is recorded, run npx tsx scripts/update-readme.ts'] }
  const { code, output } = await run()
  if (code !== 0) return { problems: [`${command} ended with code ${code}:\n${output.trimEnd()}`] }
  if (sameOutput(shown, output)) return { problems: [], scope: command }
  return { problems: [`README.md shows another output of ${command} than today's, which is:\n${output.trimEnd()}`] }
}

/** Folders of the root and of src/ that a file lies in; hidden ones are not shown. */
function foldersShown(path: string): string[] {
  const [first = '', second, third] = path.split('/')
  if (second === undefined || first.startsWith('.')) return []
  return first === 'src' && third !== undefined ? [first, `src/${second}`] : [first]
}

async function missingInside(
  file: string,
  { label, heading }: { label: string; heading: string | undefined },
): Promise<string | undefined> {
  const text = /\.(md|ts|py|yaml)$/.test(file) ? await readFile(file, 'utf8') : ''
  if (heading !== undefined && file.endsWith('.md') && !headings(text).includes(heading)) {
    return `${file} has no heading #${heading}`
  }
  const symbol = /^`([A-Za-z_]\w*)(?:\(\))?`$/.exec(label)?.[1]
  if (symbol === undefined || !file.endsWith('.ts') || new RegExp(`\\b${symbol}\\b`).test(text)) return undefined
  return `${file} does not mention ${symbol}`
}

/** Headings as their anchors are written: lower case, dashes for spaces, no punctuation. */
function headings(text: string): string[] {
  return [...withoutFences(text).matchAll(/^#+ +(.+)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replace(/[^\p{L}\p{N}\s_-]/gu, '')
      .trim()
      .replace(/\s/g, '-'),
  )
}

function linksIn(text: string): { label: string; target: string }[] {
  const markdown = [...text.matchAll(/\[([^\]]*)\]\(([^()\s]+)\)/g)].map(([, label = '', target = '']) => ({
    label,
    target,
  }))
  const html = [...text.matchAll(/(?:href|src)="([^"]+)"/g)].map(([, target = '']) => ({ label: '', target }))
  return [...markdown, ...html]
}

/** Blanks out fenced blocks: what stands there is no link. */
function withoutFences(text: string): string {
  return text.replace(/^(`{3,})[\s\S]*?^\1$/gm, '')
}
