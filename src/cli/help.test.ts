import { Command } from 'commander'
import { expect, test } from 'vitest'
import { helpStyle } from './help.ts'

function helpOf(add: (program: Command) => void): string {
  const program = new Command('llava').configureHelp({ ...helpStyle, helpWidth: 200 })
  add(program)
  return program.helpInformation()
}

test('defaults are shown as they are typed', () => {
  const help = helpOf((program) => {
    program
      .option('--split <name>', 'which scenes', 'iid')
      .option('--types <weights>', 'how often', (text) => ({ short: Number(text), long: 1 }), { short: 2, long: 1 })
    program.option('--side <px>', 'width', Number, 96).option('--json', 'one object')
  })
  expect(help).toMatch(/which scenes \(default: iid\)\n/)
  expect(help).toMatch(/how often \(default: short=2,long=1\)\n/)
  expect(help).toMatch(/width \(default: 96\)\n/)
  expect(help).toMatch(/one object\n/)
})

test('commands are listed with what they take', () => {
  const help = helpOf((program) => {
    program.command('ask').usage('[options] [IMAGE…] QUESTION').description('ask a question')
    program.command('train').argument('<recipe>').description('run a recipe')
  })
  expect(help).toMatch(/\n {2}ask \[IMAGE…\] QUESTION +ask a question\n/)
  expect(help).toMatch(/\n {2}train <recipe> +run a recipe\n/)
})
