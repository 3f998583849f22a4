/** `llava report RUN`: the log of a training run as one HTML page. */

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import { hasCode, writeFileAtomically } from '../checkpoint/atomic-file.ts'
import { readStrictJson } from '../checkpoint/json.ts'
import { reportPage } from '../training/report.ts'
import { readPaces } from '../training/run-folder.ts'
import { parseRunLog, type RunLog } from '../training/run-log.ts'
import type { CommandContext } from './context.ts'
import { expectWritableFile, kindOf } from './options.ts'
import { quoted, writeLine } from './terminal.ts'

type ReportOptions = { readonly out?: string }

export function addReportCommand(program: Command, context: CommandContext): void {
  program
    .command('report')
    .description(
      'write a training run as one HTML page: loss, accuracy per skill, gradients, pace, answers to samples, recipe',
    )
    .argument('<run>', 'the folder of a training run, running or ended')
    .option('--out <file>', 'the file to write (default: report.html in that folder)')
    .addHelpText(
      'after',
      `
Example:
  $ llava report runs/picturebook-encoder

The page needs no network: it can be sent, kept, or opened on a phone.`,
    )
    .action((run: string, options: ReportOptions) => report(run, options, context))
}

async function report(run: string, options: ReportOptions, { stdout }: CommandContext): Promise<void> {
  const out = options.out ?? join(run, 'report.html')
  const { page, summary } = await makeReport(run)
  await expectWritableFile('--out', out)
  await writeFileAtomically(out, async (handle) => void (await handle.writeFile(page)))
  writeLine(stdout, `${summary} in ${quoted(out)}`)
}

/** The page of a run folder, and in a few words what it shows. */
export async function makeReport(run: string): Promise<{ page: string; summary: string }> {
  const failure = `Cannot report on ${run}`
  const kind = await kindOf(run)
  if (kind !== 'folder') {
    const found = kind === 'file' ? 'it is a file' : 'there is no such folder'
    throw new Error(`${failure}: ${found}, expected the folder of a training run`)
  }
  const absent = (name: string) => (cause: unknown) => {
    if (!hasCode(cause, 'ENOENT')) throw cause
    throw new Error(`${failure}: found no ${name} in it, expected the folder of a training run`, { cause })
  }
  const path = join(run, 'log.jsonl')
  const log = parseRunLog(await readFile(path, 'utf8').catch(absent('log.jsonl')), path)
  const recipe = await readStrictJson(join(run, 'recipe.json')).catch(absent('recipe.json'))
  const page = reportPage(recipe, log, { paces: await readPaces(run), pictures: await readPictures(run, log) })
  const steps = log.steps.at(-1)?.step ?? 0
  const summary = `${steps} steps, ${log.validations.length} validations, ${log.skipped.length} skipped samples`
  return { page, summary }
}

/** The pictures of the samples in the log, by their names there; those that are gone are left out. */
async function readPictures(run: string, { questions }: RunLog): Promise<Map<string, Uint8Array>> {
  const pictures = new Map<string, Uint8Array>()
  for (const { picture } of questions) {
    if (picture === undefined) continue
    const bytes = await readFile(join(run, picture)).catch((error) => {
      if (!hasCode(error, 'ENOENT')) throw error
    })
    if (bytes !== undefined) pictures.set(picture, bytes)
  }
  return pictures
}
