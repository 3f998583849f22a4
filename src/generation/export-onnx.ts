/**
 * A model folder as ONNX graphs for other runtimes, such as onnxruntime-web in a page: the graphs that run here, with their weights in
 * files beside them, and `llava.json` that says what goes in and comes out.
 */

import { stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomically, writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { readCompanionFiles } from '../checkpoint/export.ts'
import { loadConfig } from '../checkpoint/load.ts'
import { openWeightReader } from '../checkpoint/weight-reader.ts'
import { type LlavaConfig, toHuggingFaceConfig } from '../model/config.ts'
import { type GraphValue, type OnnxGraph, writeOnnx } from '../tensor/index.ts'
import { modelGraphs } from './graphs.ts'
import { filesOf, type OnnxExport, placeOf, placeWeights, writeWeights } from './onnx-weights.ts'

const descriptionFile = 'llava.json'

const purposes: Readonly<Record<string, string>> = {
  encode: 'pixels of I pictures or tiles, prepared as preprocessor_config.json says, to visual tokens',
  arrange:
    'visual tokens of the J views of one picture to its M visual tokens: each the sum of K rows, taken from all views and the newline, times their shares',
  language:
    'L token ids that follow lastIndex + 1 − L others, visual tokens at their places (row · L + position), to logits of what follows position lastRows (row · L + L − 1) and the longer cache: a prompt with its pictures, then one token per row (L is 1) without any',
}

/** Notes for whoever runs the graphs: what the shapes alone do not say. */
const conventions = {
  cache:
    'inputs key.N and value.N hold capacity positions, of which the first lastIndex + 1 − L count; feed next:key.N and next:value.N to the next call. Begin with zeros, or with capacity 0',
  lastIndex: 'per row, the position of the last token given (int32)',
  total: 'the largest lastIndex + 1 (int32 scalar); at most capacity where inputs and outputs share memory',
  ids: 'an id of image_token_index per visual token marks where pictures stand',
} as const

/**
 * Writes encode.onnx, arrange.onnx where there are tiles, language.onnx, their weights as float32 in weights-N.bin, llava.json and the tokenizer, template and
 * preprocessing files into a new folder; an earlier export there is replaced. One tensor is in memory at a time.
 * Errors: `Error` for a folder of other things, those of `openWeightReader`.
 */
export async function exportOnnx(folder: string, { from, signal, onProgress }: OnnxExport): Promise<void> {
  const config = await loadConfig(from)
  const companions = await readCompanionFiles(from)
  const weights = await openWeightReader(from, config)
  try {
    const used = usedWeights(config)
    const places = placeWeights(
      [...weights.shapes].filter(([name]) => used.has(name)),
      { fileName: (number) => `weights-${number}.bin` },
    )
    const place = (name: string) => placeOf(places, name)
    await writeFolderAtomically(
      folder,
      async (temporary) => {
        const described: Record<string, ReturnType<typeof describe>> = {}
        for (const [name, outputs] of Object.entries(modelGraphs(config))) {
          const graph = writeOnnx(outputs, { parameters: 'initializers', name, files: place })
          await writeText(join(temporary, `${name}.onnx`), graph.model)
          described[name] = describe(name, graph)
        }
        let done = 0
        const onWeight = () => onProgress?.({ done: ++done, total: places.size })
        await writeWeights(temporary, { places, weights, signal, onWeight })
        const sizes = await Promise.all(
          filesOf(places).map(async (file) => ({ file, bytes: (await stat(join(temporary, file))).size })),
        )
        const description = {
          format: 'llava-ts/onnx',
          version: 1,
          operators: 'ONNX 21 and com.microsoft 1 (ONNX Runtime)',
          graphs: described,
          weights: sizes,
          conventions,
          config: toHuggingFaceConfig(config),
          files: Object.keys(companions),
        }
        await writeText(join(temporary, descriptionFile), `${JSON.stringify(description, null, 2)}\n`)
        for (const [name, text] of Object.entries(companions)) await writeText(join(temporary, name), text)
      },
      { mayReplace: (names) => names.includes(descriptionFile) },
    )
  } finally {
    await weights.close()
  }
}

function usedWeights(config: LlavaConfig): Set<string> {
  const graphs = Object.entries(modelGraphs(config))
  const written = graphs.map(([name, outputs]) => writeOnnx(outputs, { parameters: 'initializers', name }))
  return new Set(written.flatMap(({ parameters }) => parameters.map(({ name }) => name)))
}

function describe(name: string, { inputs, outputs }: OnnxGraph) {
  const value = ({ name, dtype, shape }: GraphValue) => ({ name, dtype, shape })
  return {
    file: `${name}.onnx`,
    purpose: purposes[name],
    inputs: inputs.map(value),
    outputs: outputs.map(value),
  }
}

async function writeText(path: string, content: string | Uint8Array): Promise<void> {
  await writeFileAtomically(path, (handle) => writeFile(handle, content))
}
