import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseRecipe, readRecipe } from './recipe.ts'

const good = {
  name: 'test',
  stage: 'instruction-tuning',
  model: 'model',
  rates: { projector: 1e-3, languageModel: 1e-4 },
  data: { picturebook: {} },
  batch: 4,
  steps: 10,
}

describe('parseRecipe', () => {
  test('fills in what is left out', () => {
    const recipe = parseRecipe(good, 'r')
    expect(recipe).toMatchObject({ accumulate: 1, length: 192, seed: 0, schedule: { curve: 'cosine', warmup: 0.03 } })
    expect(recipe.optimizer).toMatchObject({ beta1: 0.9, clip: 1 })
    expect(recipe.validate).toBeUndefined()
  })

  test.each([
    ['name', 'a/b'],
    ['stage', 'finetune'],
    ['model', 7],
    ['start', { head: 'runs/a' }],
    ['rates', { projector: -1 }],
    ['data', { coco: {} }],
    ['data', { picturebook: { objects: [1] } }],
    ['template', 3],
    ['length', 0],
    ['batch', 1.5],
    ['accumulate', 0],
    ['steps', '10'],
    ['schedule', { curve: 'step' }],
    ['optimizer', { beta1: 1 }],
    ['backgroundWeight', 2],
    ['seed', -1],
    ['logEvery', 0],
    ['checkpointEvery', 0],
    ['keepCheckpoints', 0],
    ['validate', { every: 1 }],
    ['learningRate', 1],
  ])('names the bad field %s', (field, value) => {
    expect(() => parseRecipe({ ...good, [field]: value }, 'r.yaml')).toThrow(new RegExp(`recipe r\\.yaml.*${field}`))
  })

  test('names all bad fields at once', () => {
    const bad = () => parseRecipe({ ...good, batch: 0, steps: -1, schedule: { warmup: 2 } }, 'r')
    expect(bad).toThrow(TypeError)
    expect(bad).toThrow(/batch:.*steps:.*schedule\.warmup:/)
  })

  test('refuses a rate for a part that the stage does not train', () => {
    expect(() => parseRecipe({ ...good, rates: { visionEncoder: 1e-3, projector: 1e-3 } }, 'r')).toThrow(
      'rates are given for visionEncoder, projector, expected parts that stage instruction-tuning trains (projector, languageModel)',
    )
    expect(() => parseRecipe({ ...good, stage: 'feature-alignment' }, 'r')).toThrow('languageModel')
  })

  test('refuses a recipe in which nothing learns', () => {
    expect(() => parseRecipe({ ...good, rates: {} }, 'r')).toThrow('rates are given for none')
  })

  test('lets a part of the stage stay frozen', () => {
    expect(parseRecipe({ ...good, rates: { projector: 1e-3 } }, 'r').rates).toEqual({ projector: 1e-3 })
  })

  test('validates LLaVA JSON only on another file', () => {
    const data = { llava: { file: 'a.json', images: '.' } }
    const validate = { every: 1, batches: 1 }
    expect(() => parseRecipe({ ...good, data, validate }, 'r')).toThrow('data.llava.validation')
    const apart = { llava: { ...data.llava, validation: 'b.json' } }
    expect(parseRecipe({ ...good, data: apart, validate }, 'r').data).toEqual(apart)
  })
})

describe('readRecipe', () => {
  let folder = ''
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'recipe-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  test('names a file that is missing or not YAML', async () => {
    await expect(readRecipe(join(folder, 'none.yaml'))).rejects.toThrow('none.yaml: no such file')
    await writeFile(join(folder, 'bad.yaml'), 'name: [a')
    await expect(readRecipe(join(folder, 'bad.yaml'))).rejects.toThrow(SyntaxError)
  })

  test('reads the recipes of this repository', async () => {
    const recipes = new URL('../../recipes/picturebook/', import.meta.url).pathname
    const names = await readdir(recipes)
    expect(names.length).toBeGreaterThan(0)
    for (const name of names) expect((await readRecipe(join(recipes, name))).model).toBe('checkpoints/picturebook')
  })
})
