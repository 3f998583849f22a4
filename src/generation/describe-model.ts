/** What a model folder holds, from its config and the headers of its weights: parts, shapes, layout, template, memory. No weight is read. */

import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import type { Dtype } from '../checkpoint/dtype.ts'
import { closeCheckpoint, openCheckpoint } from '../checkpoint/folder.ts'
import { detectLayout, isIgnored, type LayoutName } from '../checkpoint/layouts.ts'
import { loadConfig } from '../checkpoint/load.ts'
import { openWeightReader } from '../checkpoint/weight-reader.ts'
import { countUsedVisionBlocks, type LlavaConfig } from '../model/config.ts'
import { cacheBytesPerToken } from './kv-cache.ts'
import { findTemplateSource, readTokenizer, type TemplateSource } from './model-folder.ts'
import { bytesOfWeight, type Precision, precisions } from './precision.ts'

export const partNames = ['visionEncoder', 'projector', 'languageModel'] as const
export type PartName = (typeof partNames)[number]

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
      cacheBytes: {
        float32: tokens * cacheBytesPerToken(config.language, 'float32'),
        float16: tokens * cacheBytesPerToken(config.language, 'float16'),
      },
      weightBytes: byPrecision(together),
    },
  }
}

function describePart(part: PartName, tensors: ReadonlyMap<string, readonly number[]>): Part {
  const own = [...tensors].filter(([name]) => name.startsWith(`${part}.`))
  return {
    tensors: own.length,
    parameters: own.reduce((sum, [, shape]) => sum + productOf(shape), 0),
    bytes: byPrecision((precision) =>
      own.reduce((sum, [name, shape]) => sum + bytesOfWeight({ name, shape }, precision), 0),
    ),
  }
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
  return Object.fromEntries(precisions.map((precision) => [precision, bytes(precision)])) as Record<Precision, number>
}

function productOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1)
}
