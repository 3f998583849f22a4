/** `llava data`: instruction data looked at, by the program (`check`) and by people (`view`). */

import { writeFile } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import type { Command } from 'commander'
import { loadConfig, loadImageProcessor } from '../checkpoint/load.ts'
import { findTemplate } from '../conversation/templates.ts'
import { expandPlaceholders, tokenizeConversation } from '../conversation/tokenize.ts'
import { readTokenizer } from '../generation/model-folder.ts'
import { type CountTokens, checkLlavaFile, type RowProblem } from '../instruction-data/check-file.ts'
import { instructionGallery } from '../instruction-data/gallery-page.ts'
import { pictureIn } from '../instruction-data/llava-json.ts'
import { sampleRejects, sampleRows } from '../instruction-data/sample-rows.ts'
import { countVisualTokens } from '../model/config.ts'
import { planPictures } from '../training/picture-plan.ts'
import type { CommandContext } from './context.ts'
import { addDataFilterCommands } from './data-filter.ts'
import { expectWritableFile, wholeNumber } from './options.ts'
import { clearStatus, drawStatus, formatCount, printable, quoted, writeLine } from './terminal.ts'

type CheckOptions = { images?: string; model?: string; template: string; length: number; most: number; json?: boolean }
type ViewOptions = { images?: string; out?: string; count: number; rejects: number; seed: number }

export function addDataCommand(program: Command, context: CommandContext): void {
  const data = program.command('data').description('check, look through and mix instruction data').helpCommand(false)
  data
    .command('check')
    .description('say, line by line, what a trainer would stumble over in a file of LLaVA JSON')
    .argument('<file>', 'a list (.json) or one row a line (.jsonl)')
    .option('--images <folder>', 'look for the pictures there')
    .option('--model <folder>', 'count tokens as this model does')
    .option('--template <name>', 'conversation template for counting', 'vicuna_v1')
    .option(
      '--length <n>',
      'tokens of a conversation at most, pictures included',
      wholeNumber('--length', { from: 1 }),
      2048,
    )
    .option('--most <n>', 'problems printed at most', wholeNumber('--most', { from: 0 }), 50)
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ llava data check instruct/data/llava.json --images train2014
  $ llava data check llava_v1_5_mix665k.json --images data --model checkpoints/picturebook --length 2048

Ends with code 1 when there are problems.`,
    )
    .action((file: string, options: CheckOptions) => check(file, { options, context }))
  data
    .command('view')
    .description('write a page with samples: pictures, boxes, conversations, verdicts, rejects')
    .argument('<file>', 'a list (.json) or one row a line (.jsonl)')
    .option('--images <folder>', 'the pictures')
    .option('--out <file>', 'the page (default: gallery.html beside the file)')
    .option('--count <n>', 'rows', wholeNumber('--count', { from: 1, to: 1000 }), 48)
    .option(
      '--rejects <n>',
      'rejects, from rejects.jsonl beside the file',
      wholeNumber('--rejects', { from: 0, to: 1000 }),
      12,
    )
    .option('--seed <n>', 'other samples', wholeNumber('--seed', { from: 0 }), 0)
    .addHelpText(
      'after',
      `
Examples:
  $ llava data view instruct/data/llava.json --images train2014

The page is one file without scripts. Boxes and captions come from provenance.jsonl beside the file, where it is there.`,
    )
    .action((file: string, options: ViewOptions) => view(file, { options, context }))
  addDataFilterCommands(data, context)
}

async function check(
  file: string,
  { options, context }: { options: CheckOptions; context: CommandContext },
): Promise<void> {
  const { images, model, template, length, most, json } = options
  const { stdout, stderr } = context
  const tokens =
    model === undefined ? undefined : { count: await tokenCounter(model, { template, images }), most: length }
  const printed: RowProblem[] = []
  const summary = await checkLlavaFile(file, {
    images,
    tokens,
    onProblem: (problem) => {
      if (printed.length >= most) return
      printed.push(problem)
      if (!json)
        writeLine(
          stdout,
          `${file}:${problem.line}: ${printable(`${problem.id === undefined ? '' : `row ${problem.id}: `}${problem.problem}`)}`,
        )
    },
    onRow: (rows) => {
      if (rows % 5000 === 0) drawStatus(stderr, `${formatCount(rows)} rows`)
    },
  }).finally(() => clearStatus(stderr))
  const { rows, problems, textOnly, turns, repeatedIds, longest } = summary
  if (json) writeLine(stdout, JSON.stringify({ file, ...summary, longest: longest ?? null, shown: printed }))
  else {
    if (problems > printed.length) writeLine(stdout, `… and ${problems - printed.length} more problems`)
    const repeated = repeatedIds === 0 ? '' : `, ${repeatedIds} with an id that an earlier row has`
    const tokensSaid = longest === undefined ? '' : `, the longest ${longest} tokens`
    writeLine(
      stdout,
      `${rows} rows (${textOnly} without a picture${repeated}), ${turns} turns${tokensSaid}: ${problems === 0 ? 'no problems' : `${problems} problems`}`,
    )
  }
  if (problems > 0) process.exitCode = 1
}

/** Tokens of a conversation as a model sees it, visual tokens included. */
async function tokenCounter(
  model: string,
  { images, ...named }: { template: string; images: string | undefined },
): Promise<CountTokens> {
  const template = findTemplate(named.template)
  const config = await loadConfig(model)
  const { tokenizer } = await readTokenizer(model)
  const processor = await loadImageProcessor(model)
  const imageToken = -200 // of no tokenizer
  return async (turns, names) => {
    const { ids, loss } = tokenizeConversation(turns, { template, tokenizer, imageToken })
    const planned = async (folder: string) => {
      const pictures = names.map((name) => pictureIn(folder, { name, id: name }))
      return planPictures(
        { id: '', turns, pictures },
        { config, processor, most: { pictures: names.length, views: Number.POSITIVE_INFINITY } },
      )
    }
    // Of a model that looks at tiles they follow from the pictures; without these the whole of each is counted, which is the least.
    const visualTokens =
      config.tiles === undefined || images === undefined
        ? names.map(() => countVisualTokens(config))
        : (await planned(images)).map(({ length }) => length)
    return expandPlaceholders(ids, loss, { imageToken, visualTokens }).ids.length
  }
}

async function view(
  file: string,
  { options, context }: { options: ViewOptions; context: CommandContext },
): Promise<void> {
  const { images, count, rejects: mostRejects, seed } = options
  const out = options.out ?? join(dirname(file), 'gallery.html')
  await expectWritableFile('--out', out)
  const { rows, total } = await sampleRows(file, { count, seed, images })
  const { rejects, total: totalRejects } = await sampleRejects(join(dirname(file), 'rejects.jsonl'), {
    count: mostRejects,
    seed,
  })
  const page = instructionGallery({
    title: basename(file),
    rows,
    rejects,
    total: { rows: total, rejects: totalRejects },
  })
  await writeFile(out, page)
  writeLine(
    context.stdout,
    `${rows.length} of ${total} rows and ${rejects.length} of ${totalRejects} rejects: ${quoted(out)}`,
  )
}
