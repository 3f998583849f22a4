/** A model folder as two GGUF files for llama.cpp: the language model, and beside it vision encoder and projector ("mmproj"). */

import { readFile } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { z } from 'zod'
import type { ImageProcessorConfig } from '../image/processor-config.ts'
import { hasCode, writeFolderAtomically } from './atomic-file.ts'
import { languageMetadata, languageTensors } from './gguf-language.ts'
import type { GgufDtype } from './gguf-numbers.ts'
import { ggufTokenizer } from './gguf-tokenizer.ts'
import { visionMetadata, visionTensors } from './gguf-vision.ts'
import { writeGguf } from './gguf-writer.ts'
import { readStrictJson } from './json.ts'
import { loadConfig, loadImageProcessor } from './load.ts'
import { openWeightReader } from './weight-reader.ts'

export type GgufExport = {
  from: string // model folder
  dtype: GgufDtype // of the language model
  visionDtype?: GgufDtype | undefined // of vision encoder and projector; as the language model, but float16 beside Q4_0
  signal?: AbortSignal | undefined
  onProgress?: ((progress: { done: number; total: number }) => void) | undefined // tensors
}

/**
 * Writes `NAME-f16.gguf` and `mmproj-NAME-f16.gguf` into a new folder; an earlier export there is replaced. One tensor is in memory at a time.
 * `tiles` tells that the model looks at tiles, which llama.cpp does in its own way (gguf-vision.ts). Errors: `Error` for a model that llama.cpp cannot express and for a folder of other things; errors of `openWeightReader`.
 */
export async function exportGguf(
  folder: string,
  { from, dtype, visionDtype = dtype === 'Q4_0' ? 'F16' : dtype, signal, onProgress }: GgufExport,
): Promise<{ model: string; mmproj: string; tiles: boolean }> {
  const config = await loadConfig(from)
  const name = basename(resolve(from))
  const stem = name.replace(/[^A-Za-z0-9._-]/g, '-')
  const files = {
    model: `${stem}-${dtype.toLowerCase()}.gguf`,
    mmproj: `mmproj-${stem}-${visionDtype.toLowerCase()}.gguf`,
  }
  const tokenizer = ggufTokenizer({
    tokenizerJson: await readStrictJson(join(from, 'tokenizer.json')),
    tokenizerConfig: await readOptionalJson(join(from, 'tokenizer_config.json')),
    language: config.language,
    chatTemplate: await chatTemplateOf(from),
  })
  const processor = await loadImageProcessor(from)
  const language = { ...languageMetadata(config.language, { name, dtype }), ...tokenizer }
  const vision = visionMetadata(config, { name: `${name} (vision)`, dtype: visionDtype, ...colours(processor) })
  const weights = await openWeightReader(from, config)
  try {
    const parts = {
      model: { metadata: language, tensors: languageTensors(config.language, { weights, dtype }) },
      mmproj: { metadata: vision, tensors: visionTensors(config, { weights, dtype: visionDtype }) },
    }
    const total = parts.model.tensors.length + parts.mmproj.tensors.length
    let done = 0
    const onTensor = () => onProgress?.({ done: ++done, total })
    await writeFolderAtomically(
      folder,
      async (temporary) => {
        for (const part of ['mmproj', 'model'] as const) {
          await writeGguf(join(temporary, files[part]), { ...parts[part], signal, onTensor })
        }
      },
      { mayReplace: (names) => names.every((name) => name.endsWith('.gguf')) },
    )
  } finally {
    await weights.close()
  }
  return { model: join(folder, files.model), mmproj: join(folder, files.mmproj), tiles: config.tiles !== undefined }
}

/** llama.cpp computes (byte/255 − mean)/std: mean and std of a processor in that form. */
function colours({ normalize, mean, std, rescaleFactor = 1 }: ImageProcessorConfig) {
  const inBytes = 1 / (255 * rescaleFactor)
  const given = (values: readonly number[] | undefined, fallback: number) =>
    (normalize && values !== undefined ? [...values] : [fallback, fallback, fallback]).map((value) => value * inBytes)
  return { mean: given(mean, 0), std: given(std, 1) }
}

const templateField = z.looseObject({ chat_template: z.unknown().optional() })

/** The Jinja text that other programs render: in a file of its own or in a config. */
async function chatTemplateOf(folder: string): Promise<string | undefined> {
  const own = await readFile(join(folder, 'chat_template.jinja'), 'utf8').catch((error) => {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  })
  if (own !== undefined) return withoutMarks(own)
  for (const file of ['tokenizer_config.json', 'chat_template.json']) {
    const { data } = templateField.safeParse(await readOptionalJson(join(folder, file)))
    if (typeof data?.chat_template === 'string') return withoutMarks(data.chat_template)
  }
  return undefined
}

/** Marks of what carries loss are an extension of transformers; elsewhere they are an error. */
function withoutMarks(template: string): string {
  return template.replace(/(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})/g, (_, open, end, close) =>
    end === undefined ? `${open}if true${close}` : `${open}endif${close}`,
  )
}

async function readOptionalJson(path: string): Promise<unknown> {
  try {
    return await readStrictJson(path)
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return undefined
    throw error
  }
}
