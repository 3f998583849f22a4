/** Where a model is: by the name of an embedded one, as a folder, or as ORG/NAME or ORG/NAME@REVISION in the cache that Hugging Face tools share. */

import { stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { findInCache, isHubName } from '../checkpoint/hub-cache.ts'

/** Models that come with this package, relative to this file whether it runs from src/ or dist/. */
const embedded = new Map([['picturebook', new URL('../../checkpoints/picturebook', import.meta.url)]])

/**
 * The folder of a model. A folder that is there comes before a name.
 * Errors: `Error` that says what was looked for; `action` begins its sentence.
 */
export async function findModel(nameOrFolder: string, action = 'load the model'): Promise<string> {
  const own = embedded.get(nameOrFolder)
  const folder = own === undefined ? nameOrFolder : fileURLToPath(own)
  const found = await stat(folder).catch(() => undefined)
  if (found?.isDirectory()) return folder
  if (found !== undefined) {
    const what = folder.endsWith('.gguf') ? 'a file for llama.cpp' : 'a file'
    throw new Error(
      `Cannot ${action} ${nameOrFolder}: it is ${what}, expected a folder with config.json and safetensors`,
    )
  }
  const [name = '', revision] = nameOrFolder.split('@', 2)
  const cached = await findInCache(name, { revision })
  if (cached !== undefined) return cached.folder
  const names = [...embedded.keys()].join(', ')
  const start = `Cannot ${action} ${nameOrFolder}`
  if (own !== undefined)
    throw new Error(`${start}: its folder ${folder} is missing, expected it to come with the package`)
  throw new Error(
    isHubName(name)
      ? `${start}: there is no such folder and no such model in the cache, expected one, or fetch it with llava pull ${name}${revision === undefined ? '' : ` --revision ${revision}`}`
      : `${start}: there is no such folder, expected one, ${names}, or ORG/NAME of a model that was pulled`,
  )
}
