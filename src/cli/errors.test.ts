import { readFile, writeFile } from 'node:fs/promises'
import { CommanderError } from 'commander'
import { describe, expect, test } from 'vitest'
import { explain, report } from './errors.ts'

describe('explain', () => {
  test('is one line without a final period or escape sequences', () => {
    expect(explain(new Error('Cannot do it:\n  a reason.\n'))).toBe('Cannot do it: a reason')
    expect(explain(new Error('Cannot read \u001b[31mx'))).toBe('Cannot read x')
    expect(explain('a string')).toBe('a string')
    expect(explain(new TypeError())).toBe('TypeError')
  })

  test('says system errors in words', async () => {
    const missing = await readFile('/nowhere/at/all').catch((error) => error)
    expect(explain(missing)).toBe('Cannot read /nowhere/at/all: no such file or folder')
    const folder = await writeFile('/', '').catch((error) => error)
    expect(explain(folder)).toBe('Cannot read /: it is a folder, expected a file')
  })

  test('says what the parser of command lines refuses as everything else is said', () => {
    const error = new CommanderError(1, 'x', "error: unknown option '--modle'\n(Did you mean --model?)")
    expect(explain(error)).toBe('Cannot use --modle: there is no such option, did you mean --model?')
    const said = (message: string) => explain(new CommanderError(1, 'x', `error: ${message}`))
    expect(said("unknown command 'x'")).toBe('Cannot run x: there is no such command')
    expect(said("required option '--out <file>' not specified")).toBe('Cannot run: the option --out <file> is missing')
    expect(said("missing required argument 'recipe'")).toBe('Cannot run: the argument recipe is missing')
    expect(said("option '--seed <n>' argument missing")).toBe('Cannot use --seed <n>: its value is missing')
    expect(said("too many arguments for 'list'. Expected 0 arguments but got 1.")).toBe(
      'Cannot run list: found too many arguments (1), expected 0',
    )
  })
})

describe('report', () => {
  const error = new RangeError('Cannot count', { cause: new Error('the inner one') })

  test('is one sentence', () => expect(report(error, { debug: false })).toBe('llava: Cannot count\n'))

  test('has stacks and causes on request', () => {
    const text = report(error, { debug: true })
    expect(text).toMatch(/^llava: Cannot count\nRangeError: Cannot count\n {4}at /)
    expect(text).toContain('caused by Error: the inner one')
  })
})
