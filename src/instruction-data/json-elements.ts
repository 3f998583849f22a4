/**
 * The objects in the lists of one large JSON file, one after the other: `{"images": [{…}, …], "annotations": [{…}, …]}`, or `[{…}, …]`.
 *
 * COCO's files are half a gigabyte. A general streaming parser makes a token of every number in them, which takes over a minute; here only the ends of
 * objects are looked for, and `JSON.parse` does the rest.
 */

import { createReadStream } from 'node:fs'
import { parseJson, unreadable } from './lines.ts'

export type JsonElement = {
  readonly list: string
  readonly index: number // in its list
  readonly line: number // where it begins, from 1
  readonly value: unknown
}

/** The name of a list that is the whole file. */
export const wholeFile = ''

const [quote, backslash, newline] = [0x22, 0x5c, 0x0a]
const [openBrace, closeBrace, openBracket, closeBracket] = [0x7b, 0x7d, 0x5b, 0x5d]
/** 1 for the bytes that are looked at outside of strings: most are not. */
const matters = new Uint8Array(256)
for (const byte of [quote, newline, openBrace, closeBrace, openBracket, closeBracket]) matters[byte] = 1
/** What stands for an element where the rest of the file is parsed. */
const placeholder = Buffer.from('0')
/** The name of a list is looked for in so many bytes before its bracket. */
const longestKey = 256
const pieceLength = 1 << 18 // bytes

/**
 * Yields the objects of the named lists at the top of the file, in the order of the file, in bounded memory. Returns what else is at the top.
 * @throws SyntaxError that names the element or says where the file is no JSON
 */
export async function* jsonElements(
  path: string,
  lists: readonly string[],
): AsyncGenerator<JsonElement, Readonly<Record<string, unknown>>> {
  const scan = createScan(lists)
  try {
    for await (const piece of createReadStream(path, { highWaterMark: pieceLength })) {
      for (const { list, index, line, text } of scan.read(piece)) {
        const where = list === wholeFile ? `line ${line}` : `${list}[${index}]`
        yield { list, index, line, value: parseJson(text, `${path}, ${where}`) }
      }
    }
  } catch (cause) {
    if (cause instanceof SyntaxError) throw cause
    throw unreadable(path, cause as NodeJS.ErrnoException)
  }
  const rest = parseJson(scan.rest(), path)
  if (lists.includes(wholeFile) && Array.isArray(rest)) {
    const others = rest.length - scan.counted()
    if (others === 0) return {}
    throw new SyntaxError(`Cannot read ${path}: found ${others} entries that are no objects, expected a list of rows`)
  }
  if (typeof rest === 'object' && rest !== null && !Array.isArray(rest)) return rest as Record<string, unknown>
  throw new SyntaxError(`Cannot read ${path}: found no object at the top, expected one with ${lists.join(', ')}`)
}

type RawElement = { readonly list: string; readonly index: number; readonly line: number; readonly text: string }

/** A scan over the bytes of a file, handed over piece by piece. What is no element is kept: parsed at the end, it shows whether the file was JSON. */
function createScan(lists: readonly string[]) {
  const rest: Buffer[] = []
  let element: Buffer[] | undefined // what was read of an element that is not complete
  let [depth, inString, escaped] = [0, false, false]
  let list: { name: string; length: number; depth: number } | undefined // whose elements are being read
  let [line, elementLine, counted] = [1, 1, 0]

  function read(piece: Buffer): RawElement[] {
    const found: RawElement[] = []
    const kept: Buffer[] = [] // for the rest
    let from = 0 // where the part begins that is not handed on
    for (let at = 0; at < piece.length; at++) {
      if (inString) at = endOfString(piece, at)
      const byte = piece[at] ?? 0
      if (matters[byte] === 0) continue
      if (byte === newline) line += 1
      else if (byte === quote) inString = !inString
      else if (byte === openBrace || byte === openBracket) {
        if (depth === list?.depth && byte === openBrace) {
          elementLine = line
          kept.push(piece.subarray(from, at))
          from = at
          element = []
        }
        depth += 1
        if (byte === openBracket && depth <= 2 && list === undefined) {
          list = listNamed(
            depth === 1 ? wholeFile : keyBefore([...rest.slice(-1), ...kept, piece.subarray(from, at)]),
            depth,
          )
        }
      } else {
        depth -= 1
        if (list !== undefined && depth < list.depth) list = undefined
        if (element === undefined || depth !== list?.depth) continue
        const text =
          element.length === 0
            ? piece.toString('utf8', from, at + 1)
            : Buffer.concat([...element, piece.subarray(from, at + 1)]).toString('utf8')
        found.push({ list: list.name, index: list.length, line: elementLine, text })
        list.length += 1
        counted += 1
        element = undefined
        kept.push(placeholder)
        from = at + 1
      }
    }
    const unfinished = element ?? kept
    unfinished.push(piece.subarray(from))
    rest.push(Buffer.concat(kept)) // a copy, which does not keep the whole piece in memory
    return found
  }
  /** Where the quote is that ends a string, or the end of the piece, from where the next one goes on. */
  function endOfString(piece: Buffer, from: number): number {
    for (let at = from; at < piece.length; at++) {
      if (escaped) escaped = false
      else if (piece[at] === backslash) escaped = true
      else if (piece[at] === quote) return at
    }
    return piece.length
  }
  const listNamed = (name: string | undefined, depth: number) =>
    name !== undefined && lists.includes(name) ? { name, length: 0, depth } : undefined
  return { read, counted: () => counted, rest: () => Buffer.concat([...rest, ...(element ?? [])]).toString('utf8') }
}

/** The key at the end of a text, `"annotations": `. */
function keyBefore(pieces: readonly Buffer[]): string | undefined {
  const tail = Buffer.concat(pieces).subarray(-longestKey).toString('utf8')
  return /"([^"\\]*)"\s*:\s*$/.exec(tail)?.[1]
}
