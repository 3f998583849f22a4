/** JSON lines: files with one JSON value a line, read with bounded memory and with the number of each line. */

import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import type { z } from 'zod'

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

/** The lines of a text file, without their ends. @throws Error in one sentence when it cannot be read */
export async function* linesOf(path: string): AsyncGenerator<string> {
  const stream = createReadStream(path, { encoding: 'utf8', highWaterMark: 1 << 18 })
  const failed = new Promise<never>((_, reject) => stream.once('error', (cause) => reject(unreadable(path, cause))))
  failed.catch(() => {})
  await Promise.race([new Promise((resolve) => stream.once('open', resolve)), failed])
  try {
    for await (const text of createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })) yield text
    if (stream.errored) await failed
  } finally {
    stream.destroy()
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
  throw new SyntaxError(`Cannot read ${where}: ${firstIssue(result.error)}`)
}

export function firstIssue({ issues: [issue] }: z.ZodError): string {
  return `${issue?.path.join('.') || 'as a whole'}: ${issue?.message}`
}

export function unreadable(path: string, cause: NodeJS.ErrnoException): Error {
  const reason = cause.code === 'ENOENT' ? 'no such file' : cause.code === 'EISDIR' ? 'it is a folder' : cause.message
  return new Error(`Cannot read ${path}: ${reason}`, { cause })
}
