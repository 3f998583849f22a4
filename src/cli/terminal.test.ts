import { describe, expect, test } from 'vitest'
import {
  alignColumns,
  clearStatus,
  drawStatus,
  formatBytes,
  formatCount,
  formatSeconds,
  openTerminal,
  paint,
  printable,
  progressBar,
  quoted,
  workBar,
  writeLine,
} from './terminal.ts'

function capture({
  isTTY = true,
  columns = 40,
  env = {},
}: {
  isTTY?: boolean
  columns?: number
  env?: NodeJS.ProcessEnv
}) {
  let text = ''
  const output = { write: (part: string) => (text += part), isTTY, columns, getColorDepth: () => (isTTY ? 8 : 1) }
  return { terminal: openTerminal(output, env), text: () => text }
}

describe('openTerminal', () => {
  test('colours on a terminal only, and not against NO_COLOR or on a dumb one', () => {
    expect(capture({}).terminal).toMatchObject({ live: true, colours: true, trueColour: false })
    expect(capture({ isTTY: false }).terminal).toMatchObject({ live: false, colours: false })
    expect(capture({ env: { NO_COLOR: '1' } }).terminal).toMatchObject({ live: true, colours: false })
    expect(capture({ env: { NO_COLOR: '' } }).terminal.colours).toBe(true)
    expect(capture({ env: { TERM: 'dumb' } }).terminal).toMatchObject({ live: false, colours: false })
    expect(capture({ isTTY: false, env: { FORCE_COLOR: '1' } }).terminal.colours).toBe(true)
  })

  test('24-bit colours need a terminal that says so', () => {
    expect(capture({ env: { COLORTERM: 'truecolor' } }).terminal.trueColour).toBe(true)
    expect(capture({ env: { COLORTERM: 'truecolor', NO_COLOR: '1' } }).terminal.trueColour).toBe(false)
    expect(capture({ isTTY: false, env: { COLORTERM: 'truecolor', FORCE_COLOR: '1' } }).terminal.trueColour).toBe(false)
  })
})

describe('writing', () => {
  test('a status line is cut to the width and drawn on a terminal only', () => {
    const live = capture({ columns: 5 })
    drawStatus(live.terminal, 'abcdefgh')
    clearStatus(live.terminal)
    expect(live.text()).toBe('\r\u001b[2Kabcd\r\u001b[2K')
    const piped = capture({ isTTY: false })
    drawStatus(piped.terminal, 'abcdefgh')
    clearStatus(piped.terminal)
    writeLine(piped.terminal, 'done')
    expect(piped.text()).toBe('done\n')
  })

  test('styles appear with colours only', () => {
    expect(paint(capture({}).terminal, 'bold', 'x')).toBe('\u001b[1mx\u001b[22m')
    expect(paint(capture({ isTTY: false }).terminal, 'bold', 'x')).toBe('x')
  })

  test('text of a model cannot steer the terminal', () => {
    expect(printable('a\u001b[2Jb\u001b]0;title\u0007c\u0008\r\nd\te\u009b31m é 狐')).toBe('abc\nd\te é 狐')
  })
})

describe('figures for people', () => {
  test.each([
    [0.04, '0.0 s'],
    [9.94, '9.9 s'],
    [9.96, '10 s'],
    [59.7, '1 min 00 s'],
    [200, '3 min 20 s'],
    [3599.6, '1 h 00 min'],
    [3900, '1 h 05 min'],
    [7199, '2 h 00 min'],
  ])('%d seconds are %s', (seconds, text) => expect(formatSeconds(seconds)).toBe(text))

  test.each([
    [999, '999'],
    [1234, '1.2 k'],
    [999_960, '1.0 M'],
    [7e9, '7.0 G'],
  ])('%d is %s', (count, text) => expect(formatCount(count)).toBe(text))

  test.each([
    [812, '812 B'],
    [12_345, '12.3 kB'],
    [13_518_798_848, '13.5 GB'],
  ])('%d bytes are %s', (bytes, text) => expect(formatBytes(bytes)).toBe(text))

  test('columns are as wide as their widest cell', () => {
    expect(
      alignColumns([
        ['', 'a'],
        ['name', '12'],
        ['b', ''],
      ]),
    ).toEqual(['       a', 'name  12', 'b'])
  })

  test('a work bar shows rate and time left, at most ten times a second, and goes away', () => {
    const { terminal, text } = capture({ columns: 100 })
    let now = 0
    const bar = workBar(terminal, { label: 'x', format: formatBytes, now: () => now })
    bar.show(1000, 9000)
    now = 50
    bar.show(1500, 9000)
    now = 2000
    bar.show(5000, 9000, 'file')
    bar.end()
    const drawn = text().split('\r\u001b[2K').slice(1)
    expect(drawn).toEqual([
      `x ${'█'.repeat(2)}${'░'.repeat(18)} 1.0 kB of 9.0 kB · 0 B/s`,
      `x ${'█'.repeat(11)}${'░'.repeat(9)} 5.0 kB of 9.0 kB · 2.0 kB/s · 2.0 s left · file`,
      '',
    ])
  })

  test('a bar never leaves its width', () => {
    expect(progressBar(0.5, { width: 4 })).toBe('██░░')
    expect(progressBar(1.7, { width: 4 })).toBe('████')
    expect(progressBar(-1, { width: 4 })).toBe('░░░░')
  })

  test('paths are quoted when a shell would take them apart', () => {
    expect(quoted('runs/a-1.yaml')).toBe('runs/a-1.yaml')
    expect(quoted("it's a.png")).toBe("'it'\\''s a.png'")
    expect(quoted('')).toBe("''")
  })
})
