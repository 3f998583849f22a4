import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parse } from 'yaml'
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
    ['epochs', 0],
    ['data', []],
    ['data', [{ picturebook: {} }]],
    ['data', [{ weight: 0, picturebook: {} }]],
    ['pack', 'yes'],
    ['featureCache', 3],
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
    expect(bad).toThrow(/batch is 0, .*steps is -1, .*schedule\.warmup is 2, /)
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

describe('epochs', () => {
  const { steps: _, ...endless } = good
  const counted = { ...endless, data: { llava: { file: 'a.json', images: '.' } }, batch: 4, accumulate: 2, epochs: 3 }

  test('become the steps that they need, and the recipe one that can be parsed again', () => {
    const recipe = parseRecipe(counted, 'r', { samples: 100 })
    expect(recipe.steps).toBe(38) // 37.5
    expect(recipe).not.toHaveProperty('epochs')
    expect(parseRecipe(recipe, 'r')).toEqual(recipe)
  })

  test('are refused beside steps, and so is neither', () => {
    expect(() => parseRecipe({ ...counted, steps: 3 }, 'r')).toThrow('found both of steps and epochs')
    expect(() => parseRecipe(endless, 'r')).toThrow('found neither of steps and epochs')
  })

  test('are refused where they cannot be counted', () => {
    expect(() => parseRecipe({ ...counted, data: good.data }, 'r')).toThrow('epochs of this data cannot be counted')
    expect(() => parseRecipe({ ...counted, pack: true }, 'r', { samples: 9 })).toThrow('epochs of packed samples')
    expect(() => parseRecipe(counted, 'r')).toThrow('the number of samples is not known')
  })
})

describe('recipes whose settings do not go together', () => {
  test('pack where there is no text', () => {
    const encoder = { ...good, stage: 'encoder', rates: { visionEncoder: 1e-3, labelHead: 1e-3 }, pack: true }
    expect(() => parseRecipe(encoder, 'r')).toThrow('it packs samples in stage encoder, which has no text')
  })

  test('sort endless or packed data into buckets', () => {
    const data = { llava: { file: 'a.json', images: '.' } }
    expect(parseRecipe({ ...good, data, bucket: true }, 'r').bucket).toBe(true)
    expect(() => parseRecipe({ ...good, bucket: true }, 'r')).toThrow('found endless or mixed data, expected one file')
    expect(() => parseRecipe({ ...good, data, bucket: true, pack: true }, 'r')).toThrow('found packed ones')
  })

  test('have lengths that are not shorter, or beside packed rows', () => {
    expect(parseRecipe({ ...good, length: 100, lengths: [50, 99] }, 'r').lengths).toEqual([50, 99])
    expect(() => parseRecipe({ ...good, length: 100, lengths: [50, 100] }, 'r')).toThrow('found lengths up to 100')
    expect(() => parseRecipe({ ...good, length: 100, lengths: [50], pack: true }, 'r')).toThrow(
      'found lengths with pack',
    )
  })

  test('keep features of an encoder that learns, or of endless pictures', () => {
    const kept = { ...good, featureCache: 'features' }
    expect(() => parseRecipe(kept, 'r')).toThrow('expected a stage with a frozen encoder and pictures from files')
    const files = {
      ...kept,
      data: [
        { weight: 1, llava: { file: 'a.json', images: '.' } },
        { weight: 2, ...good.data },
      ],
    }
    expect(parseRecipe(files, 'r').featureCache).toBe('features')
    const rates = { visionEncoder: 1e-4, projector: 1e-3 }
    expect(() => parseRecipe({ ...files, stage: 'single-stage', rates }, 'r')).toThrow('a frozen encoder')
  })

  test('validate a mixture, of which one source has nothing to validate with', () => {
    const data = [
      { weight: 1, picturebook: {} },
      { weight: 1, llava: { file: 'a.json', images: '.' } },
    ]
    expect(() => parseRecipe({ ...good, data, validate: { every: 1, batches: 1 } }, 'r')).toThrow(
      'data.llava.validation',
    )
  })
})

describe('the recipes of the papers', () => {
  const recipes = new URL('../../recipes/paper/', import.meta.url).pathname
  const preset = async (name: string, samples: number) =>
    parseRecipe(parse(await readFile(join(recipes, `${name}.yaml`), 'utf8')), name, { samples })

  // Rows, batch, epochs and rates as published; steps follow.
  test.each([
    ['v1-feature-alignment', { rows: 595_375, batch: 128, steps: 4652, rates: { projector: 2e-3 } }],
    [
      'v1-instruction-tuning',
      { rows: 157_712, batch: 128, steps: 3697, rates: { projector: 2e-5, languageModel: 2e-5 } },
    ],
    ['v1.5-feature-alignment', { rows: 558_128, batch: 256, steps: 2181, rates: { projector: 1e-3 } }],
    [
      'v1.5-instruction-tuning',
      { rows: 665_298, batch: 128, steps: 5198, rates: { projector: 2e-5, languageModel: 2e-5 } },
    ],
    ['v1.5-lora', { rows: 665_298, batch: 128, steps: 5198, rates: { projector: 2e-5, languageModel: 2e-4 } }],
  ])('%s says what was published', async (name, { rows, batch, steps, rates }) => {
    const recipe = await preset(name, rows)
    expect(recipe.name).toBe(`paper-${name}`)
    expect(recipe.batch * recipe.accumulate).toBe(batch)
    expect(recipe).toMatchObject({ steps, rates, length: 2048 })
    expect(recipe.stage).toBe(name.includes('alignment') ? 'feature-alignment' : 'instruction-tuning')
    expect(recipe.template).toBe(name.includes('alignment') ? 'plain' : 'vicuna_v1')
    expect(recipe.schedule).toEqual({ curve: 'cosine', warmup: 0.03, floor: 0 })
    expect(recipe.optimizer).toMatchObject({ beta1: 0.9, beta2: 0.999, weightDecay: 0 })
    expect(recipe.lora === undefined).toBe(name !== 'v1.5-lora')
  })

  test('are all there', async () => {
    expect((await readdir(recipes)).length).toBe(5)
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

  test('counts the rows of the file whose epochs it wants', async () => {
    const file = join(folder, 'rows.json')
    const row = { id: 1, conversations: [{ from: 'human', value: 'a' }] }
    await writeFile(file, JSON.stringify(Array(9).fill(row)))
    const { steps: _, ...rest } = good
    const recipe = { ...rest, data: { llava: { file, images: '.' } }, epochs: 2 }
    await writeFile(join(folder, 'epochs.yaml'), JSON.stringify(recipe))
    expect((await readRecipe(join(folder, 'epochs.yaml'))).steps).toBe(5)
  })

  test('reads the recipes of this repository', async () => {
    const recipes = new URL('../../recipes/picturebook/', import.meta.url).pathname
    const names = await readdir(recipes)
    expect(names.length).toBeGreaterThan(0)
    for (const name of names) expect((await readRecipe(join(recipes, name))).model).toBe('checkpoints/picturebook')
  })
})
