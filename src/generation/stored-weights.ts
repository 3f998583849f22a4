/**
 * Weights in the forms that a precision asks for: made from a checkpoint a few rows at a time, into memory or into one file that ONNX Runtime maps.
 */

import { type FileHandle, open } from 'node:fs/promises'
import { optionalTensors } from '../checkpoint/layouts.ts'
import { closeWeights, openWeights, readWeightRows, type Weights } from '../checkpoint/load.ts'
import { entryOf } from '../checkpoint/places.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { Device } from '../runtime/device.ts'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import type { FilePart } from '../runtime/session.ts'
import { formsOf, type Precision } from './precision.ts'
import { bytesOfPart, formWriter, type PartBytes, partsOf, type WeightPart } from './weight-forms.ts'

/** Parameters of the graphs by name: in memory, or a stretch of a file. */
export type SuppliedWeights = ReadonlyMap<string, ResidentTensor | FilePart>

/** Weights whose rows can be read in any order, a few at a time. */
export type WeightReader = {
  readonly shapes: ReadonlyMap<string, readonly number[]>
  read(name: string, rows: { from: number; to: number }): Promise<Float32Array>
}

export type ConversionOptions = {
  readonly precision: Precision
  /** Where the weights are for; the CPU when left out. */
  readonly device?: Device | undefined
  readonly signal?: AbortSignal | undefined
  /** Called after each piece, with the numbers that are done and all that there are. */
  readonly onProgress?: ((progress: { done: number; all: number }) => void) | undefined
}

/** Numbers in memory at a time: 32 MB of float32. */
const piece = 8 * 1024 * 1024

/** Where a part may begin in a file: a page, so that parts can be mapped apart from one another. */
const pageBytes = 4096

/** A reader over weights that are in memory. */
export function readerOf(weights: Weights): WeightReader {
  return {
    shapes: new Map([...weights].map(([name, { shape }]) => [name, shape])),
    async read(name, { from, to }) {
      const weight = weights.get(name)
      if (weight === undefined) throw new RangeError(`Cannot read weight ${name}: there is none of that name`)
      const row = weight.data.length / Math.max(1, weight.shape[0] ?? 1)
      return weight.data.subarray(from * row, to * row)
    },
  }
}

/** Runs `use` with a reader over the weight files of a folder. Errors: those of `openWeights`. */
export async function withFolderReader<T>(
  { folder, config }: { folder: string; config: LlavaConfig },
  use: (reader: WeightReader) => Promise<T>,
): Promise<T> {
  const opened = await openWeights(folder, config)
  try {
    const shapes = new Map([...opened.places].map(([ours, place]) => [ours, entryOf(place).shape]))
    return await use({ shapes, read: (name, rows) => readWeightRows(opened, name, rows) })
  } finally {
    await closeWeights(opened)
  }
}

/** The weights in memory. Errors: those of reading, `signal.reason` when the signal fires. */
export async function convertInMemory(
  config: LlavaConfig,
  reader: WeightReader,
  options: ConversionOptions,
): Promise<SuppliedWeights> {
  const tensors = new Map<string, ResidentTensor>()
  await convert(config, reader, {
    ...options,
    async write({ part, at, bytes }) {
      let tensor = tensors.get(part.name)
      if (tensor === undefined) {
        tensor = residentTensor(part.dtype, part.shape)
        tensors.set(part.name, tensor)
      }
      const { buffer, byteOffset } = tensor.data
      new Uint8Array(buffer, byteOffset + at, bytes.byteLength).set(bytes)
    },
  })
  return tensors
}

/** A part's place in a file. */
export type PlacedPart = WeightPart & { readonly offset: number; readonly bytes: number }

/** Where each part will lie in a file, each at the beginning of a page. */
export function placeParts(
  config: LlavaConfig,
  reader: Pick<WeightReader, 'shapes'>,
  { precision, device }: Pick<ConversionOptions, 'precision' | 'device'>,
): PlacedPart[] {
  let offset = 0
  return weightsToConvert(config, reader).flatMap((weight) =>
    formsOf(weight, precision, { device })
      .flatMap((form) => partsOf(weight, form))
      .map((part) => {
        const placed = { ...part, offset, bytes: bytesOfPart(part) }
        offset += Math.ceil(placed.bytes / pageBytes) * pageBytes
        return placed
      }),
  )
}

/** Writes the weights into an open file at the places given. Errors: those of reading and writing, `signal.reason`. */
export async function convertIntoFile(
  config: LlavaConfig,
  reader: WeightReader,
  options: ConversionOptions & { handle: FileHandle; parts: readonly PlacedPart[] },
): Promise<void> {
  const offsets = new Map(options.parts.map(({ name, offset }) => [name, offset]))
  await convert(config, reader, {
    ...options,
    async write({ part, at, bytes }) {
      const start = (offsets.get(part.name) ?? 0) + at
      for (let done = 0; done < bytes.byteLength; ) {
        const { bytesWritten } = await options.handle.write(bytes, done, bytes.byteLength - done, start + done)
        done += bytesWritten
      }
    },
  })
  const end = options.parts.reduce((last, { offset, bytes }) => Math.max(last, offset + bytes), 0)
  await options.handle.truncate(end)
}

/** The parts of a file that was written before. */
export async function suppliedFrom(path: string, parts: readonly PlacedPart[]): Promise<SuppliedWeights> {
  const handle = await open(path)
  try {
    const { size } = await handle.stat()
    const end = parts.reduce((last, { offset, bytes }) => Math.max(last, offset + bytes), 0)
    if (size !== end) throw new RangeError(`Cannot use ${path}: it has ${size} bytes, expected ${end}`)
  } finally {
    await handle.close()
  }
  return new Map(parts.map(({ name, dtype, shape, offset, bytes }) => [name, { path, dtype, shape, offset, bytes }]))
}

async function convert(
  config: LlavaConfig,
  reader: WeightReader,
  options: ConversionOptions & { write: (bytes: PartBytes) => Promise<void> },
): Promise<void> {
  const { precision, device, signal, onProgress, write } = options
  const weights = weightsToConvert(config, reader)
  const sizeOf = (shape: readonly number[]) => shape.reduce((product, size) => product * size, 1)
  const all = weights.reduce((sum, { shape }) => sum + sizeOf(shape), 0)
  let done = 0
  for (const weight of weights) {
    const writers = formsOf(weight, precision, { device }).map((form) => formWriter(weight, form))
    const [rows = 1] = weight.shape
    const perRow = sizeOf(weight.shape.slice(1))
    const step = Math.max(1, Math.floor(piece / perRow))
    for (let from = 0; from < rows; from += step) {
      signal?.throwIfAborted()
      const numbers = await reader.read(weight.name, { from, to: Math.min(from + step, rows) })
      for (const writer of writers) for (const bytes of writer.rows(numbers)) await write(bytes)
      done += numbers.length
      onProgress?.({ done, all })
    }
    for (const writer of writers) for (const bytes of writer.end()) await write(bytes)
  }
}

/** What the graphs use of what is there. */
function weightsToConvert(config: LlavaConfig, { shapes }: Pick<WeightReader, 'shapes'>) {
  const unused = optionalTensors(config)
  return [...shapes].flatMap(([name, shape]) => (unused.has(name) ? [] : [{ name, shape }]))
}
