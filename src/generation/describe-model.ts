/** What a model folder holds, from its config and the headers of its weights: parts, shapes, layout, template, memory. No weight is read. */

import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Dtype } from '../checkpoint/dtype.ts'
import { closeCheckpoint, openCheckpoint } from '../checkpoint/folder.ts'
import { detectLayout, isIgnored, type LayoutName } from '../checkpoint/layouts.ts'
import { loadConfig } from '../checkpoint/load.ts'
import { openWeightReader } from '../checkpoint/weight-reader.ts'
import { countUsedVisionBlocks, type LlavaConfig } from '../model/config.ts'
import { findTemplateSource, readTokenizer, type TemplateSource } from './model-folder.ts'

export const partNames = ['visionEncoder', 'projector', 'languageModel'] as const
export type PartName = (typeof partNames)[number]

/** Bits per weight of linear layers: float formats, int8 with a scale per row, int4 with a scale per 128 weights. */
export const precisions = ['float32', 'float16', 'int8', 'int4'] as const
export type Precision = (typeof precisions)[number]

export type ModelDescription = {
  readonly folder: string
  readonly layout: LayoutName | undefined
  readonly config: LlavaConfig
  readonly usedVisionBlocks: number
  readonly template: TemplateSource
  readonly vocabulary: { readonly pieces: number; readonly rows: number }
  readonly parts: Readonly<Record<PartName, Part>>
  readonly tensors: ReadonlyMap<string, readonly number[]> // by our names
  readonly stored: Readonly<Partial<Record<Dtype, { tensors: number; bytes: number }>>>
  readonly files: readonly { readonly name: string; readonly bytes: number }[]
  readonly memory: Memory
}

export type Part = {
  readonly tensors: number
  readonly parameters: number
  readonly bytes: Readonly<Record<Precision, number>>
}

export type Memory = {
  readonly context: number // tokens, text and pictures together
  readonly cacheBytes: { readonly float32: number; readonly float16: number } // of one conversation
  readonly weightBytes: Readonly<Record<Precision, number>>
}

/**
 * Describes a model folder; `context` is what the memory of the cache is told for, the model's own unless given.
 * Errors: `RangeError` for a context that the model has not, errors of `loadConfig` and `openWeightReader` for broken folders.
 */
export async function describeModel(
  folder: string,
  { context }: { context?: number | undefined } = {},
): Promise<ModelDescription> {
  const config = await loadConfig(folder)
  const tokens = context ?? config.language.context
  if (tokens > config.language.context) {
    throw new RangeError(
      `Cannot use a context of ${tokens} tokens: expected at most ${config.language.context} as in config.json`,
    )
  }
  const weights = await openWeightReader(folder, config)
  await weights.close()
  const { shapes: tensors } = weights
  const { tokenizer, tokenizerConfig } = await readTokenizer(folder)
  const { depth, keyValueHeads, headSize } = config.language
  const cached = 2 * depth * keyValueHeads * headSize * tokens // keys and values
  const parts = {
    visionEncoder: describePart('visionEncoder', tensors),
    projector: describePart('projector', tensors),
    languageModel: describePart('languageModel', tensors),
  }
  const together = (precision: Precision) => partNames.reduce((sum, part) => sum + parts[part].bytes[precision], 0)
  return {
    folder,
    ...(await describeStorage(folder)),
    config,
    usedVisionBlocks: countUsedVisionBlocks(config),
    template: await findTemplateSource(folder, { config, tokenizer, tokenizerConfig }),
    vocabulary: { pieces: tokenizer.vocabularySize, rows: config.language.vocabulary },
    parts,
    tensors,
    files: await listFiles(folder),
    memory: {
      context: tokens,
      cacheBytes: { float32: 4 * cached, float16: 2 * cached },
      weightBytes: byPrecision(together),
    },
  }
}

function describePart(part: PartName, tensors: ReadonlyMap<string, readonly number[]>): Part {
  const own = [...tensors].filter(([name]) => name.startsWith(`${part}.`))
  return {
    tensors: own.length,
    parameters: own.reduce((sum, [, shape]) => sum + productOf(shape), 0),
    bytes: byPrecision((precision) => own.reduce((sum, [name, shape]) => sum + bytesOf(name, { shape, precision }), 0)),
  }
}

/** Linear layers in the given precision; embeddings, norms, biases and the patch embedding are never below 16 bits. */
function bytesOf(name: string, { shape, precision }: { shape: readonly number[]; precision: Precision }): number {
  const count = productOf(shape)
  if (precision === 'float32') return 4 * count
  const linear = shape.length === 2 && !name.endsWith('Embedding.weight') && !name.endsWith('positionEmbedding')
  if (precision === 'float16' || !linear) return 2 * count
  const [rows = 1, width = 1] = shape
  return precision === 'int8' ? count + 4 * rows : Math.ceil(count / 2) + 4 * rows * Math.ceil(width / 128)
}

async function describeStorage(folder: string): Promise<Pick<ModelDescription, 'layout' | 'stored'>> {
  const checkpoint = await openCheckpoint(folder)
  try {
    const stored: Partial<Record<Dtype, { tensors: number; bytes: number }>> = {}
    for (const [name, { dtype, begin, end }] of checkpoint.tensors) {
      if (isIgnored(name)) continue
      const { tensors, bytes } = stored[dtype] ?? { tensors: 0, bytes: 0 }
      stored[dtype] = { tensors: tensors + 1, bytes: bytes + end - begin }
    }
    return { layout: detectLayout(checkpoint.tensors.keys()), stored }
  } finally {
    await closeCheckpoint(checkpoint)
  }
}

async function listFiles(folder: string): Promise<{ name: string; bytes: number }[]> {
  const names = (await readdir(folder)).sort()
  const files = await Promise.all(names.map(async (name) => ({ name, status: await stat(join(folder, name)) })))
  return files.filter(({ status }) => status.isFile()).map(({ name, status }) => ({ name, bytes: status.size }))
}

function byPrecision(bytes: (precision: Precision) => number): Record<Precision, number> {
  return { float32: bytes('float32'), float16: bytes('float16'), int8: bytes('int8'), int4: bytes('int4') }
}

function productOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}
