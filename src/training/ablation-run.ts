/** One planned run of an ablation: its stages trained one after the other, each resumed where it stopped, and the model at the end. */

import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { hasCode, writeFileAtomically, writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { exportModel, readCompanionFiles } from '../checkpoint/export.ts'
import { readStrictJson } from '../checkpoint/json.ts'
import type { Compute } from '../runtime/device.ts'
import type { ChangedModel, PlannedRun, PlannedStage } from './ablation-plan.ts'
import type { Recipe } from './recipe.ts'
import { type TrainingEvent, train } from './run.ts'
import { latestCheckpoint } from './run-folder.ts'

export type RunOptions = Compute & {
  /** Ends the stage after the current step, with a checkpoint. */
  readonly signal?: AbortSignal | undefined
  /** Told before a stage is trained; not told of one that has been. */
  readonly onStage?: (stage: PlannedStage) => void
  readonly onEvent?: (stage: PlannedStage, event: TrainingEvent) => void
}

/**
 * Trains what of the run is not trained yet and writes its model; false when the signal came first.
 * @throws errors of `expectUnchanged` and `train`
 */
export async function trainRun(run: PlannedRun, options: RunOptions): Promise<boolean> {
  const { device, threads, signal, onStage = () => {}, onEvent = () => {} } = options
  await expectUnchanged(run)
  if (run.model !== undefined) await writeChangedModel(run.model)
  const last = run.stages.at(-1)
  for (const stage of run.stages) {
    if (signal?.aborted) return false
    const needed = stage === last && !(await isModel(modelFolder(run)))
    if ((await isTrained(stage)) && !needed) continue
    await noteOrigins(stage, run)
    onStage(stage)
    const weights = await train(stage.recipe, {
      folder: stage.folder,
      resume: true,
      device,
      threads,
      signal,
      onEvent: (event) => onEvent(stage, event),
    })
    if ((await stageProgress(stage.folder)).step < stage.recipe.steps) return false
    if (needed) await exportModel(modelFolder(run), { from: stage.recipe.model, weights })
  }
  return true
}

/** Where a run's model goes, in Hugging Face layout. */
export function modelFolder({ folder }: PlannedRun): string {
  return join(folder, 'model')
}

/** Whether every stage is trained, as planned, and the model written. */
export async function isRunTrained(run: PlannedRun): Promise<boolean> {
  const trained = await Promise.all(run.stages.map(isTrained))
  return trained.every(Boolean) && isModel(modelFolder(run))
}

/** Whether a stage has made all its steps, by this very recipe. */
export async function isTrained({ folder, recipe }: PlannedStage): Promise<boolean> {
  const stored = await readStrictJson(join(folder, 'recipe.json')).catch(absent)
  return isSameRecipe(stored, recipe) && (await stageProgress(folder)).step >= recipe.steps
}

const progressSchema = z.object({ step: z.number(), seconds: z.number() })

/** Steps made, and seconds spent on them, up to the newest checkpoint of a stage. */
export async function stageProgress(folder: string): Promise<{ step: number; seconds: number }> {
  const checkpoint = await latestCheckpoint(folder)
  if (checkpoint === undefined) return { step: 0, seconds: 0 }
  return progressSchema.parse(await readStrictJson(join(checkpoint, 'progress.json')))
}

/**
 * Sees to it that what a run has begun was begun as it is planned now; nothing is written.
 * @throws Error that names the first stage whose recipe, config or starting weights have changed
 */
export async function expectUnchanged(run: PlannedRun): Promise<void> {
  for (const stage of run.stages) {
    const { folder, recipe } = stage
    const noted = (await readStrictJson(join(folder, originsFile)).catch(absent)) as Origins | undefined
    const stored = await readStrictJson(join(folder, 'recipe.json')).catch(absent)
    const origins = await originsOf(stage, run)
    const part = noted && Object.keys(noted.starts).find((name) => noted.starts[name] !== origins.starts[name])
    const what =
      stored !== undefined && !isSameRecipe(stored, recipe)
        ? 'its recipe'
        : part !== undefined
          ? `the checkpoint that ${part} starts from`
          : noted !== undefined && !isDeepStrictEqual(noted.config, origins.config)
            ? "the model's config"
            : undefined
    if (what === undefined) continue
    throw new Error(`Cannot go on in ${folder}: ${what} has changed since it began, expected the same or a new folder`)
  }
}

const originsFile = 'origins.json'

/** What a recipe's folders held when a stage began; with the recipe, it decides what the stage learns. */
type Origins = { readonly config: unknown; readonly starts: Readonly<Record<string, string>> }

/** Notes where a stage begins, unless it has begun. */
async function noteOrigins(stage: PlannedStage, run: PlannedRun): Promise<void> {
  const path = join(stage.folder, originsFile)
  if ((await readStrictJson(path).catch(absent)) !== undefined) return
  const origins = await originsOf(stage, run)
  await mkdir(stage.folder, { recursive: true })
  await writeFileAtomically(path, (handle) => handle.writeFile(`${JSON.stringify(origins, null, 2)}\n`))
}

async function originsOf({ recipe }: PlannedStage, { model }: PlannedRun): Promise<Origins> {
  const starts: Record<string, string> = {}
  for (const [part, folder] of Object.entries(recipe.start)) starts[part] = (await latestCheckpoint(folder)) ?? folder
  return { config: model?.config ?? (await readStrictJson(join(recipe.model, 'config.json'))), starts }
}

function isSameRecipe(stored: unknown, recipe: Recipe): boolean {
  return isDeepStrictEqual(stored, JSON.parse(JSON.stringify(recipe)))
}

/** The model folder that a variant's recipes name: that of the base with another config. */
async function writeChangedModel({ folder, from, config }: ChangedModel): Promise<void> {
  const stored = await readStrictJson(join(folder, 'config.json')).catch(absent)
  if (isDeepStrictEqual(stored, config)) return
  const files = { ...(await readCompanionFiles(from)), 'config.json': `${JSON.stringify(config, null, 2)}\n` }
  const write = async (temporary: string) => {
    for (const [name, text] of Object.entries(files)) {
      await writeFileAtomically(join(temporary, name), (handle) => handle.writeFile(text))
    }
  }
  await writeFolderAtomically(folder, write, { mayReplace: (names) => names.includes('config.json') })
}

/** Folders of models are written whole or not at all: a config means a model. */
async function isModel(folder: string): Promise<boolean> {
  return readFile(join(folder, 'config.json')).then(() => true, absentIsFalse)
}

function absent(error: unknown): undefined {
  if (!hasCode(error, 'ENOENT')) throw error
  return undefined
}

function absentIsFalse(error: unknown): boolean {
  return absent(error) ?? false
}
