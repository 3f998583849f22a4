/** The runs that an ablations file stands for: which recipes, in which folders, in which order. Nothing is trained here. */

import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { readStrictJson } from '../checkpoint/json.ts'
import { parseLlavaConfig } from '../model/config.ts'
import { type Ablations, mergeChanges, type Variant } from './ablation.ts'
import { parseRecipe, type Recipe, readRecipe } from './recipe.ts'

/** One stage of one run. Runs whose stage has the same recipe, seed included, share its folder: it is trained once. */
export type PlannedStage = { readonly name: string; readonly recipe: Recipe; readonly folder: string }

/** A model folder that a run needs and that differs from `from` in its config.json. */
export type ChangedModel = { readonly folder: string; readonly from: string; readonly config: Readonly<Json> }

/** One variant with one seed. */
export type PlannedRun = {
  readonly variant: Variant
  readonly seed: number
  readonly folder: string
  readonly stages: readonly PlannedStage[]
  readonly model: ChangedModel | undefined
}

type Json = Record<string, unknown>

/**
 * All runs of all variants, seed by seed within a variant. `<out>/<variant>/seed-N/<stage>` holds what a stage needs to go on.
 * @throws errors of `readRecipe` and `parseRecipe`, with the variant's name; RangeError for a config that is no model's and for
 *   a variant that changes nothing
 */
export async function planRuns(
  ablations: Ablations,
  { out, seeds = ablations.seeds }: { out: string; seeds?: readonly number[] | undefined },
): Promise<readonly PlannedRun[]> {
  const recipes = new Map<string, Recipe>()
  for (const { name, recipe } of ablations.base) recipes.set(name, await readRecipe(recipe))
  const owners = new Map<string, PlannedStage>()
  const runs: PlannedRun[] = []
  for (const variant of ablations.variants) {
    const folder = join(out, variant.name)
    const changed = stagesOf(variant, { ablations, recipes })
    const model = await changedModel(variant, { recipes: changed.map(({ recipe }) => recipe), folder })
    for (const seed of seeds) {
      const stages = chain(changed, { variant, seed, folder, model, owners })
      runs.push({ variant, seed, folder: seedFolder(folder, seed), stages, model })
    }
  }
  const [base, ...others] = ablations.variants.map(({ name }) => runs.find(({ variant }) => variant.name === name))
  const idle = others.find((run) => isDeepStrictEqual(run?.stages, base?.stages))
  if (idle !== undefined) {
    throw new RangeError(
      `Cannot run variant ${idle.variant.name}: what it changes is so in the base already, expected a difference`,
    )
  }
  return runs
}

type Unchained = { readonly name: string; readonly recipe: Recipe }

/** The variant's recipes as the file describes them, without seeds. */
function stagesOf(
  variant: Variant,
  { ablations, recipes }: { ablations: Ablations; recipes: ReadonlyMap<string, Recipe> },
): readonly Unchained[] {
  return ablations.base
    .filter(({ name }) => !variant.without.includes(name))
    .map(({ name, changes }) => {
      const base = mergeChanges(recipes.get(name) ?? {}, changes)
      const source = `of variant ${variant.name}, stage ${name}`
      return { name, recipe: parseRecipe(mergeChanges(base, variant.stages[name] ?? {}), source) }
    })
}

/** Seeds and folders: every part that an earlier stage trains starts from there. A stage that is owned already is taken as it is. */
function chain(
  stages: readonly Unchained[],
  { variant, seed, folder, model, owners }: ChainOptions,
): readonly PlannedStage[] {
  const learned: Partial<Recipe['start']> = {}
  return stages.map(({ name, recipe }) => {
    const start = { ...recipe.start, ...learned }
    const seeded = { ...recipe, start, seed, data: seededData(recipe.data, seed), model: model?.folder ?? recipe.model }
    const key = JSON.stringify({ ...seeded, name: '' })
    const own = {
      name,
      recipe: { ...seeded, name: `${variant.name}-${name}-seed-${seed}` },
      folder: join(seedFolder(folder, seed), name),
    }
    const stage = owners.get(key) ?? own
    owners.set(key, stage)
    for (const part of Object.keys(recipe.rates) as (keyof Recipe['rates'])[]) learned[part] = stage.folder
    return stage
  })
}

type ChainOptions = {
  readonly variant: Variant
  readonly seed: number
  readonly folder: string
  readonly model: ChangedModel | undefined
  readonly owners: Map<string, PlannedStage>
}

function seedFolder(folder: string, seed: number): string {
  return join(folder, `seed-${seed}`)
}

/** Other scenes for every seed, the same ones in every variant. Recipes of one file have data seeds below 100. */
function seededData(data: Recipe['data'], seed: number): Recipe['data'] {
  if (Array.isArray(data)) return data.map((source) => seededSource(source, seed))
  return seededSource(data, seed)
}

function seededSource<T extends object>(source: T | (T & Picturebook), seed: number): T {
  if (!('picturebook' in source)) return source
  const { picturebook } = source
  return { ...source, picturebook: { ...picturebook, seed: picturebook.seed + 100 * seed } }
}

type Picturebook = { readonly picturebook: { readonly seed: number } }

/** The model folder of a variant that changes the config; undefined when the config is as it was. */
async function changedModel(
  variant: Variant,
  { recipes, folder }: { recipes: readonly Recipe[]; folder: string },
): Promise<ChangedModel | undefined> {
  if (Object.keys(variant.config).length === 0) return undefined
  const models = [...new Set(recipes.map(({ model }) => model))]
  const [from = ''] = models
  if (models.length > 1) {
    throw new RangeError(
      `Cannot change the config of variant ${variant.name}: its stages have the models ${models.join(', ')}, expected one`,
    )
  }
  const before = (await readStrictJson(join(from, 'config.json'))) as Json
  const config = mergeChanges(before, variant.config)
  if (isDeepStrictEqual(parseConfig(config, variant), parseConfig(before, variant))) return undefined
  return { folder: join(folder, 'start'), from, config }
}

function parseConfig(json: unknown, { name }: Variant) {
  try {
    return parseLlavaConfig(json)
  } catch (cause) {
    throw new RangeError(
      `Cannot use the config of variant ${name}: ${cause instanceof Error ? cause.message : cause}`,
      {
        cause,
      },
    )
  }
}

/** Folders that runs start from and that no run of theirs makes, each with the stage that asks for it first. */
export function neededFolders(runs: readonly PlannedRun[]): ReadonlyMap<string, PlannedStage> {
  const made = new Set(runs.flatMap(({ stages }) => stages.map(({ folder }) => folder)))
  const needed = new Map<string, PlannedStage>()
  for (const stage of runs.flatMap(({ stages }) => stages)) {
    for (const folder of Object.values(stage.recipe.start)) {
      if (!made.has(folder) && !needed.has(folder)) needed.set(folder, stage)
    }
  }
  return needed
}

/** The recipe among those beside `recipePath` whose run goes into a folder of this name; undefined when there is none. */
export async function recipeThatMakes(folder: string, recipePath: string): Promise<string | undefined> {
  const beside = dirname(recipePath)
  const names = (await readdir(beside)).filter((name) => /\.ya?ml$/.test(name)).sort()
  for (const path of names.map((name) => join(beside, name))) {
    const recipe = await readRecipe(path).catch(() => undefined)
    if (recipe !== undefined && join('runs', recipe.name) === join(folder)) return path
  }
  return undefined
}
