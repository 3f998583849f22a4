/** The end of `llava generate`: answers that are there become a data set, with a report and a manifest. */

import { join } from 'node:path'
import { writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { openJournal } from '../instruction-data/answer-journal.ts'
import type { AskProgress } from '../instruction-data/ask-all.ts'
import { assemble, type DataReport, writeDocument } from '../instruction-data/assemble.ts'
import { saidIfFull } from '../instruction-data/lines.ts'
import { costOf } from '../instruction-data/pace.ts'
import { type Prompts, responseTypes } from '../instruction-data/prompts.ts'
import type { Plan, TeacherSettings } from '../instruction-data/requests.ts'
import type { Validator } from '../instruction-data/validators.ts'
import type { CommandContext } from './context.ts'
import type { GenerateOptions } from './generate-options.ts'
import { reportLines } from './generate-progress.ts'
import { type PictureSummary, runFiles, tasksIn } from './generate-run.ts'
import { packageVersion } from './package-files.ts'
import { clearStatus, drawStatus, formatCount, writeLine } from './terminal.ts'

/** A run, opened: what is wanted, of which pictures, and how responses are judged. */
export type Run = {
  readonly options: GenerateOptions
  readonly prompts: Prompts
  readonly settings: TeacherSettings
  readonly plan: Plan
  readonly pictures: PictureSummary
  readonly baseUrl: string | undefined
  readonly validators: readonly Validator[]
}

export function tasksOf({ options: { out, limit, shard }, plan }: Run) {
  return tasksIn(out, { plan, limit, shard })
}

/** Writes the folder `data` of a run anew. */
export async function writeData(
  run: Run,
  { progress, context: { stdout, stderr, watch } }: { progress: AskProgress | undefined; context: CommandContext },
): Promise<void> {
  const { options, prompts, settings, pictures, validators } = run
  const { out, teacher, strict = false, validationRetries } = options
  const generator = `llava-ts ${await packageVersion()}`
  const journal = await openJournal(join(out, runFiles.answers), { durable: false })
  const folder = join(out, runFiles.data)
  let report: DataReport = {}
  try {
    const write = async (path: string) => {
      report = await assemble(tasksOf(run), path, {
        journal,
        prompts,
        settings,
        teacher,
        validators,
        validationRetries,
        strict,
        generator,
        onTask: (count) => {
          if (count % 500 !== 0) return
          watch.signal.throwIfAborted()
          drawStatus(stderr, `Judging responses and writing rows: ${formatCount(count)}`)
        },
      })
      await writeDocument(join(path, 'report.json'), report)
      await writeDocument(join(path, 'manifest.json'), manifestOf(run, { report, generator, usage: journal.spent() }))
    }
    await writeFolderAtomically(folder, write, { mayReplace: (names) => names.includes('manifest.json') })
  } catch (error) {
    throw saidIfFull(error, { path: folder, kept: 'all answers are kept, with more room the same command goes on' })
  } finally {
    clearStatus(stderr)
    await journal.close()
  }
  if (options.json)
    writeLine(stdout, JSON.stringify({ out, data: folder, pictures, progress: progress ?? null, report }))
  else for (const line of reportLines(report, { folder, strict })) writeLine(stdout, line)
}

function manifestOf(
  { options, prompts, settings, pictures, baseUrl }: Run,
  { report, generator, usage }: { report: DataReport; generator: string; usage: { input: number; output: number } },
) {
  const { captions, instances, images, teacher, types, perPicture, strict = false, shard, limit, price } = options
  const counts = Object.values(report)
  return {
    schema: 1,
    generator,
    rows: counts.reduce((sum, { rows }) => sum + rows, 0),
    rejected: counts.reduce((sum, { rejected }) => sum + rejected, 0),
    unanswered: counts.reduce((sum, { unanswered }) => sum + unanswered, 0),
    report,
    pictures,
    licenses: pictures.licenses,
    teacher: {
      name: teacher,
      baseUrl: baseUrl ?? null,
      ...settings,
      usage,
      usd: price === undefined ? null : costOf(usage, price),
    },
    prompts: Object.fromEntries(responseTypes.map((type) => [type, prompts[type].version])),
    types,
    perPicture,
    strict,
    shard: shard ?? null,
    limit: limit ?? null,
    inputs: { captions, instances: instances ?? null, images: images ?? null },
  }
}
