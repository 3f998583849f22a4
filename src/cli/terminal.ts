/** What a command says and how: colours and redrawn lines on a terminal, plain lines everywhere else. */

import { stripVTControlCharacters, styleText } from 'node:util'

type Style = 'bold' | 'dim' | 'red' | 'green' | 'cyan'

/** The part of `process.stdout` that is needed here; tests give their own. */
export type Output = {
  write(text: string): unknown
  readonly isTTY?: boolean | undefined
  readonly columns?: number | undefined
  getColorDepth?: (env?: NodeJS.ProcessEnv) => number
}

export type Terminal = {
  readonly write: (text: string) => void
  /** Whether a line can be redrawn. */
  readonly live: boolean
  /** Whether text may be coloured. */
  readonly colours: boolean
  /** Whether any of 2^24 colours may be asked for. */
  readonly trueColour: boolean
  readonly columns: () => number
}

/** A terminal over a stream. Follows NO_COLOR (no-color.org), FORCE_COLOR and TERM=dumb. */
export function openTerminal(output: Output, env: NodeJS.ProcessEnv = process.env): Terminal {
  const live = output.isTTY === true && env.TERM !== 'dumb'
  const refused = env.NO_COLOR !== undefined && env.NO_COLOR !== ''
  const forced = env.FORCE_COLOR !== undefined && !['', '0', 'false'].includes(env.FORCE_COLOR)
  const colours = !refused && (live || forced)
  const depth = output.getColorDepth?.(env) ?? 1
  const trueColour = colours && live && (depth >= 24 || /^(truecolor|24bit)$/.test(env.COLORTERM ?? ''))
  return { write: (text) => output.write(text), live, colours, trueColour, columns: () => output.columns ?? 80 }
}

/** `text` in a style, where the terminal has styles. */
export function paint({ colours }: Terminal, style: Style, text: string): string {
  return colours ? styleText(style, text, { validateStream: false }) : text
}

export function writeLine({ write }: Terminal, text = ''): void {
  write(`${text}\n`)
}

/** Draws or redraws the last line; nothing where lines cannot be redrawn. `text` has no styles: it is cut to the width. */
export function drawStatus({ write, live, columns }: Terminal, text: string): void {
  if (live) write(`\r\u001b[2K${text.slice(0, Math.max(1, columns() - 1))}`)
}

export function clearStatus({ write, live }: Terminal): void {
  if (live) write('\r\u001b[2K')
}

/** Text from a model or a file as a terminal may show it: no escape sequences, no control characters but tab and newline. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must go
  return stripVTControlCharacters(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '')
}

/** A word as a shell takes it. */
export function quoted(word: string): string {
  return /^[\w./@:+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`
}

/** `█████░░░░░` */
export function progressBar(share: number, { width }: { width: number }): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * width)
  return '█'.repeat(full) + '░'.repeat(width - full)
}

/** A length of time for people: `0.8 s`, `42 s`, `3 min 20 s`, `1 h 05 min`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`
  const minutes = Math.round(whole / 60)
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`
}

/** A count for people: `812`, `12.3 k`, `4.5 M`. */
export function formatCount(count: number): string {
  if (count < 1000) return String(count)
  if (count < 999_950) return `${(count / 1000).toFixed(1)} k`
  return count < 999_950_000 ? `${(count / 1e6).toFixed(1)} M` : `${(count / 1e9).toFixed(1)} G`
}

/** A size for people, in powers of 1000: `812 B`, `12.3 kB`, `4.5 MB`, `13.5 GB`. */
export function formatBytes(bytes: number): string {
  return bytes < 1000 ? `${bytes} B` : `${formatCount(bytes)}B`
}

/** Rows as aligned columns: the first to the left, the others to the right. */
export function alignColumns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)))
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ')
      .trimEnd(),
  )
}

/** A bar with a rate and what is left, for work whose size is known. Drawn at most ten times a second, and only where lines can be redrawn. */
export function workBar(
  terminal: Terminal,
  {
    label,
    format,
    now = () => performance.now(),
  }: { label: string; format: (amount: number) => string; now?: () => number },
): { show: (done: number, total: number, detail?: string) => void; end: () => void } {
  const begun = now()
  let [first, drawn] = [Number.NaN, Number.NEGATIVE_INFINITY]
  return {
    show(done, total, detail = '') {
      if (Number.isNaN(first)) first = done
      if (now() - drawn < 100 && done < total) return
      drawn = now()
      const rate = (done - first) / Math.max(0.001, (now() - begun) / 1000)
      const left = rate > 0 ? ` · ${formatSeconds((total - done) / rate)} left` : ''
      const figures = `${format(done)} of ${format(total)} · ${format(Math.round(rate))}/s${left}${detail && ` · ${detail}`}`
      drawStatus(terminal, `${label} ${progressBar(total === 0 ? 1 : done / total, { width: 20 })} ${figures}`)
    },
    end: () => clearStatus(terminal),
  }
}
