/**
 * Ablations: the same training several times, each time with one thing changed. Here is what such a file says; ablation-plan.ts turns it into runs.
 *
 * The paper's own: which kinds of instruction data (§5.1, LLaVA-Bench COCO), feature layer, alignment left out, model size (§5.2).
 */

import { z } from 'zod'
import { readYaml } from '../instruction-data/yaml-file.ts'
import { skills } from '../picturebook/index.ts'
import { tellWrongFields } from '../wrong-fields.ts'

const name = z.string().regex(/^\w[\w.-]*$/, 'letters, digits, dots and dashes')
const positive = z.number().int().positive()
const changes = z.record(z.string(), z.unknown())

const stageSchema = z.strictObject({
  name,
  /** A recipe file; what `changes` does not name stays as it is there. */
  recipe: z.string(),
  changes: changes.default({}),
})

const variantSchema = z.strictObject({
  name,
  /** What is asked, and what the paper found. */
  asks: z.string(),
  /** Stages of the base that are left out. */
  without: z.array(z.string()).default([]),
  /** Changes to the recipes of the base, by stage. */
  stages: z.record(z.string(), changes).default({}),
  /** Changes to the model's config.json. */
  config: changes.default({}),
})

const ablationsSchema = z.strictObject({
  /** In order; what one stage has learned is where the next one starts. */
  base: z.array(stageSchema).min(1),
  seeds: z.array(z.number().int().min(0).max(999)).min(1),
  evaluate: z.strictObject({
    scenes: positive,
    /** Longest answer, in tokens. */
    maxTokens: positive,
    /** Skills of the picturebook, in the groups that the table shows. */
    skills: z.record(name, z.array(z.enum(skills)).min(1)),
  }),
  /** The first is the base itself, which the others are compared with. */
  variants: z.array(variantSchema).min(1),
})

export type Ablations = z.infer<typeof ablationsSchema>
export type Variant = Ablations['variants'][number]

/** @throws SyntaxError, TypeError or RangeError that names the file and what is wrong in it */
export async function readAblations(path: string): Promise<Ablations> {
  return parseAblations(await readYaml(path), path)
}

/** Checks what has been parsed already; `source` names it in errors. */
export function parseAblations(value: unknown, source: string): Ablations {
  const result = ablationsSchema.safeParse(value)
  if (!result.success) {
    throw new TypeError(`Cannot use ablations ${source}: ${tellWrongFields(result.error, value)}`)
  }
  const { base, variants, evaluate } = result.data
  const refuse = (problem: string): never => {
    throw new RangeError(`Cannot use ablations ${source}: ${problem}`)
  }
  const stageNames = base.map((stage) => stage.name)
  const groups = Object.values(evaluate.skills)
  const unique: readonly (readonly [string, readonly string[]])[] = [
    ['base stages', stageNames],
    ['variants', variants.map((variant) => variant.name)],
    ['skills to evaluate', groups.flat()],
  ]
  for (const [what, names] of unique) {
    const twice = names.find((one, index) => names.indexOf(one) !== index)
    if (twice !== undefined) refuse(`found ${twice} twice, expected ${what} of different names`)
  }
  if (groups.length === 0) refuse('evaluate.skills is empty, expected groups of skills')
  for (const [index, variant] of variants.entries()) {
    const named = [...variant.without, ...Object.keys(variant.stages)]
    const unknown = named.find((stage) => !stageNames.includes(stage))
    const both = variant.without.find((stage) => stage in variant.stages)
    if (unknown !== undefined) {
      refuse(`variant ${variant.name} names a stage ${unknown}, expected some of ${stageNames.join(', ')}`)
    }
    if (both !== undefined) refuse(`variant ${variant.name} both changes stage ${both} and leaves it out`)
    if (stageNames.every((stage) => variant.without.includes(stage))) {
      refuse(`variant ${variant.name} leaves out every stage, expected one to remain`)
    }
    const changed = named.length > 0 || Object.keys(variant.config).length > 0
    if (index === 0 && changed) {
      refuse(`the first variant, ${variant.name}, changes something, expected the base as it is`)
    }
    if (index > 0 && !changed) refuse(`variant ${variant.name} changes nothing, expected stages, without or config`)
  }
  return result.data
}

/** The variants of these names, in the file's order; all of them without names. */
export function selectVariants({ variants }: Ablations, names: readonly string[] | undefined): readonly Variant[] {
  const unknown = names?.find((wanted) => variants.every((variant) => variant.name !== wanted))
  if (unknown !== undefined) {
    const known = variants.map((variant) => variant.name).join(', ')
    throw new RangeError(`Cannot run variant ${unknown}: the file does not describe it, expected some of ${known}`)
  }
  return variants.filter((variant) => names === undefined || names.includes(variant.name))
}

type Tree = Readonly<Record<string, unknown>>

/** `base` with `changes`: objects are merged key by key, anything else is replaced, null takes a key away. Neither is changed. */
export function mergeChanges(base: Tree, changes: Tree): Record<string, unknown> {
  const merged = new Map(Object.entries(base))
  for (const [key, change] of Object.entries(changes)) {
    const before = merged.get(key)
    if (change === null) merged.delete(key)
    else if (isTree(change)) merged.set(key, mergeChanges(isTree(before) ? before : {}, change))
    else merged.set(key, change)
  }
  return Object.fromEntries(merged)
}

function isTree(value: unknown): value is Tree {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
