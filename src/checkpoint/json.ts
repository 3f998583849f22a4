/** Untrusted JSON of checkpoint files: strict UTF-8, no key twice in one object (which `JSON.parse` would hide), no prototype keys. */

import { open } from 'node:fs/promises'
import { readFully } from './ranged-read.ts'

const longestJson = 100_000_000 // bytes, as for a safetensors header

/** Parses `bytes`; `what` names them in errors, which are `SyntaxError`s. */
export function parseStrictJson(bytes: Uint8Array, what: string): unknown {
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    throw new SyntaxError(`Cannot parse ${what}: found invalid UTF-8, expected JSON`)
  }
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (error) {
    throw new SyntaxError(`Cannot parse ${what}: ${firstLine(error)}, expected JSON`)
  }
  refuseBadKeys(text, what)
  return json
}

/** Reads and parses a whole JSON file of at most 100 MB. */
export async function readStrictJson(path: string): Promise<unknown> {
  const handle = await open(path)
  try {
    const { size } = await handle.stat()
    if (size > longestJson) {
      throw new RangeError(`Cannot parse ${path}: found ${size} bytes, expected at most ${longestJson}`)
    }
    return parseStrictJson(await readFully(handle, { begin: 0, end: size, what: path }), path)
  } finally {
    await handle.close()
  }
}

/** A name from a file, safe to show in a one-line message. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 100 ? `${name.slice(0, 100)}…` : name)
}

/** Walks text that is known to be valid JSON: every string before a colon is a key of the innermost open object. */
function refuseBadKeys(text: string, what: string): void {
  const open: Set<string>[] = []
  let at = 0
  while (at < text.length) {
    const character = text[at]
    if (character === '{') open.push(new Set())
    else if (character === '}') open.pop()
    else if (character === '"') {
      const end = endOfString(text, at)
      if (isBeforeColon(text, end)) refuseBadKey(String(JSON.parse(text.slice(at, end))), open.at(-1), what)
      at = end
      continue
    }
    at++
  }
}

function refuseBadKey(key: string, seen: Set<string> | undefined, what: string): void {
  if (seen?.has(key)) throw new SyntaxError(`Cannot parse ${what}: found the key ${quote(key)} twice in one object`)
  if (key === '__proto__' || key === 'constructor' || key === 'prototype') {
    throw new SyntaxError(`Cannot parse ${what}: found the key ${quote(key)}, which names no tensor or setting`)
  }
  seen?.add(key)
}

/** Position after the closing quote of the string that opens at `start`. */
function endOfString(text: string, start: number): number {
  let at = start + 1
  while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1
  return at + 1
}

function isBeforeColon(text: string, start: number): boolean {
  let at = start
  while (text[at] === ' ' || text[at] === '\n' || text[at] === '\t' || text[at] === '\r') at++
  return text[at] === ':'
}

function firstLine(error: unknown): string {
  return String(error instanceof Error ? error.message : error).split('\n', 1)[0] ?? ''
}
