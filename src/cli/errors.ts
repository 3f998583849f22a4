/** How a command fails: one sentence for the person, a code for the shell, a stack trace only for those who ask. */

import { CommanderError } from 'commander'
import { printable } from './terminal.ts'

/** One sentence for any error: its first line, no final period, system errors in words. */
export function explain(error: unknown): string {
  if (error instanceof CommanderError) return oneLine(inOurWords(error.message))
  if (!(error instanceof Error)) return oneLine(String(error))
  return oneLine(systemTrouble(error) ?? (error.message || error.name))
}

/** `explain` for the terminal, with the stack and the causes below it when asked for. */
export function report(error: unknown, { debug }: { debug: boolean }): string {
  const sentence = `llava: ${explain(error)}\n`
  if (!debug || !(error instanceof Error)) return sentence
  const causes: string[] = []
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause)
    causes.push(cause.stack ?? cause.message)
  return `${sentence}${causes.join('\ncaused by ')}\n`
}

/** What the parser of command lines says, and how we say it. */
const wordings: readonly [RegExp, string][] = [
  [/^unknown option '(.+)'$/, 'Cannot use $1: there is no such option'],
  [/^unknown command '(.+)'$/, 'Cannot run $1: there is no such command'],
  [/^required option '(.+)' not specified$/, 'Cannot run: the option $1 is missing'],
  [/^missing required argument '(.+)'$/, 'Cannot run: the argument $1 is missing'],
  [/^option '(.+)' argument missing$/, 'Cannot use $1: its value is missing'],
  [
    /^too many arguments for '(.+)'\. Expected (\d+) arguments? but got (\d+)\.?$/,
    'Cannot run $1: found too many arguments ($3), expected $2',
  ],
]

function inOurWords(message: string): string {
  const [said = '', suggestion = ''] = message.replace(/^error: /, '').split('\n')
  const sentence = wordings.reduce((text, [pattern, ours]) => text.replace(pattern, ours), said)
  return suggestion === '' ? sentence : `${sentence}, ${suggestion.replace(/^\(D(.*)\)$/, 'd$1')}`
}

const troubles: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder',
  ENOTDIR: 'part of the path is a file, not a folder',
  EISDIR: 'it is a folder, expected a file',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EROFS: 'the file system is read-only',
  ENOSPC: 'no space left on the device',
  EMFILE: 'too many files are open',
  EEXIST: 'it exists already',
}

/** What a person can make of `ENOENT: no such file or directory, open 'x'`. */
function systemTrouble(error: Error): string | undefined {
  const { code, path, syscall } = error as NodeJS.ErrnoException
  const trouble = troubles[code ?? '']
  if (trouble === undefined || syscall === undefined || !error.message.startsWith(`${code}:`)) return undefined
  const action = /^(open|read|stat|lstat|access|scandir|opendir)$/.test(syscall) ? 'read' : 'write'
  return `Cannot ${action} ${path ?? 'a file'}: ${trouble}`
}

function oneLine(text: string): string {
  return printable(text)
    .trim()
    .replace(/\s*\n\s*/g, ' ')
    .replace(/\.$/, '')
}
