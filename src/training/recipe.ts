/** Recipes: everything that a training run depends on, read from a YAML file. */

import { readFile } from 'node:fs/promises'
import { parse } from 'yaml'
import { z } from 'zod'
import { adamWDefaults } from './adamw.ts'
import { stages } from './stages.ts'

const part = z.enum(['visionEncoder', 'projector', 'languageModel', 'labelHead', 'placeTable'])
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
  name: z.string().regex(/^[\w.-]+$/, 'expected letters, digits, dots and dashes'),
  stage: z.enum(['encoder', 'language-model', 'feature-alignment', 'instruction-tuning']),
  /** A folder with config.json, tokenizer.json and preprocessor_config.json. */
  model: z.string(),
  /** Per part, the folder whose weights it starts from; parts left out start at random. */
  start: z.partialRecord(part, z.string()).default({}),
  /** Peak learning rate per part that learns. */
  rates: z.partialRecord(part, z.number().positive()),
  data: z.union([z.strictObject({ picturebook: picturebookData }), z.strictObject({ llava: llavaData })]),
  template: z.string().default('picturebook'),
  /** Words per picture in stage language-model: one for every thing, the rest at random; one per patch unless told. */
  words: positive.optional(),
  /** L: tokens per sample, visual tokens included. */
  length: positive.default(192),
  batch: positive,
  accumulate: positive.default(1),
  steps: positive,
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
  validate: z.strictObject({ every: positive, batches: positive }).optional(),
})

export type Recipe = z.infer<typeof recipeSchema>

/** @throws SyntaxError or TypeError that names the file and every wrong field */
export async function readRecipe(path: string): Promise<Recipe> {
  const text = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new Error(`Cannot read recipe ${path}: ${cause.code === 'ENOENT' ? 'no such file' : cause.message}`, {
      cause,
    })
  })
  let value: unknown
  try {
    value = parse(text)
  } catch (cause) {
    throw new SyntaxError(`Cannot read recipe ${path}: ${cause instanceof Error ? cause.message : cause}`, { cause })
  }
  return parseRecipe(value, path)
}

/** Checks a recipe that has been parsed already; `source` names it in errors. */
export function parseRecipe(value: unknown, source: string): Recipe {
  const result = recipeSchema.safeParse(value)
  if (!result.success) {
    const problems = result.error.issues.map(({ path, message }) => `${path.join('.') || 'the file'}: ${message}`)
    throw new TypeError(`Cannot use recipe ${source}: ${problems.join('; ')}`)
  }
  const recipe = result.data
  const { learns } = stages[recipe.stage]
  const foreign = Object.keys(recipe.rates).filter((name) => !learns.some((known) => known === name))
  const silent = learns.filter((name) => recipe.rates[name] === undefined)
  if (foreign.length > 0 || silent.length === learns.length) {
    const found = Object.keys(recipe.rates).join(', ') || 'none'
    throw new RangeError(
      `Cannot use recipe ${source}: rates are given for ${found}, expected parts that stage ${recipe.stage} trains (${learns.join(', ')})`,
    )
  }
  if (recipe.validate !== undefined && 'llava' in recipe.data && recipe.data.llava.validation === undefined) {
    throw new RangeError(
      `Cannot use recipe ${source}: it validates on LLaVA JSON without data.llava.validation, expected a file that is not trained on`,
    )
  }
  return recipe
}
