/** `llava data filter` and `llava data mix`: rows chosen from a file, and files put together. */

import type { FileHandle } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { Command } from 'commander'
import { z } from 'zod'
import { writeFileAtomically } from '../checkpoint/atomic-file.ts'
import { decodeImage } from '../image/decode.ts'
import { jsonElements, wholeFile } from '../instruction-data/json-elements.ts'
import { checked, readJsonLines } from '../instruction-data/lines.ts'
import { imageSchema } from '../instruction-data/llava-json.ts'
import { type MixtureFile, mixRows, mixtureSchema } from '../instruction-data/mixture-file.ts'
import { nearDuplicatePictures, nearDuplicateTexts, pictureHash } from '../instruction-data/near-duplicates.ts'
import { balanceByNounPhrases, paperBalance } from '../instruction-data/noun-phrases.ts'
import { readYaml } from '../instruction-data/yaml-file.ts'
import type { CommandContext } from './context.ts'
import { type Shard, shardOf } from './generate-options.ts'
import { decimalNumber, expectWritableFile, wholeNumber } from './options.ts'
import { clearStatus, drawStatus, formatCount, quoted, writeLine } from './terminal.ts'

type FilterOptions = {
  out: string
  nounPhrases?: boolean
  rare: number
  frequent: number
  duplicateTexts?: number
  duplicatePictures?: number
  images?: string
  seed: number
  json?: boolean
}
type MixOptions = { out: string; shard?: Shard; json?: boolean }

export function addDataFilterCommands(data: Command, context: CommandContext): void {
  data
    .command('filter')
    .description('choose rows: balanced by noun phrases, without near-duplicates')
    .argument('<file>', 'LLaVA JSON, or rows with captions (.json or .jsonl)')
    .requiredOption('--out <file>', 'the rows that stay, as .json or .jsonl')
    .option('--noun-phrases', "the paper's filter for captions: rare phrases are dropped, frequent ones capped")
    .option(
      '--rare <n>',
      'phrases of fewer captions do not count',
      wholeNumber('--rare', { from: 1 }),
      paperBalance.rare,
    )
    .option(
      '--frequent <n>',
      'captions that a phrase brings in at most',
      wholeNumber('--frequent', { from: 1 }),
      paperBalance.frequent,
    )
    .option(
      '--duplicate-texts <share>',
      'leave out texts that overlap this much with an earlier one, such as 0.8',
      decimalNumber('--duplicate-texts', { above: 0, to: 1 }),
    )
    .option(
      '--duplicate-pictures <bits>',
      'leave out pictures that differ from an earlier one in at most so many of 64 bits',
      wholeNumber('--duplicate-pictures', { from: 0, to: 7 }),
    )
    .option('--images <folder>', 'the pictures')
    .option('--seed <n>', 'other draws', wholeNumber('--seed', { from: 0 }), 0)
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ llava data filter cc3m.jsonl --noun-phrases --out cc3m-balanced.jsonl
  $ llava data filter instruct/data/llava.json --duplicate-texts 0.8 --out deduplicated.json
  $ llava data filter rows.jsonl --duplicate-pictures 3 --images pictures --out rows-once.jsonl`,
    )
    .action((file: string, options: FilterOptions) => filter(file, { options, context }))
  data
    .command('mix')
    .description('put data sets together as a mixture file declares')
    .argument('<mixture>', 'a YAML file: seed, and sources with file, images, take, prompt')
    .requiredOption('--out <file>', 'the rows, as .json or .jsonl')
    .option('--shard <i/n>', 'the rows of one of n machines', shardOf)
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ llava data mix mixture.yaml --out mix.json

A mixture file, in which files are relative to it:
  seed: 0
  sources:
    instruct: { file: llava_instruct_150k.json, images: coco/train2017 }
    vqa:      { file: vqav2.jsonl, images: coco/train2017, take: 83000, prompt: short-answer }
    choices:  { file: aokvqa.jsonl, images: coco/train2017, take: 50%, prompt: choice-letter }
prompt: none, short-answer, choice-letter, one-sentence-caption, region-description, region-box`,
    )
    .action((file: string, options: MixOptions) => mix(file, { options, context }))
}

const filterRowSchema = z.looseObject({
  image: imageSchema.optional(),
  captions: z.array(z.string()).optional(),
  caption: z.string().optional(),
  conversations: z.array(z.looseObject({ from: z.string(), value: z.string() })).optional(),
})
type FilterRow = z.infer<typeof filterRowSchema>

async function filter(
  file: string,
  { options, context }: { options: FilterOptions; context: CommandContext },
): Promise<void> {
  const { out, nounPhrases, rare, frequent, seed, duplicateTexts, duplicatePictures, images, json } = options
  if (nounPhrases === undefined && duplicateTexts === undefined && duplicatePictures === undefined) {
    throw new Error('Cannot filter: expected --noun-phrases, --duplicate-texts or --duplicate-pictures')
  }
  if (duplicatePictures !== undefined && images === undefined)
    throw new Error('Cannot use --duplicate-pictures without --images')
  await expectWritableFile('--out', out)
  const { stderr, stdout } = context
  const show = (what: string, count: number) => {
    if (count % 1000 === 0) drawStatus(stderr, `${what}: ${formatCount(count)} rows`)
  }
  const balance = nounPhrases
    ? await balanceByNounPhrases(
        textsOf(file, (count) => show('Finding noun phrases', count)),
        { rare, frequent, seed },
      )
    : undefined
  const texts = duplicateTexts === undefined ? undefined : nearDuplicateTexts({ similarity: duplicateTexts })
  const pictures = duplicatePictures === undefined ? undefined : nearDuplicatePictures({ distance: duplicatePictures })
  const counts = { rows: 0, kept: 0, unbalanced: 0, duplicateTexts: 0, duplicatePictures: 0 }
  await writeRows(out, async (write) => {
    for await (const row of rowsOf(file)) {
      const index = counts.rows++
      show('Filtering', counts.rows)
      if (balance !== undefined && !balance.isKept(index)) counts.unbalanced += 1
      else if (texts?.find(textOf(row)) !== undefined) counts.duplicateTexts += 1
      else if (pictures !== undefined && (await isKnown(row, { pictures, images: images ?? '' })))
        counts.duplicatePictures += 1
      else {
        counts.kept += 1
        await write(row)
      }
    }
  }).finally(() => clearStatus(stderr))
  const phrases = balance === undefined ? {} : { phrases: balance.phrases, phrasesKept: balance.phrasesKept }
  if (json) {
    writeLine(stdout, JSON.stringify({ file, out, ...counts, ...phrases }))
    return
  }
  const reasons = [
    balance === undefined
      ? ''
      : `${counts.unbalanced} by noun phrases (${balance.phrasesKept} of ${balance.phrases} phrases count)`,
    texts === undefined ? '' : `${counts.duplicateTexts} near-duplicate texts`,
    pictures === undefined ? '' : `${counts.duplicatePictures} near-duplicate pictures`,
  ].filter(Boolean)
  writeLine(stdout, `${counts.kept} of ${counts.rows} rows stay, left out: ${reasons.join(', ')}: ${quoted(out)}`)
}

async function isKnown(
  { image }: FilterRow,
  { pictures, images }: { pictures: ReturnType<typeof nearDuplicatePictures>; images: string },
): Promise<boolean> {
  const names = image === undefined ? [] : [image].flat()
  const known = await Promise.all(
    names.map(async (name) => pictures.find(pictureHash(await decodeImage(join(images, name)))) !== undefined),
  )
  return known.length > 0 && known.every(Boolean)
}

async function mix(
  file: string,
  { options: { out, shard, json }, context: { stdout, stderr } }: { options: MixOptions; context: CommandContext },
): Promise<void> {
  const mixture = await readMixture(file)
  await expectWritableFile('--out', out)
  const counts = new Map<string, number>(Object.keys(mixture.sources).map((name) => [name, 0]))
  let total = 0
  await writeRows(out, async (write) => {
    const folder = dirname(file)
    for await (const row of mixRows(mixture, { resolve: (name) => resolve(folder, name), shard })) {
      counts.set(row.source, (counts.get(row.source) ?? 0) + 1)
      total += 1
      if (total % 5000 === 0) drawStatus(stderr, `${formatCount(total)} rows`)
      await write(row)
    }
  }).finally(() => clearStatus(stderr))
  if (json) writeLine(stdout, JSON.stringify({ mixture: file, out, rows: total, sources: Object.fromEntries(counts) }))
  else {
    for (const [name, count] of counts) writeLine(stdout, `${name.padEnd(20)} ${String(count).padStart(8)} rows`)
    writeLine(stdout, `${total} rows: ${quoted(out)}`)
  }
}

async function readMixture(file: string): Promise<MixtureFile> {
  return checked(mixtureSchema, { value: await readYaml(file), where: file })
}

async function* rowsOf(file: string): AsyncGenerator<FilterRow> {
  const values = file.endsWith('.jsonl') ? readJsonLines(file) : jsonElements(file, [wholeFile])
  for await (const { line, value } of values) yield checked(filterRowSchema, { value, where: `${file}, line ${line}` })
}

async function* textsOf(file: string, onRow: (count: number) => void): AsyncGenerator<string> {
  let count = 0
  for await (const row of rowsOf(file)) {
    onRow(++count)
    yield textOf(row)
  }
}

/** What is said of the picture: captions, or answers. */
function textOf({ caption, captions, conversations }: FilterRow): string {
  if (caption !== undefined) return caption
  return (
    captions?.join('\n') ??
    conversations?.flatMap(({ from, value }) => (from === 'gpt' ? [value] : [])).join('\n') ??
    ''
  )
}

/** Writes rows as a list or one a line, as the name says; the file is there when all of it is. */
async function writeRows(out: string, fill: (write: (row: object) => Promise<void>) => Promise<void>): Promise<void> {
  const lines = out.endsWith('.jsonl')
  await writeFileAtomically(out, async (handle: FileHandle) => {
    let [text, separator] = ['', lines ? '' : '[\n']
    await fill(async (row) => {
      text += `${separator}${JSON.stringify(row)}`
      separator = lines ? '\n' : ',\n'
      if (text.length < 1 << 18) return
      await handle.writeFile(text)
      text = ''
    })
    const none = lines ? '' : '[]\n'
    await handle.writeFile(separator === '[\n' || separator === '' ? none : `${text}${lines ? '\n' : '\n]\n'}`)
  })
}
