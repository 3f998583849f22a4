/** What a teacher is told, as text files: per type of response a system message, example pairs and, for descriptions, the questions they answer. */

import { createHash } from 'node:crypto'
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { ContextForm } from './symbolic-picture.ts'

/** The three types of responses of the paper (§3). */
export const responseTypes = ['conversation', 'detailed-description', 'complex-reasoning'] as const
export type ResponseType = (typeof responseTypes)[number]

/** As in the paper: conversations are written from captions alone. */
export const contextForms: Readonly<Record<ResponseType, ContextForm>> = {
  conversation: 'captions',
  'detailed-description': 'captions-and-boxes',
  'complex-reasoning': 'captions-and-boxes',
}

export type Prompt = {
  readonly type: ResponseType
  readonly system: string
  /** What the teacher is shown of other pictures, and what it should have written. */
  readonly examples: readonly { readonly context: string; readonly answer: string }[]
  /** One of them is drawn for a description, whose teacher writes the answer alone; empty for the other types. */
  readonly questions: readonly string[]
  /** Twelve hexadecimal digits over all files: rows made with other prompts have another one. */
  readonly version: string
}

export type Prompts = Readonly<Record<ResponseType, Prompt>>

/**
 * The prompts of a folder with one folder a type; a type that `folder` does not have is read from `fallback`.
 *
 * Files: `system.txt`, `NAME-context.txt` with `NAME-answer.txt` in the order of their names, and `questions.txt`, one a line.
 * @throws Error for a missing file, SyntaxError for an empty one
 */
export async function loadPrompts(folder: string, { fallback }: { fallback?: string } = {}): Promise<Prompts> {
  const found = await Promise.all(responseTypes.map((type) => isFolder(join(folder, type))))
  if (!found.includes(true)) {
    throw new Error(`Cannot read prompts in ${folder}: found none of the folders ${responseTypes.join(', ')}`)
  }
  const read = (type: ResponseType, index: number) =>
    loadPrompt(join(found[index] || fallback === undefined ? folder : fallback, type), type)
  const [conversation, description, reasoning] = await Promise.all(responseTypes.map(read))
  return {
    conversation: conversation as Prompt,
    'detailed-description': description as Prompt,
    'complex-reasoning': reasoning as Prompt,
  }
}

async function loadPrompt(folder: string, type: ResponseType): Promise<Prompt> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => name.endsWith('.txt')).sort(byName)
  const texts = new Map<string, string>()
  for (const name of names)
    texts.set(name, (await readFile(join(folder, name), 'utf8')).replaceAll('\r\n', '\n').trim())
  const text = (name: string): string => {
    const found = texts.get(name)
    if (found === undefined) throw new Error(`Cannot read the prompt ${join(folder, name)}: no such file`)
    if (found === '') throw new SyntaxError(`Cannot read the prompt ${join(folder, name)}: it is empty`)
    return found
  }
  const system = text('system.txt')
  const examples = names
    .filter((name) => name.endsWith('-context.txt'))
    .map((name) => ({ context: text(name), answer: text(name.replace('-context.txt', '-answer.txt')) }))
  const questions =
    type === 'detailed-description'
      ? text('questions.txt')
          .split('\n')
          .map((line) => line.trim())
          .filter(Boolean)
      : []
  const version = createHash('sha256')
    .update(JSON.stringify([...texts]))
    .digest('hex')
    .slice(0, 12)
  return { type, system, examples, questions, version }
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() ?? false
}

/** `2-context.txt` before `10-context.txt`, the same on every machine. */
function byName(one: string, other: string): number {
  return one.localeCompare(other, 'en', { numeric: true })
}
