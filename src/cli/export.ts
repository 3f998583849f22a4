/** `llava export MODEL --to FORMAT`: a model for other programs, as a Hugging Face folder, GGUF files or ONNX graphs. */

import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { WeightDtype } from '../checkpoint/dtype.ts'
import { exportModel } from '../checkpoint/export.ts'
import { exportGguf } from '../checkpoint/export-gguf.ts'
import { ggufDtypes } from '../checkpoint/gguf-numbers.ts'
import { loadConfig } from '../checkpoint/load.ts'
import { openWeightReader } from '../checkpoint/weight-reader.ts'
import { exportOnnx } from '../generation/export-onnx.ts'
import { findModel } from '../generation/find-model.ts'
import type { CommandContext } from './context.ts'
import { expectWritableFolder, oneOf } from './options.ts'
import { formatCount, quoted, workBar, writeLine } from './terminal.ts'
import { dtypes, expectExportable } from './train.ts'

const formats = ['hf', 'gguf', 'onnx'] as const
const layouts = { old: 'hugging-face', new: 'hugging-face-2025' } as const

type Format = (typeof formats)[number]
type ExportOptions = {
  to: Format
  out: string
  dtype?: string
  encoderDtype?: string
  names?: keyof typeof layouts
  quiet?: boolean
  json?: boolean
}

export function addExportCommand(program: Command, context: CommandContext): void {
  program
    .command('export')
    .description('write a model for other programs: transformers, llama.cpp, onnxruntime-web')
    .argument('<model>', 'a built-in model, a Hugging Face folder or ORG/NAME that was pulled')
    .requiredOption('--to <format>', `hf (transformers, vLLM), gguf (llama.cpp) or onnx`, oneOf('--to', formats))
    .requiredOption('--out <folder>', 'where it goes: a new folder, or an earlier export')
    .option(
      '--dtype <type>',
      `numbers of the weights: ${dtypes.join(', ')} for hf, ${ggufDtypes.join(', ')} for gguf, F32 for onnx (default: F16, F32 for onnx)`,
    )
    .option(
      '--encoder-dtype <type>',
      'gguf: numbers of vision encoder and projector (default: as --dtype, F16 beside Q4_0)',
    )
    .option(
      '--names <age>',
      'hf: tensor names as on the hub (old) or of transformers since 4.52 (new) (default: old)',
      oneOf('--names', ['old', 'new']),
    )
    .option('--quiet', 'print nothing')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ llava export picturebook --to gguf --out picturebook-gguf --dtype Q8_0
  $ llama-mtmd-cli -m picturebook-gguf/picturebook-q8_0.gguf --mmproj picturebook-gguf/mmproj-picturebook-q8_0.gguf \\
      --image photo.jpg -p 'What is in the picture?'
  $ llava export my-model --to hf --out my-model-bf16 --dtype BF16
  $ llava export picturebook --to onnx --out web/model

A GGUF export is two files, the language model and "mmproj" (vision encoder and projector). llama.cpp as of version 0.5.0 computes CLIP
encoders inexactly: it gives every patch the position of its neighbour and leaves out the first. SigLIP encoders are not affected.
Of models that look at tiles it shows the tiles, with their padding, and then the whole picture, without the lines of newlines between.`,
    )
    .action((model: string, options: ExportOptions) => runExport(model, options, context))
}

async function runExport(
  model: string,
  options: ExportOptions,
  { stdout, stderr, watch }: CommandContext,
): Promise<void> {
  const { to, out, quiet = false, json = false } = options
  expectFitting(options)
  const from = await findModel(model, 'export')
  if (resolve(out) === resolve(from))
    throw new Error(`Cannot use --out ${out}: it is the model itself, expected another folder`)
  await (to === 'hf' ? expectExportable(out, '--out') : expectWritableFolder('--out', out))
  const bar = workBar(stderr, { label: `writing ${to}`, format: formatCount })
  const show = ({ done, total }: { done: number; total: number }) => {
    if (!quiet && !json) bar.show(done, total)
  }
  const { files, tiles } = await write({ ...options, from, signal: watch.signal, onProgress: show }).finally(bar.end)
  if (json) writeLine(stdout, JSON.stringify({ model, to, out, files }))
  else if (!quiet) for (const line of howToUse(to, { out, files, tiles })) writeLine(stdout, line)
}

/** Writes the export and returns the files that name it, and whether its pictures are tiles that another program arranges in its own way. */
async function write({
  to,
  out,
  dtype,
  encoderDtype,
  names = 'old',
  ...rest
}: ExportOptions & {
  from: string
  signal: AbortSignal
  onProgress: (progress: { done: number; total: number }) => void
}): Promise<{ files: string[]; tiles: boolean }> {
  const { from, signal, onProgress } = rest
  if (to === 'onnx') {
    await exportOnnx(out, { from, signal, onProgress })
    return { files: [out], tiles: false }
  }
  if (to === 'gguf') {
    const ggufDtype = (option: string, text: string) => oneOf(option, ggufDtypes)(text)
    const files = await exportGguf(out, {
      from,
      dtype: ggufDtype('--dtype', dtype ?? 'F16'),
      ...(encoderDtype !== undefined && { visionDtype: ggufDtype('--encoder-dtype', encoderDtype) }),
      signal,
      onProgress,
    })
    return { files: [files.model, files.mmproj], tiles: files.tiles }
  }
  const weights = await openWeightReader(from, await loadConfig(from))
  let done = 0
  const counted = {
    ...weights,
    read: async (name: string) => {
      onProgress({ done: ++done, total: weights.shapes.size })
      return weights.read(name)
    },
  }
  try {
    await exportModel(out, { from, weights: counted, dtype: hfDtype(dtype), layout: layouts[names], signal })
  } finally {
    await weights.close()
  }
  return { files: [out], tiles: false }
}

function hfDtype(text = 'F16'): WeightDtype {
  return oneOf('--dtype', dtypes)(text)
}

/** Refuses options that the format has no use for, instead of ignoring them. */
function expectFitting({ to, dtype, encoderDtype, names }: ExportOptions): void {
  if (to === 'hf') hfDtype(dtype)
  if (to === 'gguf' && dtype !== undefined) oneOf('--dtype', ggufDtypes)(dtype)
  if (to === 'onnx' && dtype !== undefined) oneOf('--dtype', ['F32'])(dtype)
  if (encoderDtype !== undefined) {
    if (to !== 'gguf') throw new Error(`Cannot use --encoder-dtype with --to ${to}: expected --to gguf`)
    oneOf('--encoder-dtype', ggufDtypes)(encoderDtype)
  }
  if (names !== undefined && to !== 'hf') throw new Error(`Cannot use --names with --to ${to}: expected --to hf`)
}

function howToUse(
  to: Format,
  { out, files, tiles }: { out: string; files: readonly string[]; tiles: boolean },
): string[] {
  if (to === 'hf') return [`The model is in ${out}. Ask it: llava ask PICTURE QUESTION --model ${quoted(out)}`]
  if (to === 'onnx') return [`The graphs are in ${out}; llava.json there says what goes in and comes out`]
  const [model = '', mmproj = ''] = files
  return [
    `The files are ${model} and ${mmproj}`,
    ...(tiles
      ? [
          'llama.cpp gives the language model the tiles first, then the whole picture, and no newlines: expect other answers than here',
        ]
      : []),
    `Ask it: llama-mtmd-cli -m ${quoted(model)} --mmproj ${quoted(mmproj)} --image PICTURE -p QUESTION`,
  ]
}
