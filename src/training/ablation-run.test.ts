import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loadConfig, loadWeights } from '../checkpoint/load.ts'
import { parseAblations } from './ablation.ts'
import { type PlannedRun, planRuns } from './ablation-plan.ts'
import { expectUnchanged, isRunTrained, modelFolder, stageProgress, trainRun } from './ablation-run.ts'
import { tinyRecipe, writeTinyLesson } from './tiny-lesson.fixture.ts'

let folder = ''
beforeEach(async () => {
  folder = await writeTinyLesson()
  const { steps: _, ...recipe } = tinyRecipe(folder, { validate: undefined })
  const write = (name: string, more: object) =>
    writeFile(join(folder, name), JSON.stringify({ ...recipe, steps: 2, logEvery: 1, ...more }))
  await write('align.yaml', { stage: 'feature-alignment', rates: { projector: 1e-2 } })
  await write('tune.yaml', { stage: 'instruction-tuning' })
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function plan(changes: object = {}): Promise<readonly PlannedRun[]> {
  const ablations = parseAblations(
    {
      base: [
        { name: 'align', recipe: join(folder, 'align.yaml') },
        { name: 'tune', recipe: join(folder, 'tune.yaml'), changes },
      ],
      seeds: [1],
      evaluate: { scenes: 1, maxTokens: 1, skills: { all: ['existence'] } },
      variants: [
        { name: 'base', asks: '?' },
        { name: 'aligned', asks: '?', without: ['tune'] },
        { name: 'linear', asks: '?', without: ['align'], config: { projector_layers: 1 } },
      ],
    },
    'test',
  )
  return planRuns(ablations, { out: join(folder, 'out') })
}

const threads = 1

/** Trains a run and returns the stages that were really trained. */
async function trained(run: PlannedRun, signal?: AbortSignal) {
  const stages: string[] = []
  const whole = await trainRun(run, { threads, signal, onStage: ({ name }) => stages.push(name) })
  return { whole, stages }
}

test('each stage is trained once, whichever variant asks for it, and never again', async () => {
  const [base, aligned, linear] = await plan()
  expect(await trained(aligned!)).toEqual({ whole: true, stages: ['align'] })
  expect(await trained(base!)).toEqual({ whole: true, stages: ['tune'] })
  expect(await trained(linear!)).toEqual({ whole: true, stages: ['tune'] })
  for (const run of [base, aligned, linear]) {
    expect(await isRunTrained(run!)).toBe(true)
    expect(await trained(run!)).toEqual({ whole: true, stages: [] })
  }
  const models = [base, aligned, linear].map((run) => modelFolder(run!))
  const configs = await Promise.all(models.map(loadConfig))
  expect(configs.map(({ projector }) => projector.layers)).toEqual([2, 2, 1])
  const weights = await Promise.all(models.map((model, i) => loadWeights(model, configs[i]!)))
  const head = weights.map((one) => one.get('languageModel.head.weight')?.data)
  expect(head[1]).not.toEqual(head[0]) // only the second stage trains the language model
  expect(await readFile(join(models[0]!, 'tokenizer.json'), 'utf8')).toBe(
    await readFile(join(folder, 'model', 'tokenizer.json'), 'utf8'),
  )
})

test('a run that is stopped goes on where it was, and has no model before', async () => {
  const [base] = await plan()
  const stop = new AbortController()
  const whole = await trainRun(base!, {
    threads,
    signal: stop.signal,
    onEvent: ({ name }, { type }) => {
      if (name === 'tune' && type === 'step') stop.abort()
    },
  })
  expect(whole).toBe(false)
  expect(await stageProgress(base!.stages[1]!.folder)).toMatchObject({ step: 1 })
  expect(await isRunTrained(base!)).toBe(false)
  expect(await trained(base!)).toEqual({ whole: true, stages: ['tune'] })
  expect((await stageProgress(base!.stages[1]!.folder)).step).toBe(2)
})

test('what has changed since a run began is named', async () => {
  const [base] = await plan()
  await trained(base!)
  await expect(expectUnchanged(base!)).resolves.toBeUndefined()
  const [longer] = await plan({ steps: 3 })
  await expect(expectUnchanged(longer!)).rejects.toThrow(
    /Cannot go on in .*tune: its recipe has changed since it began/,
  )
  const path = join(folder, 'model', 'config.json')
  const config = JSON.parse(await readFile(path, 'utf8'))
  await writeFile(path, JSON.stringify({ ...config, vision_feature_layer: -1 }))
  await expect(trainRun(base!, { threads })).rejects.toThrow(/align: the model's config has changed since it began/)
})
