/**
 * A model folder as ONNX graphs for other runtimes, such as onnxruntime-web in a page: the graphs that run here, with their weights in
 * files beside them, and `llava.json` that says what goes in and comes out.
 */

import { stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomically, writeFolderAtomically } from '../checkpoint/atomic-file.ts'
import { fromFloat32 } from '../checkpoint/dtype.ts'
import { readCompanionFiles } from '../checkpoint/export.ts'
import { loadConfig } from '../checkpoint/load.ts'
import { writeFully } from '../checkpoint/safetensors-writer.ts'
import { openWeightReader, type WeightReader } from '../checkpoint/weight-reader.ts'
import { type LlavaConfig, toHuggingFaceConfig } from '../model/config.ts'
import { type GraphValue, type OnnxGraph, writeOnnx } from '../tensor/index.ts'
import { modelGraphs } from './graphs.ts'

const descriptionFile = 'llava.json'
const alignment = 4096 // runtimes map the file by pages
const largestFile = 2 ** 30 // what a page can hold in one buffer everywhere

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
export async function exportOnnx(
  folder: string,
  {
    from,
    signal,
    onProgress,
  }: {
    from: string
    signal?: AbortSignal | undefined
    onProgress?: ((progress: { done: number; total: number }) => void) | undefined
  },
): Promise<void> {
  const config = await loadConfig(from)
  const companions = await readCompanionFiles(from)
  const weights = await openWeightReader(from, config)
  try {
    const used = usedWeights(config)
    const places = placeWeights([...weights.shapes].filter(([name]) => used.has(name)))
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
        await writeWeights(temporary, { places, weights, signal, onProgress })
        const files = [...new Set([...places.values()].map(({ location }) => location))]
        const sizes = await Promise.all(
          files.map(async (file) => ({ file, bytes: (await stat(join(temporary, file))).size })),
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

/** A file beside the graphs, and a stretch of it in bytes. */
type Place = { readonly location: string; readonly offset: number; readonly length: number }

function usedWeights(config: LlavaConfig): Set<string> {
  const graphs = Object.entries(modelGraphs(config))
  const written = graphs.map(([name, outputs]) => writeOnnx(outputs, { parameters: 'initializers', name }))
  return new Set(written.flatMap(({ parameters }) => parameters.map(({ name }) => name)))
}

/** One place after the other, a new file before one grows too large. */
function placeWeights(list: readonly (readonly [string, readonly number[]])[]): Map<string, Place> {
  const places = new Map<string, Place>()
  let [file, offset] = [1, 0]
  for (const [name, shape] of list) {
    const length = 4 * shape.reduce((product, size) => product * size, 1)
    if (offset > 0 && offset + length > largestFile) [file, offset] = [file + 1, 0]
    places.set(name, { location: `weights-${file}.bin`, offset, length })
    offset = Math.ceil((offset + length) / alignment) * alignment
  }
  return places
}

function placeOf(places: ReadonlyMap<string, Place>, name: string): Place {
  const place = places.get(name)
  if (place === undefined) throw new Error(`Cannot export to ONNX: weight ${name} is missing`)
  return place
}

async function writeWeights(
  folder: string,
  {
    places,
    weights,
    signal,
    onProgress,
  }: {
    places: ReadonlyMap<string, Place>
    weights: WeightReader
    signal: AbortSignal | undefined
    onProgress: ((progress: { done: number; total: number }) => void) | undefined
  },
): Promise<void> {
  let done = 0
  for (const file of new Set([...places.values()].map(({ location }) => location))) {
    await writeFileAtomically(join(folder, file), async (handle) => {
      let written = 0
      for (const [name, place] of places) {
        if (place.location !== file) continue
        signal?.throwIfAborted()
        await writeFully(handle, new Uint8Array(place.offset - written))
        await writeFully(handle, fromFloat32('F32', await weights.read(name)))
        written = place.offset + place.length
        onProgress?.({ done: ++done, total: places.size })
      }
    })
  }
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
