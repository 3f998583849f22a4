/**
 * Draws the bundled pictures: scenes of the `iid` test split, which no recipe trains on, in drawing styles whose licences ask for nothing but credit.
 *
 *     npx tsx scripts/make-fixture-pictures.ts
 */

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { encodePng } from '../src/image/encode.ts'
import { loadDrawings, makeScene, renderScene, type Style } from '../src/picturebook/index.ts'

const styles: readonly Style[] = ['noto', 'noto-v1', 'fluent']
const pictures = {
  'picturebook.png': Number(process.argv[2] ?? 6795),
  'picturebook-2.png': Number(process.argv[3] ?? 548),
}

const folder = 'fixtures/pictures'
await mkdir(folder, { recursive: true })
const drawings = await loadDrawings({ styles })
for (const [name, seed] of Object.entries(pictures)) {
  const scene = makeScene(seed, { split: 'iid', styles })
  await writeFile(join(folder, name), await encodePng(renderScene(scene, drawings)))
  console.log(`${name}: ${scene.setting}, ${scene.objects.map(({ category }) => category).join(', ')}`)
}
