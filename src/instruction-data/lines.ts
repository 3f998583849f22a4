/** JSON lines: files with one JSON value a line, read with bounded memory and with the number of each line. */

import { createReadStream } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import type { z } from 'zod'
import { tellWrongFields } from '../wrong-fields.ts'

export type NumberedLine = { readonly line: number /* from 1 */; readonly value: unknown }

/**
 * The values of a file of JSON lines; empty lines are passed over.
 * @throws SyntaxError that names the file and the line that is no JSON
 */
export async function* readJsonLines(path: string): AsyncGenerator<NumberedLine> {
  let line = 0
  for await (const text of linesOf(path)) {
    line += 1
    if (text.trim() !== '') yield { line, value: parseJson(text, `${path}, line ${line}`) }
  }
}

/**
 * The same, each value checked by a schema.
 * @throws SyntaxError that names the file, the line and the field
 */
export async function* readRecords<T>(path: string, schema: z.ZodType<T>): AsyncGenerator<T> {
  for await (const { line, value } of readJsonLines(path))
    yield checked(schema, { value, where: `${path}, line ${line}` })
}

/** The lines of a text file, without their ends and without a byte order mark. @throws Error in one sentence when it cannot be read */
export async function* linesOf(path: string): AsyncGenerator<string> {
  // Not by readline, which takes characters within a line (U+2028) for its end as well.
  let begun: string | undefined
  try {
    for await (const piece of createReadStream(path, { encoding: 'utf8', highWaterMark: 1 << 18 })) {
      const [first, ...more] = (begun === undefined ? piece.replace(/^\uFEFF/, '') : piece).split('\n')
      const last = more.pop()
      if (last === undefined) {
        begun = (begun ?? '') + first
        continue
      }
      yield withoutReturn((begun ?? '') + first)
      for (const line of more) yield withoutReturn(line)
      begun = last
    }
  } catch (cause) {
    throw unreadable(path, cause as NodeJS.ErrnoException)
  }
  if (begun !== undefined && begun !== '') yield withoutReturn(begun)
}

/** The first bytes of a file, at most so many: what kind of file it is. @throws Error in one sentence when it cannot be read */
export async function firstBytes(path: string, most: number): Promise<Buffer> {
  try {
    const handle = await open(path)
    try {
      const { buffer, bytesRead } = await handle.read(Buffer.alloc(most), 0, most, 0)
      return buffer.subarray(0, bytesRead)
    } finally {
      await handle.close()
    }
  } catch (cause) {
    throw unreadable(path, cause as NodeJS.ErrnoException)
  }
}

function withoutReturn(line: string): string {
  return line.endsWith('\r') ? line.slice(0, -1) : line
}

/**
 * Writes to an open file, gathered: a write of its own for every row would take longer than the rest. What is left is written by `end`.
 * @param options.length characters that are written at once
 */
export function gatheredWrites(
  handle: Pick<FileHandle, 'writeFile'>,
  { length: atOnce = 1 << 18 }: { length?: number } = {},
) {
  let [texts, length]: [string[], number] = [[], 0]
  const end = async (): Promise<void> => {
    const text = texts.join('')
    ;[texts, length] = [[], 0]
    if (text !== '') await handle.writeFile(text)
  }
  return {
    add: async (text: string): Promise<void> => {
      texts.push(text)
      length += text.length
      if (length >= atOnce) await end()
    },
    end,
  }
}

/** @throws SyntaxError that says where the text stands and why it is no JSON */
export function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw new SyntaxError(`Cannot read ${where}: ${cause instanceof Error ? cause.message : cause}`, { cause })
  }
}

/** @throws SyntaxError that says where the value stands and which field is not as the schema says */
export function checked<T>(schema: z.ZodType<T>, { value, where }: { value: unknown; where: string }): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  throw new SyntaxError(`Cannot read ${where}: ${tellWrongFields(result.error, value)}`)
}

/** Makes of a full disk one sentence; other errors stay what they are. */
export function saidIfFull(error: unknown, { path, kept }: { path: string; kept: string }): unknown {
  return isFull(error)
    ? new Error(`Cannot write ${path}: no space left on the device; ${kept}`, { cause: error })
    : error
}

export function isFull(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT', 'EFBIG'].includes((error as NodeJS.ErrnoException | undefined)?.code ?? '')
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'no such file',
  ENOTDIR: 'no such file',
  EISDIR: 'it is a folder, expected a file',
  EACCES: 'permission denied',
}

/** Why a file or folder could not be read, in one sentence. */
export function unreadable(path: string, cause: NodeJS.ErrnoException): Error {
  return new Error(`Cannot read ${path}: ${reasons[cause.code ?? ''] ?? cause.message}`, { cause })
}
