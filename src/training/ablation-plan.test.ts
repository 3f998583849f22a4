import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { toHuggingFaceConfig } from '../model/config.ts'
import { skills } from '../picturebook/index.ts'
import { parseAblations, readAblations } from './ablation.ts'
import { neededFolders, planRuns, recipeThatMakes } from './ablation-plan.ts'
import { tinyConfig } from './tiny-lesson.fixture.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llava-plan-'))
  await mkdir(join(folder, 'model'))
  await mkdir(join(folder, 'recipes'))
  await writeFile(join(folder, 'model', 'config.json'), JSON.stringify(toHuggingFaceConfig(tinyConfig)))
  const recipe = { model: join(folder, 'model'), data: { picturebook: { seed: 4 } }, batch: 2, steps: 5 }
  const write = (name: string, more: object) =>
    writeFile(join(folder, 'recipes', `${name}.yaml`), JSON.stringify({ name, ...recipe, ...more }))
  await write('encoder', { stage: 'encoder', rates: { visionEncoder: 1, labelHead: 1 } })
  await write('align', {
    stage: 'feature-alignment',
    rates: { projector: 1 },
    start: { visionEncoder: 'runs/encoder' },
  })
  await write('tune', { stage: 'instruction-tuning', rates: { projector: 1, languageModel: 1 } })
})
afterAll(() => rm(folder, { recursive: true, force: true }))

function ablations(...variants: object[]) {
  return parseAblations(
    {
      base: ['align', 'tune'].map((name) => ({ name, recipe: join(folder, 'recipes', `${name}.yaml`) })),
      seeds: [1, 2],
      evaluate: { scenes: 1, maxTokens: 1, skills: { all: ['existence'] } },
      variants: [{ name: 'base', asks: '?' }, ...variants.map((variant) => ({ asks: '?', ...variant }))],
    },
    'test',
  )
}

describe('planRuns', () => {
  test('a stage starts from what the stages before it have learned, and seeds reach weights and scenes', async () => {
    const [first, second] = await planRuns(ablations(), { out: 'out' })
    expect(first?.stages.map(({ folder: at }) => at)).toEqual(['out/base/seed-1/align', 'out/base/seed-1/tune'])
    expect(first?.stages[1]?.recipe).toMatchObject({
      name: 'base-tune-seed-1',
      start: { projector: 'out/base/seed-1/align' },
      seed: 1,
      data: { picturebook: { seed: 104 } },
    })
    expect(second?.stages[0]?.recipe).toMatchObject({ seed: 2, data: { picturebook: { seed: 204 } } })
  })

  test('variants share the stages that they do not change', async () => {
    const runs = await planRuns(
      ablations({ name: 'x', stages: { tune: { steps: 2 } } }, { name: 'y', without: ['tune'] }),
      {
        out: 'out',
        seeds: [7],
      },
    )
    const [base, x, y] = runs.map(({ stages }) => stages)
    expect(x?.[0]).toBe(base?.[0])
    expect(y).toEqual([base?.[0]])
    expect(x?.[1]).toMatchObject({ folder: 'out/x/seed-7/tune', recipe: { steps: 2, name: 'x-tune-seed-7' } })
  })

  test('without alignment the projector begins at random', async () => {
    const runs = await planRuns(ablations({ name: 'x', without: ['align'] }), { out: 'out', seeds: [1] })
    expect(runs[1]?.stages.map(({ name, recipe }) => [name, recipe.start])).toEqual([['tune', {}]])
  })

  test('a changed config means a model folder of its own, and stages of its own', async () => {
    const runs = await planRuns(ablations({ name: 'x', config: { projector_layers: 1 } }), { out: 'out', seeds: [1] })
    expect(runs[0]?.model).toBeUndefined()
    expect(runs[1]?.model).toMatchObject({
      folder: 'out/x/start',
      config: { projector_layers: 1, model_type: 'llava' },
    })
    expect(runs[1]?.stages[0]).toMatchObject({ folder: 'out/x/seed-1/align', recipe: { model: 'out/x/start' } })
  })

  test('says which variant is wrong, before anything is trained', async () => {
    const plan = (variant: object) => planRuns(ablations({ name: 'x', ...variant }), { out: 'out' })
    await expect(plan({ stages: { tune: { steps: -1 } } })).rejects.toThrow(/variant x, stage tune: steps/)
    await expect(plan({ stages: { tune: { steps: 5 } } })).rejects.toThrow(
      'variant x: what it changes is so in the base',
    )
    await expect(plan({ config: { vision_feature_layer: -1 * tinyConfig.featureLayer - 9 } })).rejects.toThrow(
      /config of variant x: .*feature layer -7 does not exist/,
    )
  })
})

test('folders that no run makes are needed, and the recipe that makes one is found beside', async () => {
  const needed = neededFolders(await planRuns(ablations(), { out: 'out' }))
  expect([...needed].map(([at, { name }]) => [at, name])).toEqual([['runs/encoder', 'align']])
  const beside = join(folder, 'recipes', 'align.yaml')
  expect(await recipeThatMakes('runs/encoder', beside)).toBe(join(folder, 'recipes', 'encoder.yaml'))
  expect(await recipeThatMakes('runs/else', beside)).toBeUndefined()
})

describe('recipes/ablations/picturebook.yaml', () => {
  test('plans every variant; those that change only what comes after feature alignment share it', async () => {
    const runs = await planRuns(await readAblations('recipes/ablations/picturebook.yaml'), { out: 'out', seeds: [1] })
    expect(runs).toHaveLength(11)
    const base = runs[0]?.stages[0]
    expect(runs.filter(({ stages }) => stages[0] === base).map(({ variant }) => variant.name)).toEqual([
      'all-data',
      'conversation',
      'conversation-and-detail',
      'conversation-and-reasoning',
      'no-instruction-tuning',
      'encoder-tuned',
    ])
  })

  test('asks in each variant the kinds of questions that its name says', async () => {
    const runs = await planRuns(await readAblations('recipes/ablations/picturebook.yaml'), { out: 'out', seeds: [1] })
    const askedIn = (variant: string) => {
      const data = runs.find((run) => run.variant.name === variant)?.stages.at(-1)?.recipe.data
      const weights = data !== undefined && 'picturebook' in data ? (data.picturebook.skills ?? {}) : {}
      return skills.filter((skill) => (weights[skill] ?? 0) > 0)
    }
    const detail = ['listing', 'caption', 'detailed-description']
    const conversation = skills.filter((skill) => ![...detail, 'reasoning'].includes(skill))
    expect(askedIn('all-data')).toEqual(skills)
    expect(askedIn('conversation')).toEqual(conversation)
    expect(askedIn('conversation-and-detail')).toEqual(skills.filter((skill) => skill !== 'reasoning'))
    expect(askedIn('conversation-and-reasoning')).toEqual(skills.filter((skill) => !detail.includes(skill)))
    expect(askedIn('no-instruction-tuning')).toEqual(['listing'])
  })
})
