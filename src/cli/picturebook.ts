/** `llava picturebook --count N --out DIR`: scenes of the closed world as a data set, with a page to look through them. */

import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Command } from 'commander'
import { writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { type Style, styles } from '../picturebook/categories.ts'
import { exportPicturebook } from '../picturebook/export.ts'
import { type Split, splits } from '../picturebook/splits.ts'
import type { CommandContext } from './context.ts'
import { decimalNumber, entriesOf, expectWritableFolder, objectRange, oneOf, wholeNumber } from './options.ts'
import { clearStatus, drawStatus, formatSeconds, progressBar, quoted, writeLine } from './terminal.ts'

type PicturebookOptions = {
  count: number
  out: string
  seed: number
  split: Split
  style?: Style[]
  objects?: readonly [number, number]
  overlap: number
  side: number
  json?: boolean
}

export function addPicturebookCommand(program: Command, context: CommandContext): void {
  const styleNamed = oneOf('--style', styles)
  program
    .command('picturebook')
    .description('write picturebook scenes as a data set: pictures, captions, boxes, conversations, questions')
    .requiredOption('--count <n>', 'pictures', wholeNumber('--count', { from: 1, to: 1_000_000 }))
    .requiredOption('--out <folder>', 'a new or empty folder')
    .option('--seed <n>', 'other scenes of the same split', wholeNumber('--seed', { from: 0, to: 1_000_000 }), 0)
    .option('--split <name>', splits.join(', '), oneOf('--split', splits), 'train' as Split)
    .option(
      '--style <names...>',
      `drawings: ${styles.join(', ')} (default: all but twemoji, which is for held-out-style)`,
      (name: string, before: Style[] = []) => [...new Set([...before, styleNamed(name)])],
    )
    .option('--objects <min-max>', 'things in a picture (default: 1-4)', objectRange)
    .option(
      '--overlap <share>',
      'share of pictures of two or more things in which one partly covers another',
      decimalNumber('--overlap', { from: 0, to: 1 }),
      0,
    )
    .option('--side <px>', 'width and height', wholeNumber('--side', { from: 32, to: 512 }), 96)
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ llava picturebook --count 24 --out scenes
  $ llava picturebook --count 5000 --out test-scenes --split iid --objects 2-8 --overlap 0.3 --side 224
  $ llava picturebook --count 100 --out fluent-scenes --style fluent noto

In the folder: images/, captions_<split>.json and instances_<split>.json (COCO), llava.json (conversations),
questions.jsonl (questions with their answers), gallery.html (open it in a browser).`,
    )
    .action((options: PicturebookOptions) => picturebook(options, context))
}

async function picturebook(options: PicturebookOptions, { stdout, stderr, watch }: CommandContext): Promise<void> {
  const { count, out, seed, split, style, objects, overlap, side } = options
  await expectWritableFolder('--out', out)
  if ((await entriesOf(out)).length > 0) {
    throw new Error(`Cannot use --out ${out}: it is not empty, expected a new or empty folder`)
  }
  const started = performance.now()
  let summary: Awaited<ReturnType<typeof exportPicturebook>> | undefined
  await writeFolderAtomically(out, async (folder) => {
    const write = async (name: string, pieces: Iterable<string | Uint8Array>) => {
      const path = join(folder, name)
      await mkdir(dirname(path), { recursive: true })
      await writeFile(path, pieces)
    }
    summary = await exportPicturebook(write, {
      count,
      seed,
      split,
      side,
      overlap,
      signal: watch.signal,
      ...(objects !== undefined && { objects }),
      ...(style !== undefined && { styles: style }),
      onProgress: ({ pictures }) => {
        const bar = progressBar(pictures / count, { width: 24 })
        const left = ((performance.now() - started) / 1000 / pictures) * (count - pictures)
        drawStatus(stderr, `${bar} ${pictures} of ${count} pictures, ${formatSeconds(left)} left`)
      },
    })
  }).finally(() => clearStatus(stderr))
  if (summary === undefined) return
  const seconds = (performance.now() - started) / 1000
  if (options.json) {
    writeLine(stdout, JSON.stringify({ out, ...summary, seconds }))
    return
  }
  const { pictures, objects: things, captions, questions } = summary
  writeLine(
    stdout,
    `${pictures} pictures, ${things} things, ${captions} captions and ${questions} questions in ${quoted(out)}, ${formatSeconds(seconds)}`,
  )
  writeLine(stdout, `Look through them: ${quoted(join(out, 'gallery.html'))}`)
}
