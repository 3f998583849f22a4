/** What `--captions` was given: COCO files, rows, a table or a folder of pictures; found out by looking at it, not by its name alone. */

import { stat } from 'node:fs/promises'
import { describeBytes } from '../image/format.ts'
import { describeCaptionFolder, readCaptionFolder } from './caption-folder.ts'
import { describeTable, readCaptionTable, readTableForm, type TableOptions } from './caption-table.ts'
import { readCoco } from './coco.ts'
import { firstBytes, unreadable } from './lines.ts'
import { readPictureRows } from './picture-rows.ts'
import type { PictureOrProblem } from './symbolic-picture.ts'

export type CaptionsInput = {
  readonly form: 'coco' | 'rows' | 'list' | 'table' | 'folder'
  /** What was found, in a clause. */
  readonly said: string
}

const headBytes = 1 << 16
const known = 'COCO captions (.json), rows (.jsonl), a table (.csv) or a folder of pictures with captions beside them'

/**
 * Finds out what lies at a path.
 * @throws Error or SyntaxError in one sentence, when it is nothing that captions can be read from
 */
export async function findCaptions(path: string): Promise<CaptionsInput> {
  const status = await stat(path).catch((cause) => Promise.reject(unreadable(path, cause)))
  if (status.isDirectory()) return { form: 'folder', said: await describeCaptionFolder(path) }
  const head = await firstBytes(path, headBytes)
  const text = head
    .toString('utf8')
    .replace(/^\uFEFF/, '')
    .trimStart()
  if (text === '') throw new SyntaxError(`Cannot read ${path}: it is empty, expected ${known}`)
  if (/\.(?:jsonl|ndjson)$/i.test(path)) return { form: 'rows', said: 'rows, one a line' }
  if (text.startsWith('[')) return { form: 'list', said: 'a list of rows' }
  if (text.startsWith('{')) {
    return beginsWithRow(text) ? { form: 'rows', said: 'rows, one a line' } : { form: 'coco', said: 'COCO captions' }
  }
  const wide = head[0] === 0xff && head[1] === 0xfe // UTF-16, as some programs save tables
  if (!wide && head.includes(0))
    throw new SyntaxError(`Cannot read ${path}: found ${describeBytes(head)}, expected ${known}`)
  return { form: 'table', said: describeTable(await readTableForm(path)) }
}

/** Every picture of the input once, in words or with what keeps it from being used. */
export function readCaptions(
  path: string,
  { form, instances, ...options }: Pick<CaptionsInput, 'form'> & TableOptions & { instances: string | undefined },
): AsyncGenerator<PictureOrProblem> {
  switch (form) {
    case 'coco':
      return readCoco({ captions: path, instances }, { folder: options.folder, onRecord: options.onRecord })
    case 'rows':
    case 'list':
      return readPictureRows(path, { list: form === 'list' })
    case 'table':
      return readCaptionTable(path, options)
    case 'folder':
      return readCaptionFolder(path, options)
  }
}

/** Whether the first line is an object of its own. A COCO file may be one line as well, but a long one and the only one. */
function beginsWithRow(text: string): boolean {
  const end = text.indexOf('\n')
  try {
    const row: unknown = JSON.parse(end < 0 ? text : text.slice(0, end))
    return typeof row === 'object' && row !== null && !('annotations' in row) && !('images' in row)
  } catch {
    return false
  }
}
