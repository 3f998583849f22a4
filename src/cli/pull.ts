/** `llava pull ORG/NAME`: fetches a model from the Hugging Face hub, with progress, and says where it is. */

import type { Command } from 'commander'
import { hubSettings, pullModel } from '../checkpoint/pull.ts'
import type { CommandContext } from './context.ts'
import { formatBytes, printable, quoted, workBar, writeLine } from './terminal.ts'

type PullChoices = { revision?: string; quiet?: boolean; json?: boolean }

export function addPullCommand(program: Command, context: CommandContext): void {
  program
    .command('pull')
    .description('fetch a model from the Hugging Face hub into the cache that its tools share')
    .argument('<model>', 'ORG/NAME')
    .option('--revision <name>', 'branch, tag or commit (default: main)')
    .option('--quiet', 'print nothing')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ llava pull llava-hf/llava-1.5-7b-hf
  $ llava pull llava-hf/llava-1.5-7b-hf --revision main     then --model llava-hf/llava-1.5-7b-hf@main
  $ llava ask photo.jpg 'What is it?' --model llava-hf/llava-1.5-7b-hf

An interrupted download goes on where it stopped. Every file is checked against the hub's hash.

Environment:
  HF_TOKEN             for private and gated models
  HF_HUB_CACHE         the cache (default: HF_HOME/hub, else ~/.cache/huggingface/hub)
  HF_ENDPOINT          another hub (default: https://huggingface.co)
  HF_HUB_OFFLINE=1     ask nothing of the network`,
    )
    .action((model: string, options: PullChoices) => pull(model, options, context))
}

async function pull(
  model: string,
  { revision, quiet = false, json = false }: PullChoices,
  { stdout, stderr, watch }: CommandContext,
): Promise<void> {
  const bar = workBar(stderr, { label: printable(model), format: formatBytes })
  let told = ''
  const result = await pullModel(model, {
    ...(await hubSettings()),
    revision,
    signal: watch.signal,
    onProgress: ({ file, done, total }) => {
      if (quiet || json) return
      if (stderr.live) bar.show(done, total, file)
      else if (told !== file) writeLine(stderr, `fetching ${file}`)
      told = file
    },
  }).finally(bar.end)
  if (json) writeLine(stdout, JSON.stringify({ model, ...result }))
  else if (!quiet) {
    const amount = result.fetched === 0 ? 'Nothing new' : `Fetched ${formatBytes(result.fetched)}`
    writeLine(stdout, `${amount}; the model is in ${quoted(result.folder)}`)
    writeLine(
      stdout,
      `Ask it: llava ask PICTURE QUESTION --model ${quoted(revision === undefined ? model : `${model}@${revision}`)}`,
    )
  }
}
