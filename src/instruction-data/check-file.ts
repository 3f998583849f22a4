/** Goes through a file of LLaVA JSON of any size and says, line by line, what a trainer would stumble over. */

import type { Turn } from '../conversation/turns.ts'
import { fromLlavaConversations } from '../conversation/turns.ts'
import { jsonElements, wholeFile } from './json-elements.ts'
import { linesOf } from './lines.ts'
import { pictureProblem } from './picture-file.ts'

export type RowProblem = { readonly line: number; readonly id?: string; readonly problem: string }

/** Tokens of turns that show pictures of these file names. */
export type CountTokens = (turns: readonly Turn[], pictures: readonly string[]) => Promise<number>

export type CheckOptions = {
  /** The pictures' folder; without it pictures are not looked for. */
  readonly images?: string | undefined
  /** Tokens of a conversation with its pictures, and how many are allowed. */
  readonly tokens?: { readonly count: CountTokens; readonly most: number } | undefined
  readonly onProblem: (problem: RowProblem) => void
  readonly onRow?: (rows: number) => void
}

export type CheckSummary = {
  readonly rows: number
  readonly problems: number
  readonly textOnly: number // rows without a picture
  readonly turns: number
  /** Rows whose id an earlier row has: allowed, as in LLaVA-1.5's own mixture, but rarely meant. */
  readonly repeatedIds: number
  readonly longest: number | undefined // tokens
}

/**
 * Checks every row of a `.json` list or a `.jsonl` file. Memory grows with the ids alone.
 * @throws SyntaxError when the file is no JSON at all
 */
export async function checkLlavaFile(
  path: string,
  { images, tokens, onProblem, onRow }: CheckOptions,
): Promise<CheckSummary> {
  const ids = new Set<string>()
  const pictures = new Map<string, string | undefined>() // problems by file name
  const counts = { rows: 0, problems: 0, textOnly: 0, turns: 0, repeatedIds: 0 }
  let longest: number | undefined
  for await (const { line, value, broken } of numberedRows(path)) {
    counts.rows += 1
    onRow?.(counts.rows)
    if (broken !== undefined || !isObject(value)) {
      counts.problems += 1
      onProblem({ line, problem: broken ?? rowProblems(value).join('; ') })
      continue
    }
    const id = idOf(value)
    const found = rowProblems(value)
    if (id !== undefined) {
      if (ids.has(id)) counts.repeatedIds += 1
      ids.add(id)
    }
    const { image, conversations } = value
    for (const name of images === undefined ? [] : namesIn(image)) {
      if (!pictures.has(name)) pictures.set(name, await pictureProblem(name, images ?? ''))
      const problem = pictures.get(name)
      if (problem !== undefined) found.push(problem)
    }
    if (image === undefined) counts.textOnly += 1
    if (Array.isArray(conversations)) counts.turns += conversations.length
    if (tokens !== undefined && found.length === 0) {
      const shown = fromLlavaConversations(conversations as Parameters<typeof fromLlavaConversations>[0])
      const count = await tokens.count(shown, namesIn(image)).catch((error: unknown) => error)
      if (typeof count !== 'number') found.push(count instanceof Error ? count.message : String(count))
      else longest = Math.max(longest ?? 0, count)
      if (Number(count) > tokens.most)
        found.push(`the conversation has ${count} tokens, expected at most ${tokens.most}`)
    }
    counts.problems += found.length
    for (const problem of found) onProblem({ line, ...(id !== undefined && { id }), problem })
  }
  return { ...counts, longest }
}

type NumberedRow = { readonly line: number; readonly value?: unknown; readonly broken?: string }

/** The rows of a file; a line that is no JSON does not keep the others from being checked. */
async function* numberedRows(path: string): AsyncGenerator<NumberedRow> {
  if (!path.endsWith('.jsonl')) {
    yield* jsonElements(path, [wholeFile])
    return
  }
  let line = 0
  for await (const text of linesOf(path)) {
    line += 1
    if (text.trim() === '') continue
    try {
      yield { line, value: JSON.parse(text) }
    } catch (error) {
      yield { line, broken: `found no JSON (${error instanceof Error ? error.message : error})` }
    }
  }
}

function idOf(value: unknown): string | undefined {
  const id = isObject(value) ? value.id : undefined
  return typeof id === 'string' || typeof id === 'number' ? String(id) : undefined
}

/** What is wrong with a row, apart from its picture's file. */
export function rowProblems(value: unknown): string[] {
  if (!isObject(value)) return [`found ${kindOf(value)}, expected an object with id, image and conversations`]
  const problems: string[] = []
  if (idOf(value) === undefined) problems.push(`id: found ${kindOf(value.id)}, expected a text or a number`)
  const { image, conversations } = value
  const names = namesIn(image)
  if (image !== undefined && (names.length === 0 || names.includes('')))
    problems.push(`image: found ${kindOf(image)}, expected a file name or a list of them`)
  if (!Array.isArray(conversations) || conversations.length === 0) {
    return [
      ...problems,
      `conversations: found ${Array.isArray(conversations) ? 'none' : kindOf(conversations)}, expected a list of turns`,
    ]
  }
  const turns = conversations.map((turn: unknown) => (isObject(turn) ? turn : {}))
  for (const [index, { from, value: text }] of turns.entries()) {
    if (typeof text !== 'string') problems.push(`conversations[${index}].value: found ${kindOf(text)}, expected a text`)
    else if (text.replaceAll(mark, '').trim() === '' && !(from === 'human' && text.includes(mark)))
      problems.push(`conversations[${index}].value: it is empty`)
  }
  const roles = turns.map(({ from }) => from)
  if (roles[0] === 'system') roles.shift()
  const wrong = roles.findIndex((role, index) => role !== (index % 2 === 0 ? 'human' : 'gpt'))
  const shift = turns.length - roles.length
  if (wrong >= 0) {
    const expected = wrong % 2 === 0 ? 'human' : 'gpt'
    problems.push(
      `conversations[${wrong + shift}].from: found ${JSON.stringify(roles[wrong]) ?? 'nothing'}, expected "${expected}"`,
    )
  } else if (roles.length % 2 === 1 || roles.length === 0)
    problems.push('conversations: the last question has no answer')
  return [...problems, ...placeholderProblems(turns, image === undefined ? 0 : Math.max(1, names.length))]
}

/** File names of a row's pictures: one as a text, several as a list; none of anything else. */
function namesIn(image: unknown): readonly string[] {
  const names: unknown[] = image === undefined ? [] : [image].flat()
  return names.every((name) => typeof name === 'string') ? names : []
}

const mark = '<image>'

function placeholderProblems(turns: readonly Record<string, unknown>[], pictures: number): string[] {
  const counts = turns.map(({ value }) => (typeof value === 'string' ? value.split(mark).length - 1 : 0))
  const answered = turns.findIndex(({ from }, index) => from !== 'human' && (counts[index] ?? 0) > 0)
  if (answered >= 0) return [`conversations[${answered}].value: found ${mark} in a turn that is no question`]
  const total = counts.reduce((sum, count) => sum + count, 0)
  if (pictures === 0) return total === 0 ? [] : [`conversations: found ${mark} ${times(total)} without an image`]
  if (total !== pictures) {
    const expected = pictures === 1 ? 'it once for one image' : `it ${times(pictures)} for as many images`
    return [`conversations: found ${mark} ${times(total)}, expected ${expected}`]
  }
  if (pictures > 1) return []
  const first = turns.findIndex(({ from }) => from === 'human')
  return counts[first] === 1 ? [] : [`conversations: found ${mark} in a later question, expected it in the first`]
}

function times(count: number): string {
  return count === 0 ? 'nowhere' : count === 1 ? 'once' : `${count} times`
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'a list'
  return typeof value === 'object'
    ? 'an object'
    : typeof value === 'string'
      ? value === ''
        ? 'an empty text'
        : 'a text'
      : `a ${typeof value}`
}
