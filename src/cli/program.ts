/** The program: its commands, and how it ends. */

import { Command, CommanderError } from 'commander'
import { addAblateCommand } from './ablate.ts'
import { addAskCommand } from './ask.ts'
import { addCacheCommand } from './cache.ts'
import { addChatCommand } from './chat.ts'
import { addClipCommand } from './clip.ts'
import type { CommandContext } from './context.ts'
import { addDataCommand } from './data.ts'
import { report } from './errors.ts'
import { addEvaluateCommand } from './evaluate.ts'
import { addExportCommand } from './export.ts'
import { addGenerateCommand } from './generate.ts'
import { helpStyle } from './help.ts'
import { addInfoCommand } from './info.ts'
import { watchInterruptions } from './interruption.ts'
import { addMergeCommand } from './merge.ts'
import { packageVersion } from './package-files.ts'
import { addPicturebookCommand } from './picturebook.ts'
import { addPullCommand } from './pull.ts'
import { addReportCommand } from './report.ts'
import { addStartCommand } from './start.ts'
import { openTerminal } from './terminal.ts'
import { addTraceCommand } from './trace.ts'
import { addTrainCommand } from './train.ts'
import { addWorkerCommand } from './worker.ts'

/** Runs a command line without the program's name; the result is the exit code. Nothing is thrown. */
export async function runProgram(words: readonly string[]): Promise<number> {
  const watch = watchInterruptions()
  const stderr = openTerminal(process.stderr)
  const context = { stdout: openTerminal(process.stdout), stderr, watch }
  const debug = words.includes('--debug')
  try {
    const program = makeProgram(context, { version: await packageVersion() })
    const first = words.every((word) => word === '--debug')
    await program.parseAsync(first ? ['start', ...words] : [...words], { from: 'user' })
  } catch (error) {
    const shown = error instanceof CommanderError && /^commander\.(help|version)/.test(error.code)
    if (shown) return error.exitCode // 1 where a command of commands was given none
    if (watch.interruption() === undefined) {
      stderr.write(report(error, { debug }))
      return 1
    }
  } finally {
    watch.stop()
  }
  const interruption = watch.interruption()
  if (interruption === undefined) return Number(process.exitCode ?? 0)
  if (interruption.message !== '') stderr.write(report(new Error(interruption.message), { debug }))
  return interruption.exitCode
}

function makeProgram(context: CommandContext, { version }: { version: string }): Command {
  const program = new Command('llava')
    .description('LLaVA in TypeScript: ask about pictures, make instruction data, train, evaluate.')
    .version(version, '-V, --version', 'print the version')
    .option('--debug', 'print the stack trace of an error')
    // Settings come before the commands, which inherit them.
    .exitOverride()
    .configureOutput({ outputError: () => {} }) // errors are said once, by `report`
    .configureHelp(helpStyle)
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .showSuggestionAfterError()
    .addHelpText(
      'after',
      `
Examples:
  $ llava                                          a first look
  $ llava ask photo.jpg 'What is in the picture?'
  $ llava chat photo.jpg
  $ llava train recipes/picturebook/1-encoder.yaml
  $ llava ask --help                               all about one command`,
    )
  addStartCommand(program, context)
  addAskCommand(program, context)
  addChatCommand(program, context)
  addClipCommand(program, context)
  addPullCommand(program, context)
  addInfoCommand(program, context)
  addExportCommand(program, context)
  addGenerateCommand(program, context)
  addWorkerCommand(program, context)
  addDataCommand(program, context)
  addTrainCommand(program, context)
  addMergeCommand(program, context)
  addReportCommand(program, context)
  addEvaluateCommand(program, context)
  addAblateCommand(program, context)
  addPicturebookCommand(program, context)
  addTraceCommand(program, context)
  addCacheCommand(program, context)
  return program
}
