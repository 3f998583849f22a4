/** `llava generate` as people meet it, with the offline teacher: on picturebook scenes, and on what people have. */

import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readImageSize } from '../src/image/decode.ts'
import { readLlavaRows } from '../src/instruction-data/llava-json.ts'
import { writeHorseRows } from './horse-rows.ts'
import { runHere } from './run-here.ts'

let folder = ''
const at = (...names: string[]) => join(folder, ...names)

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llava-generate-offline-'))
  const made = await runHere('picturebook', '--count', '12', '--out', at('scenes'))
  expect(made.code).toBe(0)
  await writeHorseRows(at('rows.jsonl'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const scenes = () => [
  '--captions',
  at('scenes', 'captions_train.json'),
  '--instances',
  at('scenes', 'instances_train.json'),
  '--images',
  at('scenes', 'images'),
]
const rows = () => ['--captions', at('rows.jsonl')]

const linesOf = async (...names: string[]) =>
  (await readFile(at(...names), 'utf8'))
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))

describe('generate with rules', () => {
  test('answers picturebook scenes truly, and says where each row comes from', async () => {
    const { code, stdout, stderr } = await runHere(
      'generate',
      ...scenes(),
      '--teacher',
      'rules',
      '--picturebook',
      '--per-picture',
      '3',
      '--out',
      at('book'),
      '--json',
    )
    expect({ code, stderr: stderr.replace(/^\d+ requests were given up.*\n/, '') }).toEqual({ code: 0, stderr: '' })
    const { report } = JSON.parse(stdout)
    expect(report.conversation).toMatchObject({ tasks: 12, rows: 12, failed: {} })
    expect(report['detailed-description']).toMatchObject({ tasks: 12, rows: 12, failed: {} })
    const made = await readLlavaRows(at('book', 'data', 'llava.json'))
    expect(await readLlavaRows(at('book', 'data', 'llava.jsonl'))).toEqual(made)
    const provenance = await linesOf('book', 'data', 'provenance.jsonl')
    expect(provenance.map(({ id }) => id)).toEqual(made.map(({ id }) => id))
    expect(provenance[0]).toMatchObject({
      teacher: 'rules',
      seed: 0,
      verdicts: [],
      generator: expect.stringMatching(/^llava-ts /),
      licenses: expect.any(Array),
    })
    const manifest = JSON.parse(await readFile(at('book', 'data', 'manifest.json'), 'utf8'))
    expect(manifest).toMatchObject({ schema: 1, rows: made.length, teacher: { name: 'rules' }, strict: false })
  })

  test('answers from captions and boxes of any picture; the shards together are the whole', async () => {
    const whole = ['generate', ...rows(), '--teacher', 'rules', '--per-picture', '3']
    expect((await runHere(...whole, '--out', at('all'))).code).toBe(0)
    const ids: string[] = []
    for (const shard of ['1/3', '2/3', '3/3']) {
      const out = `shard-${shard.replace('/', '-')}`
      expect((await runHere(...whole, '--out', at(out), '--shard', shard)).code).toBe(0)
      ids.push(...(await linesOf(out, 'data', 'llava.jsonl')).map(({ id }) => id))
    }
    expect(ids.sort()).toEqual((await linesOf('all', 'data', 'llava.jsonl')).map(({ id }) => id).sort())
  })
})

describe('generate from what people have', () => {
  const all = ['--teacher', 'rules', '--per-picture', '3']
  const picture = 'fixtures/pictures/picturebook.png'

  test('a table with boxes in pixels, whose sizes are the files', async () => {
    await mkdir(at('photos'))
    await cp(picture, at('photos', 'a.png'))
    await writeFile(
      at('table.csv'),
      'Image;Caption;x;y;width;height;label\na.png;A cat, and ducks.;8;8;16;16;cat\nb.png;Gone.;;;;;\n',
    )
    const { code, stderr } = await runHere(
      'generate',
      '--captions',
      at('table.csv'),
      '--images',
      at('photos'),
      ...all,
      '--out',
      at('table'),
    )
    expect(code).toBe(0)
    expect(stderr).toContain(
      `Reading ${at('table.csv')}: a table with semicolons: pictures in "Image", captions in "Caption", boxes in "x", "y", "width", "height" with "label"\nOne picture is left out (`,
    )
    expect(stderr).toContain('b.png: no such file')
    const [{ boxes, captions }] = await linesOf('table', 'data', 'provenance.jsonl')
    expect(captions).toEqual(['A cat, and ducks.'])
    const { width } = await readImageSize(picture)
    expect(boxes).toEqual([
      { category: 'cat', box: [8, 8, 24, 24].map((value) => Math.round((1000 * value) / width) / 1000) },
    ])
  })

  test('a folder of captioned pictures, which are looked for there; other captions are another run', async () => {
    const words = ['generate', '--captions', at('album'), ...all, '--out', at('from-album')]
    await mkdir(at('album'))
    await cp(picture, at('album', 'a.png'))
    await writeFile(at('album', 'a.txt'), 'A cat.\nA cat sits near three ducks in the meadow.\n')
    await writeFile(at('album', 'b.png'), '')
    await writeFile(at('album', 'b.txt'), 'Broken.')
    const first = await runHere(...words)
    expect(first.code).toBe(0)
    expect(first.stderr).toContain('with captions beside them, such as a.png with a.txt\nOne picture is left out')
    expect(first.stderr).toContain('b.png holds nothing, expected a picture')
    const rows = await linesOf('from-album', 'data', 'llava.jsonl')
    expect(rows.map(({ image }) => image)).toContain('a.png')
    expect((await runHere(...words)).stderr).not.toContain('Reading')
    await writeFile(at('album', 'a.txt'), 'A dog.')
    expect((await runHere(...words)).stderr).toMatch(
      /^llava: Cannot use --out .*: it holds a run with other settings, now captions /,
    )
  })

  test('boxes given twice, and what nothing can be read from, are one sentence', async () => {
    const twice = await runHere(
      'generate',
      '--captions',
      at('table.csv'),
      '--instances',
      at('rows.jsonl'),
      ...all,
      '--out',
      at('none'),
    )
    expect(twice.stderr).toMatch(
      /^llava: Cannot use --instances: .*table.csv is a table with semicolons: .*, which has its own boxes; expected COCO captions\n$/,
    )
    const prose = await runHere('generate', '--captions', 'LICENSE', ...all, '--out', at('none'))
    expect(prose.stderr).toMatch(
      /^llava: Cannot read LICENSE: found the columns .*, expected in the first line a column for the picture, .*\n$/,
    )
    expect({ code: prose.code, stdout: prose.stdout }).toEqual({ code: 1, stdout: '' })
    await expect(readdir(at('none'))).rejects.toThrow('ENOENT')
  })
})
