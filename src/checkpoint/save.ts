/** Saves a model as a Hugging Face folder that transformers opens: config.json, model.safetensors and the files given. */

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type LlavaConfig, parseLlavaConfig, toHuggingFaceConfig } from '../model/config.ts'
import { writeFileAtomically, writeFolderAtomically } from './atomic-file.ts'
import type { WeightDtype } from './dtype.ts'
import { weightsFile } from './folder.ts'
import { quote } from './json.ts'
import { type LayoutName, toForeign } from './layouts.ts'
import { checkTensors, type Weights } from './load.ts'
import { type TensorToWrite, writeSafetensors } from './safetensors-writer.ts'
import type { WeightReader } from './weight-reader.ts'

export type CheckpointToSave = {
  config: LlavaConfig
  weights: Weights | WeightReader // stored ones are read one by one
  dtype?: WeightDtype // default F32
  layout?: Exclude<LayoutName, 'original'> // names of the tensors, default hugging-face
  files?: Record<string, string> // further files by name: tokenizer.json, preprocessor_config.json, …
  signal?: AbortSignal | undefined
  replace?: boolean // whether an existing checkpoint folder may be replaced, default no
}

/**
 * Writes the folder beside and renames it into place, so that no half checkpoint is ever seen under its name.
 * Errors: `Error` for weights that do not fit the config, an existing folder (without `replace`) or a bad file name.
 */
export async function saveCheckpoint(
  folder: string,
  { config, weights, dtype = 'F32', layout = 'hugging-face', files = {}, replace = false, signal }: CheckpointToSave,
): Promise<void> {
  const action = `save the checkpoint ${folder}`
  const tensors = tensorsOf(weights)
  checkTensors({ action, config, found: new Map([...tensors].map(([name, { shape }]) => [name, shape])) })
  const json = { ...toHuggingFaceConfig(config), torch_dtype: torchNames[dtype] }
  parseLlavaConfig(json) // what we write, we can read
  const texts = new Map(Object.entries(files))
  for (const name of texts.keys()) checkFileName(name, action)
  texts.set('config.json', `${JSON.stringify(json, null, 2)}\n`)
  const renamed = [...tensors].map(([name, tensor]) => [toForeign(name, layout), tensor] as const)
  await writeFolderAtomically(
    folder,
    async (temporary) => {
      // transformers refuses files whose metadata do not name a framework
      await writeSafetensors(join(temporary, weightsFile), renamed, { dtype, signal, metadata: { format: 'pt' } })
      for (const [name, text] of texts) {
        await writeFileAtomically(join(temporary, name), (handle) => writeFile(handle, text))
      }
    },
    // Only a checkpoint is replaced, never somebody's folder of other things.
    { mayReplace: (names) => replace && names.includes('config.json') },
  )
}

function tensorsOf(weights: Weights | WeightReader): ReadonlyMap<string, TensorToWrite> {
  if (!('shapes' in weights)) return weights
  return new Map([...weights.shapes].map(([name, shape]) => [name, { shape, read: () => weights.read(name) }]))
}

const torchNames = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' } as const satisfies Record<WeightDtype, string>

function checkFileName(name: string, action: string): void {
  const plain = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/.test(name)
  if (!plain || name === 'config.json' || name.endsWith('.safetensors')) {
    throw new Error(
      `Cannot ${action}: found the file name ${quote(name)}, expected a plain name beside config.json and the weights`,
    )
  }
}
