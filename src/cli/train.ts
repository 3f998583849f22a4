/** `llava train RECIPE`: runs a recipe with its progress in sight, stops so that it can go on, exports the model that it made. */

import { join } from 'node:path'
import type { Command } from 'commander'
import type { WeightDtype } from '../checkpoint/dtype.ts'
import { companionFiles, exportModel } from '../checkpoint/export.ts'
import { isHubName } from '../checkpoint/hub-cache.ts'
import type { Weights } from '../checkpoint/load.ts'
import { findModel } from '../generation/find-model.ts'
import { type Device, devices } from '../runtime/device.ts'
import { readRecipe } from '../training/recipe.ts'
import { train as runRecipe } from '../training/run.ts'
import { stages } from '../training/stages.ts'
import type { CommandContext } from './context.ts'
import { entriesOf, expectWritableFolder, oneOf, threadCount } from './options.ts'
import { quoted, writeLine } from './terminal.ts'
import { trainingProgress } from './training-progress.ts'

type TrainOptions = {
  out?: string
  resume?: boolean
  threads?: number
  device: Device
  export?: string
  dtype: WeightDtype
  quiet?: boolean
  json?: boolean
}

export const dtypes = ['F32', 'F16', 'BF16'] as const satisfies readonly WeightDtype[]

export function addTrainCommand(program: Command, context: CommandContext): void {
  program
    .command('train')
    .description('run a training recipe: one stage, from its data to a model folder')
    .argument('<recipe>', 'a recipe file; the paths in it are relative to the current folder')
    .option('--out <folder>', 'where log and checkpoints go (default: runs/<name of the recipe>)')
    .option('--resume', 'go on from the newest checkpoint in that folder')
    .option('--threads <n>', 'processor threads', threadCount)
    .option('--device <name>', `where the model computes: ${devices.join(', ')}`, oneOf('--device', devices), 'cpu')
    .option(
      '--export <folder>',
      'where the trained model goes at the end (default: <out>/model, for stages with a projector)',
    )
    .option('--dtype <type>', `numbers of the exported weights: ${dtypes.join(', ')}`, oneOf('--dtype', dtypes), 'F32')
    .option('--quiet', 'print nothing')
    .option('--json', 'print every event as a line of JSON')
    .addHelpText(
      'after',
      `
Examples:
  $ llava train recipes/picturebook/1-encoder.yaml
  $ llava train recipes/picturebook/1-encoder.yaml --resume
  $ llava train recipes/picturebook/4-instruction-tuning.yaml --export my-model --dtype F16
  $ llava train recipes/lora/picturebook.yaml
  $ llava train recipes/picturebook/1-encoder.yaml --device webgpu

Ctrl-C finishes the step, writes a checkpoint and says how to go on.`,
    )
    .action((recipe: string, options: TrainOptions) => train(recipe, options, context))
}

async function train(path: string, options: TrainOptions, { stdout, stderr, watch }: CommandContext): Promise<void> {
  const read = await readRecipe(path)
  const recipe = isHubName(read.model.replace(/@.*/, '')) ? { ...read, model: await findModel(read.model) } : read
  const folder = options.out ?? join('runs', recipe.name)
  await expectWritableFolder('--out', folder)
  const exportTo =
    options.export ?? (stages[recipe.stage].learns.includes('projector') ? join(folder, 'model') : undefined)
  if (exportTo !== undefined) await expectExportable(exportTo)

  const progress = trainingProgress(recipe, { terminal: stdout, folder })
  const tell = (event: Readonly<{ type: string }>) => writeLine(stdout, JSON.stringify(event))
  const { resume = false, threads, device, quiet = false, json = false } = options
  let step = 0
  let weights: Weights
  try {
    weights = await runRecipe(recipe, {
      folder,
      resume,
      device,
      threads,
      signal: watch.signal,
      onEvent: (event) => {
        if ('step' in event) step = event.step
        if (json) tell(event)
        else if (!quiet) progress.show(event)
      },
    })
  } finally {
    progress.end()
  }
  if (watch.signal.aborted && step < recipe.steps) {
    const goOn = [
      'llava train',
      quoted(path),
      ...(options.out === undefined ? [] : ['--out', quoted(folder)]),
      '--resume',
    ]
    if (!quiet) writeLine(stderr, `Stopped after step ${step} of ${recipe.steps}. Go on with: ${goOn.join(' ')}`)
    return
  }
  if (recipe.lora !== undefined && !json && !quiet) writeLine(stdout, `The adapter is in ${join(folder, 'adapter')}`)
  if (exportTo === undefined) return
  await exportModel(exportTo, { from: recipe.model, weights, dtype: options.dtype })
  if (json) tell({ type: 'export', path: exportTo } as { type: string })
  else if (!quiet)
    writeLine(stdout, `The model is in ${exportTo}. Ask it: llava ask PICTURE QUESTION --model ${quoted(exportTo)}`)
}

/** Refuses, before hours of training, a folder that the export could not replace or in which it would delete other things. */
export async function expectExportable(folder: string, option = '--export'): Promise<void> {
  await expectWritableFolder(option, folder)
  const entries = await entriesOf(folder)
  const ours = new Set<string>(['config.json', 'model.safetensors', ...companionFiles])
  const foreign = entries.find((name) => !ours.has(name))
  const found = foreign ?? (entries.length > 0 && !entries.includes('config.json') ? 'no config.json' : undefined)
  if (found !== undefined) {
    throw new Error(`Cannot use ${option} ${folder}: found ${found} in it, expected a new folder or an exported model`)
  }
}
