/** `llava merge MODEL ADAPTER`: a LoRA adapter worked into its model, or taken out again. */

import { resolve } from 'node:path'
import type { Command } from 'commander'
import type { WeightDtype } from '../checkpoint/dtype.ts'
import { exportModel } from '../checkpoint/export.ts'
import { loadConfig, loadWeights } from '../checkpoint/load.ts'
import { mergeAdapter, readAdapter, unmergeAdapter } from '../checkpoint/lora.ts'
import { findModel } from '../generation/find-model.ts'
import type { CommandContext } from './context.ts'
import { oneOf } from './options.ts'
import { formatCount, quoted, writeLine } from './terminal.ts'
import { dtypes, expectExportable } from './train.ts'

export type MergeOptions = { readonly out: string; readonly undo?: boolean; readonly dtype: WeightDtype }

export function addMergeCommand(program: Command, context: CommandContext): void {
  program
    .command('merge')
    .description('work a LoRA adapter into its model: one folder that answers without the adapter')
    .argument('<model>', 'the model folder that the adapter was trained on')
    .argument('<adapter>', 'a folder with adapter_config.json and adapter_model.safetensors, ours or of PEFT')
    .requiredOption('--out <folder>', 'where the merged model goes')
    .option('--undo', 'take the adapter out of a model that it was merged into')
    .option('--dtype <type>', `numbers of the merged weights: ${dtypes.join(', ')}`, oneOf('--dtype', dtypes), 'F32')
    .addHelpText(
      'after',
      `
Examples:
  $ llava merge checkpoints/picturebook runs/picturebook-lora/adapter --out my-model
  $ llava merge my-model runs/picturebook-lora/adapter --undo --out as-before

Only an adapter of low-rank changes can be taken out: parts that were trained as a whole beside it are replaced for good.`,
    )
    .action(async (model: string, adapter: string, options: MergeOptions) => {
      const { layers, whole } = await mergeFolders({ model, adapter }, options)
      const beside = whole === 0 ? '' : ` and ${formatCount(whole)} weights trained whole`
      const done = options.undo
        ? `Took the changes of ${layers} layers out of`
        : `Merged ${layers} layers${beside} into`
      writeLine(context.stdout, `${done} ${quoted(model)}: ${quoted(options.out)}`)
    })
}

/** Merges folder into folder; returns how many layers changed and how many weights took the place of others. */
export async function mergeFolders(
  { model, adapter: adapterFolder }: { model: string; adapter: string },
  { out, undo = false, dtype }: MergeOptions,
): Promise<{ layers: number; whole: number }> {
  const folder = await findModel(model, 'merge into')
  if (resolve(out) === resolve(folder)) {
    throw new Error(`Cannot use --out ${out}: it is the model itself, expected another folder`)
  }
  await expectExportable(out, '--out')
  const adapter = await readAdapter(adapterFolder)
  const weights = await loadWeights(folder, await loadConfig(folder))
  const changed = await (undo ? unmergeAdapter : mergeAdapter)(weights, adapter)
  await exportModel(out, { from: folder, weights: changed, dtype })
  const whole = [...adapter.whole.values()].reduce((sum, { data }) => sum + data.length, 0)
  return { layers: adapter.layers.size, whole }
}
