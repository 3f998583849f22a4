/** What ablations found: one file per run, and all of them as one summary. */

import { readFile } from 'node:fs/promises'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { z } from 'zod'
import { hasCode, writeFileAtomically } from '../checkpoint/atomic-file.ts'
import { fewestSeeds, overSeeds } from '../evaluation/over-seeds.ts'
import type { PicturebookReport } from '../evaluation/picturebook.ts'
import type { Share } from '../evaluation/statistics.ts'
import { skills } from '../picturebook/index.ts'
import type { Ablations } from '../training/ablation.ts'
import type { PlannedRun } from '../training/ablation-plan.ts'

const whole = z.number().int().min(0)
const count = z.object({ right: whole, all: whole })

const resultSchema = z.object({
  /** How it was evaluated: results of other settings are not put into one table. */
  settings: z.object({ scenes: whole, maxTokens: whole, skills: z.array(z.enum(skills)), blind: z.boolean() }),
  /** Right answers by skill, and those to a blank picture. */
  seen: z.record(z.string(), count),
  blind: z.record(z.string(), count).optional(),
  steps: whole,
  /** Training, stages shared with other runs included. */
  seconds: z.number().min(0),
  evaluationSeconds: z.number().min(0),
  machine: z.string(),
})

export type RunResult = z.infer<typeof resultSchema>
export type Settings = RunResult['settings']

/** The result of a run that was evaluated with these settings; undefined when there is none. */
export async function readResult(run: PlannedRun, settings: Settings): Promise<RunResult | undefined> {
  const text = await readFile(resultPath(run), 'utf8').catch((error) => {
    if (!hasCode(error, 'ENOENT')) throw error
    return undefined
  })
  if (text === undefined) return undefined
  const result = resultSchema.parse(JSON.parse(text))
  return isDeepStrictEqual(result.settings, settings) ? result : undefined
}

export async function writeResult(run: PlannedRun, result: RunResult): Promise<void> {
  await writeJson(resultPath(run), result)
}

/** Writes `value` as a file of JSON, whole or not at all. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeFileAtomically(path, (handle) => handle.writeFile(`${JSON.stringify(value, null, 2)}\n`))
}

function resultPath({ folder }: PlannedRun): string {
  return join(folder, 'result.json')
}

/** Right answers by skill, as a result keeps them. */
export function countsOf({ skills }: PicturebookReport): Pick<RunResult, 'seen' | 'blind'> {
  const counts = ({ right, all }: Share) => ({ right, all })
  const blind = skills.flatMap(({ skill, blind: score }) => (score === undefined ? [] : [[skill, counts(score)]]))
  return {
    seen: Object.fromEntries(skills.map(({ skill, ...share }) => [skill, counts(share)])),
    ...(blind.length > 0 && { blind: Object.fromEntries(blind) }),
  }
}

/** Scores of one variant, each the mean over its seeds with a 95 % interval. */
export type Scores = {
  readonly all: Share
  readonly groups: Readonly<Record<string, Share>>
  readonly skills: Readonly<Record<string, Share>>
}

export type VariantSummary = Scores & {
  readonly name: string
  readonly asks: string
  readonly seeds: readonly number[]
  /** Share of right answers less that of the base, over the seeds that both have. */
  readonly change: number | undefined
  /** Answers to a blank picture. */
  readonly blind: Scores | undefined
  readonly steps: number
  /** Mean over seeds. */
  readonly seconds: number
}

export type Summary = {
  readonly variants: readonly VariantSummary[]
  readonly scenes: number
  readonly groups: Ablations['evaluate']['skills']
  readonly interval: string
  readonly machines: readonly string[]
}

export type Finished = { readonly run: PlannedRun; readonly result: RunResult }

/** All finished runs as one table's content; variants in the order of the file. */
export function summarize(
  { variants, evaluate }: Ablations,
  { finished, scenes }: { finished: readonly Finished[]; scenes: number },
): Summary {
  const groups = evaluate.skills
  const ofVariant = (name: string) => finished.filter(({ run }) => run.variant.name === name)
  const base = ofVariant(variants[0]?.name ?? '')
  const summaries = variants.flatMap(({ name, asks }, index): VariantSummary[] => {
    const own = ofVariant(name)
    const [first] = own
    if (first === undefined) return []
    const blind = own.flatMap(({ result }) => (result.blind === undefined ? [] : [result.blind]))
    return [
      {
        name,
        asks,
        seeds: own.map(({ run }) => run.seed),
        ...scoresOf(
          own.map(({ result }) => result.seen),
          groups,
        ),
        change: index === 0 ? undefined : changeFrom(base, own),
        blind: blind.length > 0 ? scoresOf(blind, groups) : undefined,
        steps: first.result.steps,
        seconds: own.reduce((sum, { result }) => sum + result.seconds, 0) / own.length,
      },
    ]
  })
  const machines = [...new Set(finished.map(({ result }) => result.machine))]
  return {
    variants: summaries,
    scenes,
    groups,
    interval: describeInterval(summaries.map(({ seeds }) => seeds.length)),
    machines,
  }
}

type Counts = RunResult['seen']

function scoresOf(runs: readonly Counts[], groups: Summary['groups']): Scores {
  const over = (skills: readonly string[]) => overSeeds(runs.map((run) => pool(run, skills)))
  const all = Object.values(groups).flat()
  return {
    all: over(all),
    groups: Object.fromEntries(Object.entries(groups).map(([group, skills]) => [group, over(skills)])),
    skills: Object.fromEntries(all.map((skill) => [skill, over([skill])])),
  }
}

/** Questions of several skills as one count. */
function pool(run: Counts, skills: readonly string[]): { right: number; all: number } {
  const counts = skills.flatMap((skill) => run[skill] ?? [])
  return {
    right: counts.reduce((sum, { right }) => sum + right, 0),
    all: counts.reduce((sum, { all }) => sum + all, 0),
  }
}

/** Seed by seed: both runs answered the same questions. */
function changeFrom(base: readonly Finished[], own: readonly Finished[]): number | undefined {
  const share = ({ result }: Finished) => {
    const { right, all } = pool(result.seen, Object.keys(result.seen))
    return right / all
  }
  const changes = own.flatMap((one) => {
    const other = base.find(({ run }) => run.seed === one.run.seed)
    return other === undefined ? [] : [share(one) - share(other)]
  })
  return changes.length === 0 ? undefined : changes.reduce((sum, change) => sum + change, 0) / changes.length
}

function describeInterval(seeds: readonly number[]): string {
  const student = "Student's t over seeds, never narrower than Wilson's over all questions together"
  const wilson = "Wilson's over all questions together, without the luck of training"
  if (seeds.every((count) => count >= fewestSeeds)) return `95 % intervals: ${student}`
  if (seeds.every((count) => count < fewestSeeds))
    return `95 % intervals, for fewer than ${fewestSeeds} seeds: ${wilson}`
  return `95 % intervals: ${student}; for fewer than ${fewestSeeds} seeds ${wilson}`
}

/** The machine in words: times are compared within one only. */
export function describeMachine(threads: number | undefined): string {
  const cores = availableParallelism()
  const memory = (totalmem() / 2 ** 30).toFixed(0)
  const used = threads === undefined ? '' : `, ${threads} thread${threads === 1 ? '' : 's'}`
  return `${cpus()[0]?.model.trim() ?? 'unknown processor'}, ${cores} cores, ${memory} GiB, ${process.platform} ${process.arch}, Node ${process.versions.node}${used}`
}
