/** Opens the weights of a Hugging Face folder: one `model.safetensors`, or the shards that `model.safetensors.index.json` names. */

import { access, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { hasCode } from './atomic-file.ts'
import { quote, readStrictJson } from './json.ts'
import {
  closeSafetensors,
  openSafetensors,
  readTensor,
  type SafetensorsFile,
  type StoredTensor,
} from './safetensors.ts'
import type { TensorEntry } from './safetensors-header.ts'

export const weightsFile = 'model.safetensors'
const indexFile = 'model.safetensors.index.json'

export type Checkpoint = {
  folder: string
  tensors: ReadonlyMap<string, TensorEntry & { file: SafetensorsFile }> // foreign names, as stored
  files: readonly SafetensorsFile[]
}

/**
 * Opens every weight file of `folder` and reads the headers only. Close it with `closeCheckpoint`.
 * Errors: `Error` for missing weights or shards and for pickled weights, `SyntaxError` or `RangeError` for broken files.
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  if (await exists(join(folder, weightsFile))) {
    const file = await openSafetensors(join(folder, weightsFile))
    const tensors = new Map([...file.tensors].map(([name, entry]) => [name, { ...entry, file }]))
    return { folder, tensors, files: [file] }
  }
  if (await exists(join(folder, indexFile))) return openShards(folder)
  throw new Error(`Cannot open the weights of ${folder}: ${await describeAbsence(folder)}`)
}

/** Reads one tensor as it is stored. Errors: `RangeError` when the checkpoint has none of that name. */
export async function readCheckpointTensor(checkpoint: Checkpoint, name: string): Promise<StoredTensor> {
  const entry = checkpoint.tensors.get(name)
  if (entry === undefined) {
    throw new RangeError(`Cannot read tensor ${quote(name)}: the weights of ${checkpoint.folder} do not contain it`)
  }
  return readTensor(entry.file, name)
}

export async function closeCheckpoint(checkpoint: Checkpoint): Promise<void> {
  for (const file of checkpoint.files) await closeSafetensors(file)
}

async function openShards(folder: string): Promise<Checkpoint> {
  const shardOf = await readIndex(join(folder, indexFile))
  const shards = new Map<string, SafetensorsFile>()
  try {
    for (const shard of new Set(shardOf.values())) shards.set(shard, await openShard(folder, shard))
    const tensors = new Map<string, TensorEntry & { file: SafetensorsFile }>()
    for (const [name, shard] of shardOf) {
      const file = shards.get(shard)
      const entry = file?.tensors.get(name)
      if (file === undefined || entry === undefined) {
        throw new Error(
          `Cannot open the weights of ${folder}: ${indexFile} places tensor ${quote(name)} in ${shard}, which does not contain it`,
        )
      }
      tensors.set(name, { ...entry, file })
    }
    return { folder, tensors, files: [...shards.values()] }
  } catch (error) {
    for (const file of shards.values()) await closeSafetensors(file)
    throw error
  }
}

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) })

async function readIndex(path: string): Promise<Map<string, string>> {
  const result = indexSchema.safeParse(await readStrictJson(path))
  if (!result.success) throw new SyntaxError(`Cannot read ${path}: weight_map is not an object of file names`)
  const shardOf = new Map(Object.entries(result.data.weight_map))
  if (shardOf.size === 0) throw new SyntaxError(`Cannot read ${path}: weight_map is empty, expected tensor names`)
  for (const shard of shardOf.values()) {
    // A plain name only: an index from a stranger must not reach files outside the folder.
    if (!/^[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors$/.test(shard)) {
      throw new Error(
        `Cannot read ${path}: found the shard name ${quote(shard)}, expected a plain name ending in .safetensors`,
      )
    }
  }
  return shardOf
}

async function openShard(folder: string, shard: string): Promise<SafetensorsFile> {
  try {
    return await openSafetensors(join(folder, shard))
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) throw error
    throw new Error(
      `Cannot open the weights of ${folder}: ${indexFile} names ${shard}, which is missing; the download may be incomplete`,
      { cause: error },
    )
  }
}

/** Joins all shards and needs no class of the model, so that it serves every layout and a vision encoder alone. */
const conversion = [
  'import glob, torch',
  'from safetensors.torch import save_file',
  "files = [torch.load(name, map_location='cpu', weights_only=True) for name in glob.glob('pytorch_model*.bin')]",
  `save_file({key: value.clone() for file in files for key, value in file.items()}, '${weightsFile}', {'format': 'pt'})`,
].join('; ')

async function describeAbsence(folder: string): Promise<string> {
  const names = await readdir(folder)
  const pickles = names.filter((name) => /\.(bin|pt|pth)$/.test(name)).sort()
  const pickle = pickles.find((name) => name.startsWith('pytorch_model')) ?? pickles[0]
  if (pickle !== undefined) {
    return (
      `found only ${pickle}, a pickle that can run code when opened, expected ${weightsFile}; convert it in this folder with ` +
      `python -c "${conversion}"`
    )
  }
  const foreign = names.find((name) => name.endsWith('.gguf'))
  if (foreign !== undefined) {
    return `found only ${foreign}, a GGUF file of llama.cpp's, expected ${weightsFile}; use the checkpoint that it was made from`
  }
  const shard = names.find((name) => name.endsWith('.safetensors'))
  if (shard !== undefined) return `found ${shard} without its index, expected ${indexFile} beside it`
  return `expected ${weightsFile} or ${indexFile}, found neither`
}

async function exists(path: string): Promise<boolean> {
  try {
    await access(path)
    return true
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false
    throw error
  }
}
