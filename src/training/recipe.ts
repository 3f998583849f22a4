/** Recipes: everything that a training run depends on, read from a YAML file. */

import { z } from 'zod'
import { readLlavaRows } from '../instruction-data/llava-json.ts'
import { readYaml } from '../instruction-data/yaml-file.ts'
import { tellWrongFields } from '../wrong-fields.ts'
import { adamWDefaults } from './adamw.ts'
import { contrastSchema } from './contrast-settings.ts'
import { parts, stageNames, stages } from './stages.ts'

const part = z.enum(parts)
const positive = z.number().int().positive()

const picturebookData = z.strictObject({
  objects: z.tuple([positive, positive]).default([1, 4]),
  /** Share of scenes in which one thing partly hides another. */
  overlap: z.number().min(0).max(1).optional(),
  turns: positive.default(1),
  skills: z.record(z.string(), z.number().min(0)).optional(),
  /** Share of questions that ask for a single word. */
  short: z.number().min(0).max(1).optional(),
  seed: z.number().int().min(0).default(0),
})

const llavaData = z.strictObject({
  /** LLaVA JSON or JSONL. */
  file: z.string(),
  /** Another such file, to validate with. */
  validation: z.string().optional(),
  /** The folder that picture paths in the file are relative to. */
  images: z.string(),
})

const recipeSchema = z.strictObject({
  name: z.string().regex(/^[\w.-]+$/, 'letters, digits, dots and dashes'),
  stage: z.enum(stageNames),
  /** A folder with config.json, tokenizer.json and preprocessor_config.json. */
  model: z.string(),
  /** Per part, whose weights it starts from: a run (its newest checkpoint), a run's `best`, or a model (a folder, or ORG/NAME that was pulled), of a
   * whole LLaVA or of that part alone (CLIP, SigLIP, LLaMA, Mistral, Qwen2); parts left out start at random. */
  start: z.partialRecord(part, z.string()).default({}),
  /** Peak learning rate per part that learns. */
  rates: z.partialRecord(part, z.number().positive()),
  /** Parts with a layer among the targets learn low-rank changes of these layers and nothing else: see lora.ts. */
  lora: z
    .strictObject({
      rank: positive,
      alpha: z.number().positive(),
      /** The share of an adapter's input that each step leaves out. */
      dropout: z.number().min(0).lt(1).optional(),
      targets: z.array(z.string().regex(/^[\w*]+(\.[\w*]+)*$/, 'names with dots between, or * for any')).min(1),
    })
    .optional(),
  /** One source, or several that are drawn from in proportion to their weights. */
  data: z.union([
    z.strictObject({ picturebook: picturebookData }),
    z.strictObject({ llava: llavaData }),
    z
      .array(
        z.union([
          z.strictObject({ weight: z.number().positive(), picturebook: picturebookData }),
          z.strictObject({ weight: z.number().positive(), llava: llavaData }),
        ]),
      )
      .min(1),
  ]),
  template: z.string().default('picturebook'),
  /** Words per picture in stage language-model: one for every thing, the rest at random; one per patch unless told. */
  words: positive.optional(),
  /** The parts that stage contrastive needs besides the encoder. */
  contrast: contrastSchema.optional(),
  /** L: tokens per sample, visual tokens included; in stage contrastive, tokens of a caption. */
  length: positive.default(192),
  /** Shorter lengths, for batches whose samples all fit into one: a graph is compiled for each that occurs. */
  lengths: z.array(positive).min(1).optional(),
  /** Samples of a file with and without pictures come in batches of their own, and those of similar length together. */
  bucket: z.boolean().optional(),
  /** Several samples share a row of L tokens, without seeing each other. */
  pack: z.boolean().optional(),
  /** A folder in which the frozen encoder's features of pictures from files are kept. */
  featureCache: z.string().optional(),
  /** The most pictures that a sample may show, 1 unless told; samples with more are skipped. */
  pictures: positive.optional(),
  /** Views that a sample may have, where the model looks at tiles: as many as there can be unless told. Fewer take less memory; samples with more are skipped. */
  views: positive.optional(),
  batch: positive,
  accumulate: positive.default(1),
  /** Gradient checkpointing: the inside of each block is computed again in the backward pass. Less memory, more time. */
  checkpointing: z.boolean().default(false),
  /** Updates; or `epochs`, passes over a file of LLaVA JSON, which become as many steps as they need. */
  steps: positive.optional(),
  epochs: z.number().positive().optional(),
  schedule: z
    .strictObject({
      curve: z.enum(['cosine', 'linear', 'constant']).default('cosine'),
      warmup: z.number().min(0).max(1).default(0.03),
      floor: z.number().min(0).max(1).default(0),
    })
    .prefault({}),
  optimizer: z
    .strictObject({
      beta1: z.number().min(0).lt(1).default(adamWDefaults.beta1),
      beta2: z.number().min(0).lt(1).default(adamWDefaults.beta2),
      epsilon: z.number().positive().default(adamWDefaults.epsilon),
      weightDecay: z.number().min(0).default(adamWDefaults.weightDecay),
      clip: z.number().positive().default(adamWDefaults.clip),
    })
    .prefault({}),
  /** Weight of patches without an object in the encoder's lesson; they are many. */
  backgroundWeight: z.number().min(0).max(1).default(1),
  seed: z.number().int().min(0).default(0),
  logEvery: positive.default(10),
  checkpointEvery: positive.default(200),
  keepCheckpoints: positive.default(2),
  validate: z
    .strictObject({
      every: positive,
      batches: positive,
      /** The model answers the first question of this many validation samples by itself. */
      generate: positive.optional(),
    })
    .optional(),
  /** By what the best validation is told, whose checkpoint is kept besides the newest: the loss unless told, or the mean accuracy over all skills. */
  keepBest: z.enum(['loss', 'accuracy', 'none']).optional(),
})

type RecipeFile = z.infer<typeof recipeSchema>

export type Recipe = Omit<RecipeFile, 'steps' | 'epochs'> & { readonly steps: number }

/** @throws SyntaxError or TypeError that names the file and every wrong field */
export async function readRecipe(path: string): Promise<Recipe> {
  const value = await readYaml(path)
  const file = countedFile(value)
  return parseRecipe(value, path, file === undefined ? {} : { samples: (await readLlavaRows(file)).length })
}

/** The file whose rows say how many steps a recipe's epochs are. */
function countedFile(value: unknown): string | undefined {
  const { success, data: recipe } = recipeSchema.safeParse(value)
  return success && recipe.epochs !== undefined && 'llava' in recipe.data ? recipe.data.llava.file : undefined
}

/**
 * Checks a recipe that has been parsed already; `source` names it in errors. A recipe that counts in epochs needs the number of its samples.
 * @throws TypeError that names every wrong field, RangeError for fields that do not go together
 */
export function parseRecipe(value: unknown, source: string, { samples }: { samples?: number } = {}): Recipe {
  const result = recipeSchema.safeParse(value)
  if (!result.success) {
    throw new TypeError(`Cannot use recipe ${source}: ${tellWrongFields(result.error, value)}`)
  }
  const recipe = withSteps(result.data, { source, samples })
  const { learns } = stages[recipe.stage]
  const foreign = Object.keys(recipe.rates).filter((name) => !learns.some((known) => known === name))
  const silent = learns.filter((name) => recipe.rates[name] === undefined)
  if (foreign.length > 0 || silent.length === learns.length) {
    const found = Object.keys(recipe.rates).join(', ') || 'none'
    throw new RangeError(
      `Cannot use recipe ${source}: rates are given for ${found}, expected parts that stage ${recipe.stage} trains (${learns.join(', ')})`,
    )
  }
  const files = [recipe.data].flat().flatMap((data) => ('llava' in data ? [data.llava] : []))
  if (recipe.validate !== undefined && files.some(({ validation }) => validation === undefined)) {
    throw new RangeError(
      `Cannot use recipe ${source}: it validates on LLaVA JSON without data.llava.validation, expected a file that is not trained on`,
    )
  }
  const { generate = 0, batches = 0 } = recipe.validate ?? {}
  const { objective, pictures } = stages[recipe.stage]
  if (generate > 0 && (objective !== 'answers' || pictures === 'words')) {
    throw new RangeError(
      `Cannot use recipe ${source}: validate.generate asks the model in stage ${recipe.stage}, expected a stage in which it answers about pictures`,
    )
  }
  if (generate > batches * recipe.batch) {
    throw new RangeError(
      `Cannot use recipe ${source}: validate.generate is ${generate}, expected at most the ${batches * recipe.batch} samples that it validates with`,
    )
  }
  if (recipe.keepBest !== undefined && recipe.validate === undefined) {
    throw new RangeError(`Cannot use recipe ${source}: it has keepBest but does not validate`)
  }
  if (recipe.contrast !== undefined && recipe.stage !== 'contrastive') {
    throw new RangeError(`Cannot use recipe ${source}: it has contrast in stage ${recipe.stage}, expected contrastive`)
  }
  if (recipe.pack && stages[recipe.stage].objective !== 'answers') {
    throw new RangeError(`Cannot use recipe ${source}: it packs samples in stage ${recipe.stage}, which has no text`)
  }
  const several = (recipe.pictures ?? 1) > 1 ? `pictures ${recipe.pictures}` : recipe.views && `views ${recipe.views}`
  if (several !== undefined && (objective !== 'answers' || pictures === 'words')) {
    throw new RangeError(
      `Cannot use recipe ${source}: found ${several} in stage ${recipe.stage}, expected a stage in which the model answers about pictures`,
    )
  }
  if (recipe.bucket && (recipe.pack || !('llava' in recipe.data))) {
    const found = recipe.pack ? 'packed ones' : 'endless or mixed data'
    throw new RangeError(`Cannot use recipe ${source}: it puts samples into buckets, found ${found}, expected one file`)
  }
  if (recipe.lengths !== undefined && (recipe.pack || recipe.lengths.some((length) => length >= recipe.length))) {
    const found = recipe.pack ? 'with pack' : `up to ${Math.max(...recipe.lengths)}`
    throw new RangeError(
      `Cannot use recipe ${source}: found lengths ${found}, expected only some below length (${recipe.length}), without pack`,
    )
  }
  if (recipe.featureCache !== undefined && (stages[recipe.stage].pictures !== 'features' || files.length === 0)) {
    throw new RangeError(
      `Cannot use recipe ${source}: it has a featureCache, expected a stage with a frozen encoder and pictures from files`,
    )
  }
  return recipe
}

/** The recipe with its epochs as steps: each takes batch · accumulate samples, the last one of the run perhaps some of the next pass. */
function withSteps(
  { epochs, ...recipe }: RecipeFile,
  { source, samples }: { source: string; samples: number | undefined },
): Recipe {
  const { steps, batch, accumulate } = recipe
  if ((steps === undefined) === (epochs === undefined)) {
    throw new RangeError(
      `Cannot use recipe ${source}: found ${steps === undefined ? 'neither' : 'both'} of steps and epochs, expected one`,
    )
  }
  if (steps !== undefined) return { ...recipe, steps }
  if (!('llava' in recipe.data) || recipe.pack) {
    throw new RangeError(
      `Cannot use recipe ${source}: epochs of ${recipe.pack ? 'packed samples' : 'this data'} cannot be counted, expected steps`,
    )
  }
  if (samples === undefined) throw new RangeError(`Cannot use recipe ${source}: the number of samples is not known`)
  return { ...recipe, steps: Math.ceil(((epochs ?? 0) * samples) / (batch * accumulate)) }
}
