/** Weights as float32 in files beside exported ONNX graphs, one tensor in memory at a time. */

import { join } from 'node:path'
import { writeFileAtomically } from '../checkpoint/atomic-file.ts'
import { fromFloat32 } from '../checkpoint/dtype.ts'
import { writeFully } from '../checkpoint/safetensors-writer.ts'
import type { WeightReader } from '../checkpoint/weight-reader.ts'

const alignment = 4096 // runtimes map the file by pages
const largestFile = 2 ** 30 // what a page can hold in one buffer everywhere

export type OnnxExport = {
  readonly from: string // model folder
  readonly signal?: AbortSignal | undefined
  readonly onProgress?: ((progress: { done: number; total: number }) => void) | undefined // weights
}

/** A file beside the graphs, and a stretch of it in bytes. */
export type Place = { readonly location: string; readonly offset: number; readonly length: number }

/** One place after the other, a new file before one grows too large; files are numbered from 1. */
export function placeWeights(
  list: readonly (readonly [string, readonly number[]])[],
  { fileName }: { fileName: (number: number) => string },
): Map<string, Place> {
  const places = new Map<string, Place>()
  let [file, offset] = [1, 0]
  for (const [name, shape] of list) {
    const length = 4 * shape.reduce((product, size) => product * size, 1)
    if (offset > 0 && offset + length > largestFile) [file, offset] = [file + 1, 0]
    places.set(name, { location: fileName(file), offset, length })
    offset = Math.ceil((offset + length) / alignment) * alignment
  }
  return places
}

export function placeOf(places: ReadonlyMap<string, Place>, name: string): Place {
  const place = places.get(name)
  if (place === undefined) throw new Error(`Cannot export to ONNX: weight ${name} is missing`)
  return place
}

export function filesOf(places: ReadonlyMap<string, Place>): string[] {
  return [...new Set([...places.values()].map(({ location }) => location))]
}

/** Writes the files into `folder`; `onWeight` is told after each weight. Errors: `signal.reason` when the signal fires. */
export async function writeWeights(
  folder: string,
  {
    places,
    weights,
    signal,
    onWeight,
  }: {
    places: ReadonlyMap<string, Place>
    weights: Pick<WeightReader, 'read'>
    signal: AbortSignal | undefined
    onWeight: () => void
  },
): Promise<void> {
  for (const file of filesOf(places)) {
    await writeFileAtomically(join(folder, file), async (handle) => {
      let written = 0
      for (const [name, place] of places) {
        if (place.location !== file) continue
        signal?.throwIfAborted()
        await writeFully(handle, new Uint8Array(place.offset - written))
        await writeFully(handle, fromFloat32('F32', await weights.read(name)))
        written = place.offset + place.length
        onWeight()
      }
    })
  }
}
