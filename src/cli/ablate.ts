/** `llava ablate FILE`: trains and scores the variants of an ablations file, goes on where it was stopped, writes one table. */

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import { writeFileAtomically } from '../checkpoint/atomic-file.ts'
import { evaluatePicturebook } from '../evaluation/picturebook.ts'
import { findModel } from '../generation/find-model.ts'
import { Llava } from '../llava.ts'
import { type Device, devices } from '../runtime/device.ts'
import { type Ablations, readAblations, selectVariants } from '../training/ablation.ts'
import { neededFolders, type PlannedRun, planRuns, recipeThatMakes } from '../training/ablation-plan.ts'
import {
  expectUnchanged,
  isRunTrained,
  isTrained,
  modelFolder,
  stageProgress,
  trainRun,
} from '../training/ablation-run.ts'
import { latestCheckpoint } from '../training/run-folder.ts'
import { type AblationProgress, type Estimate, estimateWork, runProgress, tokensPerStep } from './ablation-progress.ts'
import {
  countsOf,
  describeMachine,
  type Finished,
  type RunResult,
  readResult,
  type Settings,
  summarize,
  writeJson,
  writeResult,
} from './ablation-results.ts'
import { tableLines, tableMarkdown } from './ablation-table.ts'
import type { CommandContext } from './context.ts'
import { expectWritableFolder, kindOf, oneOf, threadCount, wholeNumber } from './options.ts'
import { paint, quoted, writeLine } from './terminal.ts'

type AblateOptions = {
  out: string
  only?: string[]
  seeds?: number[]
  scenes?: number
  threads?: number
  device: Device
  quiet?: boolean
  json?: boolean
}

const defaultOut = 'runs/ablations'

export function addAblateCommand(program: Command, context: CommandContext): void {
  program
    .command('ablate')
    .description('rerun the questions of the paper: train variants of a recipe, score each, write a table')
    .argument('<file>', 'an ablations file; the paths in it are relative to the current folder')
    .option('--out <folder>', 'where runs, table.md and results.json go', defaultOut)
    .option('--only <names...>', 'only these variants; the table also shows those that are finished')
    .option('--seeds <list>', 'such as 1,2,3 (default: as the file says)', seedList)
    .option('--scenes <n>', 'scenes to score with (default: as the file says)', wholeNumber('--scenes', { from: 1 }))
    .option('--threads <n>', 'processor threads', threadCount)
    .option('--device <name>', `where training computes: ${devices.join(', ')}`, oneOf('--device', devices), 'cpu')
    .option('--quiet', 'print nothing')
    .option('--json', 'print every event and the results as lines of JSON')
    .addHelpText(
      'after',
      `
Examples:
  $ llava ablate recipes/ablations/picturebook.yaml
  $ llava ablate recipes/ablations/picturebook.yaml --only all-data no-alignment --seeds 1

What is finished is not done again. Ctrl-C finishes the step, writes a checkpoint and says how to go on.`,
    )
    .action((file: string, options: AblateOptions) => ablate(file, options, context))
}

async function ablate(file: string, options: AblateOptions, context: CommandContext): Promise<void> {
  const { out, seeds, quiet = false, json = false, threads, device } = options
  const { stdout, stderr, watch } = context
  const ablations = await readAblations(file)
  const selected = selectVariants(ablations, options.only)
  await expectWritableFolder('--out', out)
  const planned = await planRuns(ablations, { out, seeds })
  const runs = planned.filter(({ variant }) => selected.includes(variant))
  for (const run of runs) await expectUnchanged(run)

  const scenes = options.scenes ?? ablations.evaluate.scenes
  const settingsOf = (run: PlannedRun) => settings(run, { ablations, scenes })
  const finished: Finished[] = []
  for (const run of planned) {
    const result = (await isRunTrained(run)) ? await readResult(run, settingsOf(run)) : undefined
    if (result !== undefined) finished.push({ run, result })
  }
  const pending = runs.filter((run) => finished.every((one) => one.run !== run))
  await expectStarts(pending, ablations)

  const estimate = estimateWork(await workOf(pending, settingsOf))
  const tell = (event: Readonly<Record<string, unknown>>) => writeLine(stdout, JSON.stringify(event))
  let current: PlannedRun | undefined
  try {
    for (const run of pending) {
      current = run
      const place = { number: runs.indexOf(run) + 1, count: runs.length }
      const shown = quiet || json ? undefined : runProgress(run, { terminal: stderr, ...place, estimate })
      const event = json ? (more: object) => tell({ variant: run.variant.name, seed: run.seed, ...more }) : undefined
      const result = await doRun(run, { settings: settingsOf(run), estimate, device, threads, context, shown, event })
      if (result === undefined) break
      await writeResult(run, result)
      finished.push({ run, result })
      await writeTable(out, { summary: summarize(ablations, { finished, scenes }), source: file })
    }
  } catch (error) {
    if (!watch.signal.aborted) throw error
  }
  if (watch.signal.aborted) {
    const where = current === undefined ? '' : ` in ${current.variant.name}, seed ${current.seed}`
    if (!quiet) writeLine(stderr, `Stopped${where}. Go on with: ${commandLine(file, options)}`)
    return
  }
  const summary = summarize(ablations, { finished, scenes })
  await writeTable(out, { summary, source: file })
  if (json) tell({ type: 'results', ...summary })
  else if (!quiet) {
    const [head = '', ...rows] = tableLines(summary)
    writeLine(stdout, paint(stdout, 'bold', head))
    for (const row of rows) writeLine(stdout, row)
    writeLine(stdout, `${summary.interval}.`)
    writeLine(stdout, `Written to ${quoted(join(out, 'table.md'))} and ${quoted(join(out, 'results.json'))}`)
  }
}

type Doing = {
  readonly settings: Settings
  readonly estimate: Estimate
  readonly device: Device
  readonly threads: number | undefined
  readonly context: CommandContext
  readonly shown: AblationProgress | undefined
  readonly event: ((more: object) => void) | undefined
}

/** Trains and scores one run; undefined when it was interrupted. */
async function doRun(run: PlannedRun, doing: Doing): Promise<RunResult | undefined> {
  const { estimate, device, threads, context, shown, event } = doing
  const { signal } = context.watch
  let before = 0
  try {
    const done = await trainRun(run, {
      device,
      threads,
      signal,
      onStage: (stage) => shown?.stage(stage),
      onEvent: (stage, told) => {
        event?.({ stage: stage.name, ...told })
        if (told.type === 'start') {
          before = told.step
          estimate.begin('tokens')
        } else if (told.type === 'step') {
          estimate.done((told.step - before) * tokensPerStep(stage))
          before = told.step
          const { steps } = stage.recipe
          shown?.draw(`${stage.name} ${told.step}/${steps}, loss ${told.loss.toFixed(3)}`, told.step / steps)
        }
      },
    })
    if (!done) return undefined
    const result = await scoreRun(run, doing)
    const { right, all } = Object.values(result.seen).reduce((a, b) => ({
      right: a.right + b.right,
      all: a.all + b.all,
    }))
    shown?.result(`${((100 * right) / all).toFixed(1)} % of ${all} answers right`)
    event?.({ type: 'result', ...result })
    return result
  } finally {
    shown?.end()
  }
}

/** Asks the run's model; scenes differ by seed and are the same for every variant. */
async function scoreRun(run: PlannedRun, { settings, estimate, threads, context, shown }: Doing): Promise<RunResult> {
  const { signal } = context.watch
  const { scenes, maxTokens, skills, blind } = settings
  const llava = await Llava.load(modelFolder(run), { threads, signal })
  try {
    estimate.begin('scenes')
    const started = performance.now()
    const report = await evaluatePicturebook(
      async ({ picture, question }) =>
        (await llava.ask({ image: picture, question, temperature: 0, maxTokens, signal })).answer,
      {
        scenes,
        side: llava.config.vision.imageSide,
        skills,
        seed: run.seed,
        blind,
        signal,
        onProgress: (done) => {
          estimate.done(blind ? 2 : 1)
          shown?.draw(`scene ${done.scenes}/${scenes}`, done.scenes / scenes)
        },
      },
    )
    const progress = await Promise.all(run.stages.map(({ folder }) => stageProgress(folder)))
    return {
      settings,
      ...countsOf(report),
      steps: run.stages.reduce((sum, { recipe }) => sum + recipe.steps, 0),
      seconds: progress.reduce((sum, { seconds }) => sum + seconds, 0),
      evaluationSeconds: (performance.now() - started) / 1000,
      machine: describeMachine(threads),
    }
  } finally {
    await llava.dispose()
  }
}

/** Only the base is also asked with a blank picture: what can be guessed is the same for all. */
function settings({ variant }: PlannedRun, { ablations, scenes }: { ablations: Ablations; scenes: number }): Settings {
  const { maxTokens, skills } = ablations.evaluate
  return { scenes, maxTokens, skills: Object.values(skills).flat(), blind: variant === ablations.variants[0] }
}

/** What is left to do for these runs; stages that several of them share count once. */
async function workOf(runs: readonly PlannedRun[], settingsOf: (run: PlannedRun) => Settings) {
  const stages = new Map(runs.flatMap((run) => run.stages.map((stage) => [stage.folder, stage] as const)))
  let tokens = 0
  for (const stage of stages.values()) {
    if (await isTrained(stage)) continue
    tokens += (stage.recipe.steps - (await stageProgress(stage.folder)).step) * tokensPerStep(stage)
  }
  const asked = runs.map(settingsOf).map(({ scenes, blind }) => (blind ? 2 : 1) * scenes)
  return { tokens, scenes: asked.reduce((sum, scenes) => sum + scenes, 0) }
}

/** @throws Error that names the first folder that runs start from and that is not there, and the recipe that makes it */
async function expectStarts(runs: readonly PlannedRun[], { base }: Ablations): Promise<void> {
  for (const [folder, stage] of neededFolders(runs)) {
    const kind = await kindOf(folder)
    const usable = (await latestCheckpoint(folder)) ?? (await kindOf(join(folder, 'config.json')))
    if (kind === 'folder' && usable !== undefined) continue
    if (kind === undefined && (await isModel(folder))) continue
    const [part = 'a part'] = Object.entries(stage.recipe.start).find(([, from]) => from === folder) ?? []
    const found = kind === 'folder' ? 'it holds neither a checkpoint nor a model' : 'there is no such folder'
    const recipe = base.find(({ name }) => name === stage.name)?.recipe ?? ''
    const maker = await recipeThatMakes(folder, recipe)
    const expected =
      maker === undefined ? 'the folder of a run or a model' : `the run of \`llava train ${quoted(maker)}\``
    throw new Error(`Cannot start ${part} from ${folder}: ${found}, expected ${expected}`)
  }
}

/** Whether a model goes by this name: an embedded one, or ORG/NAME that was pulled. */
function isModel(name: string): Promise<boolean> {
  return findModel(name).then(
    () => true,
    () => false,
  )
}

async function writeTable(
  out: string,
  { summary, source }: { summary: ReturnType<typeof summarize>; source: string },
): Promise<void> {
  await mkdir(out, { recursive: true })
  await writeJson(join(out, 'results.json'), { ablations: source, ...summary })
  await writeFileAtomically(join(out, 'table.md'), (handle) => writeFile(handle, tableMarkdown(summary, { source })))
}

function commandLine(file: string, { out, only, seeds, scenes, threads, device }: AblateOptions): string {
  return [
    'llava ablate',
    quoted(file),
    ...(out === defaultOut ? [] : ['--out', quoted(out)]),
    ...(only === undefined ? [] : ['--only', ...only.map(quoted)]),
    ...(seeds === undefined ? [] : ['--seeds', seeds.join(',')]),
    ...(scenes === undefined ? [] : ['--scenes', String(scenes)]),
    ...(threads === undefined ? [] : ['--threads', String(threads)]),
    ...(device === 'cpu' ? [] : ['--device', device]),
  ].join(' ')
}

/** `1,2,3` */
export function seedList(text: string): number[] {
  const seeds = text.split(',').map((word) => (/^\d{1,3}$/.test(word.trim()) ? Number(word) : Number.NaN))
  if (seeds.every(Number.isFinite) && new Set(seeds).size === seeds.length) return seeds
  throw new RangeError(
    `Cannot use --seeds ${text || "''"}: expected different whole numbers from 0 to 999, such as 1,2,3`,
  )
}
