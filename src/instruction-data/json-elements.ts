/**
 * The objects in the lists of one large JSON file, one after the other: `{"images": [{…}, …], "annotations": [{…}, …]}`.
 *
 * COCO's files are half a gigabyte. A general streaming parser makes a token of every number in them, which takes over a minute; here only the ends of
 * objects are looked for, and `JSON.parse` does the rest.
 */

import { createReadStream } from 'node:fs'
import { parseJson, unreadable } from './lines.ts'

export type JsonElement = { readonly list: string; readonly index: number /* in its list */; readonly value: unknown }

const [quote, backslash] = [0x22, 0x5c]
const [openBrace, closeBrace, openBracket, closeBracket] = [0x7b, 0x7d, 0x5b, 0x5d]
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
      for (const { list, index, text } of scan.read(piece)) {
        yield { list, index, value: parseJson(text, `${path}, ${list}[${index}]`) }
      }
    }
  } catch (cause) {
    if (cause instanceof SyntaxError) throw cause
    throw unreadable(path, cause as NodeJS.ErrnoException)
  }
  const rest = parseJson(scan.rest(), path)
  if (typeof rest === 'object' && rest !== null && !Array.isArray(rest)) return rest as Record<string, unknown>
  throw new SyntaxError(`Cannot read ${path}: found no object at the top, expected one with ${lists.join(', ')}`)
}

type RawElement = { readonly list: string; readonly index: number; readonly text: string }

/** A scan over the bytes of a file, handed over piece by piece. What is no element is kept: parsed at the end, it shows whether the file was JSON. */
function createScan(lists: readonly string[]) {
  const rest: Buffer[] = []
  let element: Buffer[] | undefined // what was read of an element that is not complete
  let [depth, inString, escaped] = [0, false, false]
  let list: { name: string; length: number } | undefined // whose elements are being read

  function* read(piece: Buffer): Generator<RawElement> {
    const kept: Buffer[] = [] // for the rest
    let from = 0 // where the part begins that is not handed on
    for (let at = 0; at < piece.length; at++) {
      const byte = piece[at]
      if (inString) {
        if (escaped) escaped = false
        else if (byte === backslash) escaped = true
        else if (byte === quote) inString = false
      } else if (byte === quote) inString = true
      else if (byte === openBrace || byte === openBracket) {
        if (list !== undefined && depth === 2 && byte === openBrace) {
          kept.push(piece.subarray(from, at))
          from = at
          element = []
        }
        depth += 1
        if (depth === 2 && byte === openBracket)
          list = listNamed(keyBefore([...rest.slice(-1), ...kept, piece.subarray(from, at)]))
      } else if (byte === closeBrace || byte === closeBracket) {
        depth -= 1
        if (depth === 1) list = undefined
        if (depth !== 2 || element === undefined || list === undefined) continue
        const whole = Buffer.concat([...element, piece.subarray(from, at + 1)])
        yield { list: list.name, index: list.length, text: whole.toString('utf8') }
        list.length += 1
        element = undefined
        kept.push(placeholder)
        from = at + 1
      }
    }
    const unfinished = element ?? kept
    unfinished.push(piece.subarray(from))
    rest.push(Buffer.concat(kept)) // a copy, which does not keep the whole piece in memory
  }
  const listNamed = (name: string | undefined) =>
    name !== undefined && lists.includes(name) ? { name, length: 0 } : undefined
  return { read, rest: () => Buffer.concat([...rest, ...(element ?? [])]).toString('utf8') }
}

/** The key at the end of a text, `"annotations": `. */
function keyBefore(pieces: readonly Buffer[]): string | undefined {
  const tail = Buffer.concat(pieces).subarray(-longestKey).toString('utf8')
  return /"([^"\\]*)"\s*:\s*$/.exec(tail)?.[1]
}
