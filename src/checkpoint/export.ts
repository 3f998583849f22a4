/** A model folder made from another one: new weights, and the tokenizer, templates and preprocessing that they belong to. */

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { hasCode } from './atomic-file.ts'
import { loadConfig } from './load.ts'
import { type CheckpointToSave, saveCheckpoint } from './save.ts'

/** What a model folder holds besides config.json and the weights. */
export const companionFiles = [
  'tokenizer.json',
  'tokenizer_config.json',
  'preprocessor_config.json',
  'processor_config.json',
  'generation_config.json',
  'chat_template.jinja',
  'chat_template.json',
] as const

/** The companion files that a model folder has, by name. */
export async function readCompanionFiles(folder: string): Promise<Record<string, string>> {
  const files: Record<string, string> = {}
  for (const name of companionFiles) {
    const text = await readFile(join(folder, name), 'utf8').catch((error) => {
      if (hasCode(error, 'ENOENT')) return undefined
      throw error
    })
    if (text !== undefined) files[name] = text
  }
  return files
}

/**
 * Writes the whole model in Hugging Face layout, with the config and the companion files of the folder `from`; a model that is there already is
 * replaced. Errors: those of `saveCheckpoint`.
 */
export async function exportModel(
  folder: string,
  { from, ...rest }: { from: string } & Pick<CheckpointToSave, 'weights' | 'dtype' | 'layout' | 'signal'>,
): Promise<void> {
  const [config, files] = [await loadConfig(from), await readCompanionFiles(from)]
  await saveCheckpoint(folder, { config, files, replace: true, ...rest })
}
