/** `llava generate`: instruction data from captions and boxes, through a teacher, in a run that can be killed and started again. */

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Command } from 'commander'
import { groundingValidators } from '../instruction-data/grounding.ts'
import { createObjectFinder } from '../instruction-data/object-names.ts'
import { loadPrompts, type Prompts, responseTypes } from '../instruction-data/prompts.ts'
import type { Plan, TeacherSettings } from '../instruction-data/requests.ts'
import { type Validator, wordValidators } from '../instruction-data/validators.ts'
import { sceneValidator } from '../picturebook/claim-validator.ts'
import { lockRunFolder } from '../training/run-lock.ts'
import type { CommandContext } from './context.ts'
import { ask } from './generate-ask.ts'
import { askBatch } from './generate-batch.ts'
import { type Run, writeData } from './generate-data.ts'
import { type FoundInput, findInput, inputSettings, picturesOf } from './generate-input.ts'
import {
  endpointOf,
  type GenerateOptions,
  modelOf,
  paperTypes,
  priceOf,
  shardOf,
  typeWeights,
} from './generate-options.ts'
import { estimateLines } from './generate-progress.ts'
import { addressOf, expectNoQueue } from './generate-queue.ts'
import { openRunFolder, type PictureSummary, type RunSettings, tasksIn } from './generate-run.ts'
import { decimalNumber, expectWritableFolder, wholeNumber } from './options.ts'
import { packageFile } from './package-files.ts'
import { writeLine } from './terminal.ts'

export function addGenerateCommand(program: Command, context: CommandContext): void {
  program
    .command('generate')
    .description(
      'make instruction data from captions and boxes: conversations, descriptions and reasoning written by a teacher',
    )
    .requiredOption(
      '--captions <path>',
      'COCO captions (.json), rows (.jsonl), a table (.csv), or a folder of pictures with captions beside them',
    )
    .option('--instances <file>', 'COCO instances: the boxes')
    .option(
      '--images <folder>',
      'the pictures; those that are missing or no pictures are left out (default: the folder of --captions, if it is one)',
    )
    .requiredOption('--teacher <name>', 'openai:MODEL for any endpoint with chat completions, or rules (offline)')
    .requiredOption('--out <folder>', 'a new folder, or one of a run with the same settings, which goes on')
    .option('--types <weights>', 'types of responses and how often', typeWeights, paperTypes)
    .option(
      '--per-picture <n>',
      'types of responses for each picture',
      wholeNumber('--per-picture', { from: 1, to: 3 }),
      1,
    )
    .option('--limit <n>', 'pictures at most', wholeNumber('--limit', { from: 1 }))
    .option('--shard <i/n>', 'the pictures of one of n machines', shardOf)
    .option('--prompts <folder>', 'own prompts; types that it lacks are taken from the ones that come along')
    .option(
      '--picturebook',
      'the pictures are picturebook scenes: rules answer from the scene, every sentence is checked',
    )
    .option(
      '--base-url <address>',
      'of the endpoint (default: OPENAI_BASE_URL, or OpenAI); the key comes from OPENAI_API_KEY',
    )
    .option('--temperature <t>', 'of the teacher', decimalNumber('--temperature', { from: 0, to: 2 }), 0.7)
    .option('--max-tokens <n>', 'longest response', wholeNumber('--max-tokens', { from: 16 }), 1024)
    .option('--seed <n>', 'other draws of types and questions', wholeNumber('--seed', { from: 0 }), 0)
    .option('--concurrency <n>', 'requests at once at most', wholeNumber('--concurrency', { from: 1, to: 1024 }), 32)
    .option('--rpm <n>', 'requests a minute at most', wholeNumber('--rpm', { from: 1 }))
    .option('--tpm <n>', 'tokens a minute at most', wholeNumber('--tpm', { from: 1 }))
    .option(
      '--timeout <s>',
      'seconds until a request is given up',
      decimalNumber('--timeout', { above: 0, to: 86_400 }),
      120,
    )
    .option(
      '--retries <n>',
      'further attempts after failures of network or endpoint',
      wholeNumber('--retries', { from: 0 }),
      8,
    )
    .option(
      '--validation-retries <n>',
      'further requests after an unusable response',
      wholeNumber('--validation-retries', { from: 0, to: 20 }),
      1,
    )
    .option(
      '--patience <min>',
      'minutes without a single success until the run ends',
      decimalNumber('--patience', { above: 0 }),
      120,
    )
    .option('--price <in,out>', 'dollars for a million tokens', priceOf)
    .option(
      '--max-usd <n>',
      'ends the run before it costs more; needs --price',
      decimalNumber('--max-usd', { above: 0 }),
    )
    .option('--strict', 'leave out rows that a validator finds something wrong with')
    .option('--batch', 'ask through batch files of the provider: cheaper (give --price of a batch), within a day')
    .option(
      '--queue [address]',
      'let workers on other machines ask (llava worker), through Redis or Valkey: redis://HOST:PORT/DB (default: REDIS_URL)',
    )
    .option('--poll <s>', 'seconds between looks at a batch', decimalNumber('--poll', { above: 0 }), 60)
    .option(
      '--dry-run [n]',
      'print the prompts of n pictures (1) and what all would cost; send nothing',
      wholeNumber('--dry-run', { from: 1 }),
    )
    .option('--no-ask', 'send nothing: make the data of the answers that are there')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ llava generate --captions captions_train2014.json --instances instances_train2014.json --images train2014 \\
      --teacher openai:gpt-4o-mini --price 0.15,0.6 --max-usd 20 --out instruct --dry-run
  $ llava generate --captions captions.csv --images photos --teacher openai:qwen --base-url http://localhost:8000/v1 --out instruct
  $ llava generate --captions photos --teacher openai:qwen --base-url http://localhost:8000/v1 --out instruct
  $ llava generate --captions rows.jsonl --teacher openai:qwen --rpm 500 --out instruct --queue redis://10.0.0.5:6379
  $ llava picturebook --count 1000 --out scenes
  $ llava generate --captions scenes/captions_train.json --instances scenes/instances_train.json --images scenes/images \\
      --teacher rules --picturebook --out instruct

A row of a .jsonl file: {"id": "7", "image": "7.jpg", "captions": ["A cat."], "boxes": [{"category": "cat", "box": [0.1, 0.2, 0.5, 0.9]}]}
A table names its columns in the first line: image (or file_name, path …) and caption (or text …); with boxes also x, y, width, height (or xmin, ymin,
xmax, ymax) in pixels or in shares from 0 to 1, and category (or label …). Several rows of one picture are several captions and boxes.
A folder has a.txt with one caption a line, a.caption or a.json beside a.jpg, or metadata.jsonl or metadata.csv, in subfolders as well.
In the folder: data/ (llava.json, llava.jsonl, provenance.jsonl, rejects.jsonl, report.json, manifest.json), answers.jsonl (every answer that was
paid for), skipped.jsonl (pictures that could not be used). A run that was killed goes on with the same command; no answer is paid for twice.`,
    )
    .action((options: GenerateOptions) => generate(options, context))
}

async function generate(given: GenerateOptions, context: CommandContext): Promise<void> {
  const input = await findInput(given)
  const options = input.images === undefined ? given : { ...given, images: input.images }
  const { out } = options
  const model = modelOf(options.teacher)
  const baseUrl = options.teacher === 'rules' ? undefined : endpointOf(options.baseUrl ?? process.env.OPENAI_BASE_URL)
  if (options.maxUsd !== undefined && options.price === undefined) {
    throw new Error('Cannot use --max-usd without --price: what tokens cost is not known')
  }
  if (options.batch && model === 'rules') throw new Error('Cannot use --batch with --teacher rules')
  if (options.queue !== undefined && (model === 'rules' || options.batch)) {
    throw new Error(
      `Cannot use --queue with ${model === 'rules' ? '--teacher rules, which needs nobody to ask' : '--batch'}`,
    )
  }
  if (options.queue !== undefined) addressOf(options.queue)
  await expectWritableFolder('--out', out)
  const shipped = packageFile('prompts')
  const prompts = await loadPrompts(options.prompts ?? shipped, { fallback: shipped })
  if (options.dryRun !== undefined) return dryRun(options, { input, prompts, model, context })
  await openRunFolder(out, await settingsOf(options, { input, baseUrl, prompts }))
  const release = await lockRunFolder(out, { work: 'generate', works: 'generates' })
  try {
    if (options.queue === undefined && options.ask) await expectNoQueue(out)
    const pictures = await picturesOf(input, { folder: out, kept: true, context })
    const run: Run = {
      ...planOf(options, { prompts, model }),
      options,
      pictures,
      baseUrl,
      validators: validatorsOf(options, { prompts, pictures }),
    }
    const progress = options.batch ? await askBatch(run, context) : await ask(run, context)
    if (context.watch.interruption() !== undefined) return
    await writeData(run, { progress, context })
  } finally {
    await release()
  }
}

/** Prints prompts and costs, and leaves nothing behind. */
async function dryRun(
  options: GenerateOptions,
  { input, prompts, model, context }: { input: FoundInput; prompts: Prompts; model: string; context: CommandContext },
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'llava-generate-'))
  try {
    await picturesOf(input, { folder, kept: false, context })
    const { plan, settings } = planOf(options, { prompts, model })
    const tasks = tasksIn(folder, { plan, limit: options.limit, shard: options.shard })
    const samples = options.dryRun === true ? 1 : (options.dryRun ?? 1)
    const lines = await estimateLines(tasks, {
      prompts,
      settings,
      price: options.price,
      maxUsd: options.maxUsd,
      samples,
    })
    for (const line of lines) writeLine(context.stdout, line)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function planOf(
  { types, perPicture, seed, temperature, maxTokens }: GenerateOptions,
  { prompts, model }: { prompts: Prompts; model: string },
) {
  const settings: TeacherSettings = { model, temperature, maxTokens, seed }
  const plan: Plan = { types, perPicture, seed, prompts }
  return { prompts, settings, plan }
}

async function settingsOf(
  options: GenerateOptions,
  { input, baseUrl, prompts }: { input: FoundInput; baseUrl: string | undefined; prompts: Prompts },
): Promise<RunSettings> {
  const { types, perPicture, teacher, temperature, maxTokens, seed, shard } = options
  return {
    ...(await inputSettings(input)),
    teacher: `${teacher}${options.picturebook ? ' (picturebook)' : ''}`,
    'base-url': baseUrl ?? 'default',
    types: responseTypes.map((type) => `${type}=${types[type] ?? 0}`).join(','),
    'per-picture': String(perPicture),
    prompts: responseTypes.map((type) => prompts[type].version).join(','),
    temperature: String(temperature),
    'max-tokens': String(maxTokens),
    seed: String(seed),
    shard: shard === undefined ? 'all' : `${shard.part}/${shard.of}`,
  }
}

function validatorsOf(
  { picturebook }: GenerateOptions,
  { prompts, pictures }: { prompts: Prompts; pictures: PictureSummary },
): Validator[] {
  const finder = createObjectFinder(pictures.categories)
  return [...wordValidators(prompts), ...groundingValidators(finder), ...(picturebook ? [sceneValidator()] : [])]
}
