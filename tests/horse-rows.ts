/** Captions and boxes of eight pictures that are nowhere, for tests of `llava generate`. */

import { writeFile } from 'node:fs/promises'

export async function writeHorseRows(path: string): Promise<void> {
  const rows = Array.from({ length: 8 }, (_, id) => ({
    id,
    image: `${id}.jpg`,
    captions: [`A man rides horse number ${id} along the beach.`],
    boxes: [{ category: 'horse', box: [0.1, 0.2, 0.6, 0.9] }],
  }))
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
}
