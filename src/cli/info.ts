/** `llava info MODEL`: what a model folder holds, as a page for people or one JSON object. */

import type { Command } from 'commander'
import { describeModel, type ModelDescription, partNames } from '../generation/describe-model.ts'
import { findModel } from '../generation/find-model.ts'
import type { TemplateSource } from '../generation/model-folder.ts'
import { precisions } from '../generation/precision.ts'
import { toHuggingFaceConfig } from '../model/config.ts'
import type { CommandContext } from './context.ts'
import { wholeNumber } from './options.ts'
import { alignColumns, formatBytes, formatCount, paint, printable, type Terminal, writeLine } from './terminal.ts'

type InfoOptions = { context?: number; tensors?: boolean; json?: boolean }

export function addInfoCommand(program: Command, context: CommandContext): void {
  program
    .command('info')
    .description('say what a model folder holds: parts, shapes, weights, memory, template, files')
    .argument('[model]', 'a built-in model, a Hugging Face folder or ORG/NAME that was pulled', 'picturebook')
    .option(
      '--context <n>',
      "tokens that memory is told for (default: the model's own)",
      wholeNumber('--context', { from: 1 }),
    )
    .option('--tensors', 'list every tensor with its shape')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ llava info
  $ llava info ./llava-1.5-7b-hf --context 2048
  $ llava info llava-hf/llava-1.5-7b-hf --json

Nothing but the config and the headers of the weights is read.`,
    )
    .action(async (model: string, options: InfoOptions) => {
      const description = await describeModel(await findModel(model, 'describe the model'), options)
      if (options.json) writeLine(context.stdout, JSON.stringify(asJson(model, description, options)))
      else
        for (const line of page(model, description, { ...options, terminal: context.stdout }))
          writeLine(context.stdout, line)
    })
}

function asJson(model: string, description: ModelDescription, { tensors: listed }: InfoOptions) {
  const { config, tensors, template, ...rest } = description
  return {
    model,
    ...rest,
    template: template.name ?? template.file,
    config: toHuggingFaceConfig(config),
    ...(listed && { tensors: Object.fromEntries(tensors) }),
  }
}

function page(
  model: string,
  description: ModelDescription,
  { tensors: listed, terminal }: InfoOptions & { terminal: Terminal },
): string[] {
  const { folder, layout, stored, template, vocabulary, files, tensors } = description
  const bold = (text: string) => paint(terminal, 'bold', text)
  const dtypes = Object.entries(stored).map(([dtype, { bytes }]) => `${dtype} ${formatBytes(bytes)}`)
  const fileList = files.map(({ name, bytes }) => `${printable(name)} ${formatBytes(bytes)}`)
  return [
    bold(printable(model)) + (model === folder ? '' : ` in ${printable(folder)}`),
    '',
    ...alignFacts([
      ['vision encoder', describeVision(description)],
      ['projector', describeProjector(description)],
      ['language model', describeLanguage(description)],
      ['pictures', describePictures(description)],
      ['vocabulary', `${vocabulary.pieces} pieces in ${vocabulary.rows} rows`],
      ['template', describeTemplate(template)],
      ['layout', `${layout ?? 'unknown'} tensor names, stored as ${dtypes.join(', ')}`],
      ['files', fileList.join(', ')],
    ]),
    '',
    bold('Memory'),
    ...memoryTable(description),
    ...(listed ? ['', bold('Tensors'), ...[...tensors].map(([name, shape]) => `${name}  [${shape.join(', ')}]`)] : []),
  ]
}

function describePictures({ config: { visualTokens, imageToken, tiles } }: ModelDescription): string {
  const views =
    tiles === undefined ? 'each' : `for the whole and for each tile, in ${tiles.resolutions.length} resolutions`
  return `${visualTokens} visual tokens ${views}, placeholder id ${imageToken}`
}

function describeVision({
  config: { vision, featureLayer, featureSelect },
  usedVisionBlocks,
}: ModelDescription): string {
  const kind = { clip: 'CLIP', siglip: 'SigLIP' }[vision.kind]
  const side = Math.floor(vision.imageSide / vision.patch)
  const used = usedVisionBlocks === vision.depth ? '' : ` (the first ${usedVisionBlocks} are used)`
  const select = vision.classToken && featureSelect === 'full' ? ' with class token' : ''
  return (
    `${kind}, ${vision.imageSide} px in ${side} × ${side} patches of ${vision.patch}, ${vision.depth} blocks${used}, width ${vision.width}, ` +
    `${vision.heads} heads, features of layer ${featureLayer}${select}`
  )
}

function describeProjector({ config: { projector, vision, language } }: ModelDescription): string {
  const widths = [vision.width, ...Array.from({ length: projector.layers }, () => language.width)].join(' → ')
  return projector.layers === 1 ? `linear, ${widths}` : `${projector.layers} layers with GELU, ${widths}`
}

function describeLanguage({ config: { language } }: ModelDescription): string {
  const kind = { llama: 'LLaMA', mistral: 'Mistral', qwen2: 'Qwen2' }[language.kind]
  const heads =
    language.keyValueHeads === language.heads
      ? `${language.heads} heads`
      : `${language.heads} heads over ${language.keyValueHeads} keys`
  return `${kind}, ${language.depth} blocks, width ${language.width}, ${heads}, context ${language.context}`
}

function describeTemplate({ name, file }: TemplateSource): string {
  if (name === undefined) return `Jinja in ${file}`
  return file === undefined ? `${name}, because the folder names none` : `${printable(name)}, named in ${file}`
}

function memoryTable({ parts, memory }: ModelDescription): string[] {
  const { context, cacheBytes, weightBytes } = memory
  const names = { visionEncoder: 'vision encoder', projector: 'projector', languageModel: 'language model' } as const
  const total = partNames.reduce((sum, part) => sum + parts[part].parameters, 0)
  return alignColumns([
    ['', 'weights', ...precisions],
    ...partNames.map((part) => [
      names[part],
      formatCount(parts[part].parameters),
      ...precisions.map((precision) => formatBytes(parts[part].bytes[precision])),
    ]),
    [`cache of ${context} tokens`, '', ...precisions.map(() => formatBytes(cacheBytes.float32))],
    [
      'together',
      formatCount(total),
      ...precisions.map((precision) => formatBytes(weightBytes[precision] + cacheBytes.float32)),
    ],
  ])
}

/** A name and a text per line. */
function alignFacts(facts: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...facts.map(([name]) => name.length))
  return facts.map(([name, text]) => `${name.padEnd(width)}  ${text}`)
}
