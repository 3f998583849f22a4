/**
 * A model folder as transformers.js opens it: `onnx/vision_encoder.onnx`, `onnx/embed_tokens.onnx` and `onnx/decoder_model_merged.onnx` with their weights
 * beside them, and the config, tokenizer and preprocessing files in the form that it reads (transformers.js 4, `models/session_config.js`).
 */

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { writeFileAtomically, writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { companionFiles, readCompanionFiles } from '../checkpoint/export.ts'
import { chatTemplateOf } from '../checkpoint/export-gguf.ts'
import { loadConfig } from '../checkpoint/load.ts'
import { openWeightReader } from '../checkpoint/weight-reader.ts'
import { type LlavaConfig, toHuggingFaceConfig } from '../model/config.ts'
import { embedTokens, languageModel, logits } from '../model/language-model.ts'
import { project } from '../model/projector.ts'
import { patchFeatures } from '../model/vision-encoder.ts'
import { parameters } from '../model/weights.ts'
import { input, lastPositions, reachOfMask, type Tensor, writeOnnx } from '../tensor/index.ts'
import { filesOf, type OnnxExport, type Place, placeOf, placeWeights, writeWeights } from './onnx-weights.ts'

/** What such a folder holds, and nothing else: one with other weights is somebody's model. */
const ours: readonly string[] = ['onnx', 'config.json', ...companionFiles]

type Graphs = Readonly<Record<string, Readonly<Record<string, Tensor>>>>

/**
 * Writes the folder; an earlier export there is replaced. Weights are float32; one tensor is in memory at a time.
 * Errors: `Error` for a model with tiles, which transformers.js does not arrange, and for a folder of other things; those of `openWeightReader`.
 */
export async function exportForTransformersJs(folder: string, { from, signal, onProgress }: OnnxExport): Promise<void> {
  const config = await loadConfig(from)
  if (config.tiles !== undefined) {
    throw new Error(
      'Cannot export for transformers.js: the model looks at pictures in tiles, expected one view per picture',
    )
  }
  const graphs = graphsOf(config)
  const files = await companionsOf(from, config)
  const weights = await openWeightReader(from, config)
  try {
    const placed = Object.entries(graphs).map(([name, outputs]) => ({
      name,
      outputs,
      places: placesFor(name, outputs),
    }))
    const total = placed.reduce((sum, { places }) => sum + places.size, 0)
    let done = 0
    const onWeight = () => onProgress?.({ done: ++done, total })
    await writeFolderAtomically(
      folder,
      async (temporary) => {
        const inner = join(temporary, 'onnx')
        await mkdir(inner)
        for (const { name, outputs, places } of placed) {
          const { model } = writeOnnx(outputs, {
            parameters: 'initializers',
            name,
            files: (weight) => placeOf(places, weight),
          })
          await writeFileAtomically(join(inner, `${name}.onnx`), (handle) => writeFile(handle, model))
          await writeWeights(inner, { places, weights, signal, onWeight })
        }
        const chunks = Object.fromEntries(placed.map(({ name, places }) => [`${name}.onnx`, filesOf(places).length]))
        const described = {
          ...toHuggingFaceConfig(config),
          'transformers.js_config': { use_external_data_format: chunks, dtype: 'fp32' },
        }
        for (const [name, text] of Object.entries({ ...files, 'config.json': textOf(described) })) {
          await writeFileAtomically(join(temporary, name), (handle) => writeFile(handle, text))
        }
      },
      { mayReplace: (names) => names.includes('onnx') && names.every((name) => ours.includes(name)) },
    )
  } finally {
    await weights.close()
  }
}

/** The computations under the names that transformers.js calls them by. */
function graphsOf(config: LlavaConfig): Graphs {
  const { imageSide: S } = config.vision
  const pixels = input('pixel_values', 'float32', ['batch_size', 3, S, S])
  const ids = input('input_ids', 'int64', ['batch_size', 'sequence_length'])
  return {
    vision_encoder: { image_features: project(config, parameters, patchFeatures(config, parameters, pixels)) }, // [I, P, D]
    embed_tokens: { inputs_embeds: embedTokens(config.language, parameters, ids) }, // [B, L, D]
    decoder_model_merged: decoderGraph(config),
  }
}

/** Embeddings [B, L, D] that follow the cache → logits [B, kept, V] of the last positions, and the longer cache. */
function decoderGraph({ language }: LlavaConfig): Record<string, Tensor> {
  const { depth, width, keyValueHeads, headSize } = language
  const embeddings = input('inputs_embeds', 'float32', ['batch_size', 'sequence_length', width])
  const mask = input('attention_mask', 'int64', ['batch_size', 'total_sequence_length'])
  const kept = input('num_logits_to_keep', 'int64', [])
  const past = (kind: 'key' | 'value', block: number) =>
    input(`past_key_values.${block}.${kind}`, 'float32', [
      'batch_size',
      keyValueHeads,
      'past_sequence_length',
      headSize,
    ])
  const caches = Array.from({ length: depth }, (_, block) => ({ key: past('key', block), value: past('value', block) }))
  const context = { kind: 'cached', caches, ...reachOfMask(mask) } as const
  const result = languageModel(language, parameters, { embeddings, context })
  const present = result.caches.flatMap(({ key, value }, block) => [
    [`present.${block}.key`, key] as const,
    [`present.${block}.value`, value] as const,
  ])
  const last = lastPositions(result.hidden, kept, { name: 'kept' })
  return { logits: logits(language, parameters, last), ...Object.fromEntries(present) }
}

/** Every graph has weights of its own, in files named after it; a tied head is there twice. */
function placesFor(name: string, outputs: Readonly<Record<string, Tensor>>): Map<string, Place> {
  const { parameters: used } = writeOnnx(outputs, { parameters: 'initializers', name })
  const list = used.map(({ name: weight, shape }) => [weight, shape as readonly number[]] as const)
  const fileName = (number: number) => `${name}.onnx_data${number === 1 ? '' : `_${number - 1}`}`
  return placeWeights(list, { fileName })
}

const anyObject = z.record(z.string(), z.unknown())

/** The other files, with the chat template where transformers.js looks for it and a processor that counts the visual tokens that there are. */
async function companionsOf(from: string, config: LlavaConfig): Promise<Record<string, string>> {
  const files = await readCompanionFiles(from)
  const read = (name: string) => anyObject.parse(JSON.parse(files[name] ?? '{}'))
  const template = await chatTemplateOf(from)
  const processor = {
    image_token: '<image>',
    ...read('processor_config.json'),
    processor_class: 'LlavaProcessor',
    patch_size: config.vision.patch,
    // transformers.js adds these to the patches whichever features are selected; the encoder here gives those of the patches.
    num_additional_image_tokens: config.visualTokens - (config.vision.imageSide / config.vision.patch) ** 2,
  }
  return {
    ...files,
    'processor_config.json': textOf(processor),
    'preprocessor_config.json': textOf({ ...read('preprocessor_config.json'), processor_class: 'LlavaProcessor' }),
    'tokenizer_config.json': textOf({
      ...read('tokenizer_config.json'),
      ...(template !== undefined && { chat_template: template }),
    }),
  }
}

function textOf(json: unknown): string {
  return `${JSON.stringify(json, null, 2)}\n`
}
