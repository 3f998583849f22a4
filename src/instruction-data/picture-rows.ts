/** Pictures in words from a file with one of them a line: `{"id", "image", "captions": [...], "boxes": [{"category", "box": [x1, y1, x2, y2]}]}`. */

import type { PictureOrProblem } from './coco.ts'
import { firstIssue, readJsonLines } from './lines.ts'
import { symbolicPictureSchema } from './symbolic-picture.ts'

/**
 * Every row of the file once; rows that cannot be used come as problems with their line.
 * @throws SyntaxError when a line is no JSON, or has the id of an earlier one
 */
export async function* readPictureRows(path: string): AsyncGenerator<PictureOrProblem> {
  const lines = new Map<string, number>()
  for await (const { line, value } of readJsonLines(path)) {
    const row = symbolicPictureSchema.safeParse(value)
    if (!row.success) {
      yield { id: `line ${line}`, problem: `Cannot use line ${line} of ${path}: ${firstIssue(row.error)}` }
      continue
    }
    const { id, captions } = row.data
    const earlier = lines.get(id)
    if (earlier !== undefined) {
      throw new SyntaxError(
        `Cannot read ${path}: line ${line} has the id ${id} of line ${earlier}, expected ids that differ`,
      )
    }
    lines.set(id, line)
    if (captions.length > 0) yield { picture: row.data }
    else yield { id, problem: `Cannot use line ${line} of ${path}: picture ${id} has no captions` }
  }
}
