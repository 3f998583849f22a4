import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runHere } from '../../tests/run-here.ts'
import { toHuggingFaceConfig } from '../model/config.ts'
import { tinyConfig, tinyRecipe, writeTinyLesson } from '../training/tiny-lesson.fixture.ts'
import { seedList } from './ablate.ts'

let folder = ''
let file = ''
beforeAll(async () => {
  folder = await writeTinyLesson()
  const side = 32 // the smallest picturebook
  const write = (name: string, value: unknown) => writeFile(join(folder, name), JSON.stringify(value))
  const processor = JSON.parse(await readFile(join(folder, 'model/preprocessor_config.json'), 'utf8'))
  await write('model/preprocessor_config.json', {
    ...processor,
    size: { shortest_edge: side },
    crop_size: { height: side, width: side },
  })
  const vision = { ...tinyConfig.vision, imageSide: side, patch: side / 2 }
  const language = { ...tinyConfig.language, heads: 1, keyValueHeads: 1, headSize: 16, context: 512 } // the smallest that answers
  await write('model/config.json', toHuggingFaceConfig({ ...tinyConfig, vision, language }))
  const recipe = { ...tinyRecipe(folder, { steps: 1, validate: undefined }), length: 40 }
  await write('align.yaml', { ...recipe, stage: 'feature-alignment', rates: { projector: 1e-2 } })
  await write('tune.yaml', { ...recipe, stage: 'instruction-tuning' })
  file = join(folder, 'ablations.yaml')
  await write('ablations.yaml', {
    base: ['align', 'tune'].map((name) => ({ name, recipe: join(folder, `${name}.yaml`) })),
    seeds: [1],
    evaluate: { scenes: 2, maxTokens: 3, skills: { yes: ['existence'], things: ['listing'] } },
    variants: [
      { name: 'all', asks: 'The base?' },
      { name: 'unaligned', asks: 'Is alignment needed?', without: ['align'] },
      { name: 'started', asks: 'From elsewhere?', stages: { tune: { start: { languageModel: 'runs/nowhere' } } } },
    ],
  })
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const ablate = (...words: string[]) => runHere('ablate', file, '--out', join(folder, 'out'), ...words)

describe('llava ablate', { timeout: 300_000 }, () => {
  test('trains, scores and tabulates; a second time nothing is done again', async () => {
    const first = await ablate('--only', 'unaligned', 'all', '--threads', '1')
    expect(first).toMatchObject({ code: 0, stderr: expect.not.stringContaining('Cannot') })
    expect(first.stderr).toContain('1 of 2: all, seed 1 · align, 1 steps')
    expect(first.stderr).toContain('2 of 2: unaligned, seed 1 · tune, 1 steps · about')
    const lines = first.stdout.split('\n')
    expect(lines[0]).toMatch(/^variant +right +95 % interval +change +yes +things +seeds +steps +time$/)
    expect(lines.slice(1, 4).map((line) => line.split(/ {2,}/)[0])).toEqual(['all', 'all, blank picture', 'unaligned'])

    const results = JSON.parse(await readFile(join(folder, 'out/results.json'), 'utf8'))
    expect(results.variants).toMatchObject([
      { name: 'all', seeds: [1], steps: 2, all: { all: 4 }, blind: { all: { all: 4 } } },
      { name: 'unaligned', seeds: [1], steps: 1, all: { all: 4 }, change: expect.any(Number) },
    ])
    expect(results.interval).toContain('Wilson')
    expect(await readFile(join(folder, 'out/table.md'), 'utf8')).toContain('- **unaligned**: Is alignment needed?')

    const log = join(folder, 'out/all/seed-1/tune/log.jsonl')
    const before = await readFile(log, 'utf8')
    const second = await ablate('--only', 'all', '--json')
    const events = second.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(events.map(({ type }) => type)).toEqual(['results'])
    expect(events[0].variants).toEqual(results.variants)
    expect(await readFile(log, 'utf8')).toBe(before)
  })

  test('other scenes are asked about without training again', async () => {
    const { code, stdout } = await ablate('--only', 'unaligned', '--scenes', '1', '--json')
    expect(code).toBe(0)
    expect(
      stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).type),
    ).toEqual(['result', 'results'])
  })

  test('says in one sentence what is missing or unknown', async () => {
    expect(await ablate('--only', 'started')).toMatchObject({
      code: 1,
      stderr:
        'llava: Cannot start languageModel from runs/nowhere: there is no such folder, expected the folder of a run or a model\n',
    })
    expect((await ablate('--only', 'al')).stderr).toBe(
      'llava: Cannot run variant al: the file does not describe it, expected some of all, unaligned, started\n',
    )
    expect((await ablate('--seeds', '1,x')).stderr).toContain(
      'Cannot use --seeds 1,x: expected different whole numbers',
    )
  })
})

test('seedList reads lists of different numbers', () => {
  expect(seedList('3, 1,20')).toEqual([3, 1, 20])
  for (const bad of ['', '1,1', '1,,2', '-1', '1000', '1.5']) expect(() => seedList(bad)).toThrow(RangeError)
})
