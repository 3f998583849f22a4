/** A recipe for training the tiny model, as a file. */

import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const picture = fileURLToPath(new URL('../fixtures/image/plain.jpg', import.meta.url))

/** Writes a recipe, and its rows about one picture, into a folder; returns its path. */
export function writeTinyRecipe(folder: string, { model, steps }: { model: string; steps: number }): string {
  const rows = Array.from({ length: 8 }, (_, id) => ({
    id,
    image: 'plain.jpg',
    conversations: [
      { from: 'human', value: '<image>\nWhat is it?' },
      { from: 'gpt', value: `A house ${id}.` },
    ],
  }))
  writeFileSync(join(folder, 'rows.json'), JSON.stringify(rows))
  const path = join(folder, `tiny-${steps}.yaml`)
  const data = { llava: { file: join(folder, 'rows.json'), images: dirname(picture) } }
  const given = { name: 'tiny', stage: 'feature-alignment', model, rates: { projector: 1e-3 }, data, length: 192 }
  writeFileSync(path, JSON.stringify({ ...given, batch: 1, steps, logEvery: 1, checkpointEvery: 100 })) // JSON is YAML
  return path
}
