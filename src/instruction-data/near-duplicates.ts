/** Texts and pictures that say the same with small changes: MinHash over pieces of text (Broder 1997), a hash of brightness steps for pictures. */

import type { Pixels } from '../image/pixels.ts'

/** Numbers of a signature; the estimated similarity is right to about ±0.06 (one standard deviation). */
const signatureLength = 64
/** Texts that agree in all four numbers of some band are compared: so nearly all pairs above a similarity of 0.7 are. */
const bandLength = 4
const pieceLength = 5 // letters

export type NearDuplicates<T> = {
  /** The index of an earlier item that nearly equals this one, or undefined when it is new; new ones are remembered. */
  readonly find: (item: T) => number | undefined
}

/** Finds texts whose pieces of five letters overlap by at least `similarity` (Jaccard, estimated). Memory: about half a kilobyte a text. */
export function nearDuplicateTexts({ similarity }: { similarity: number }): NearDuplicates<string> {
  if (!(similarity > 0 && similarity <= 1)) {
    throw new RangeError(
      `Cannot look for near-duplicates: found similarity ${similarity}, expected a share above 0 up to 1`,
    )
  }
  const signatures: Uint32Array[] = []
  const bands = new Map<string, number[]>()
  return {
    find: (text) => {
      const signature = signatureOf(text)
      const keys = bandKeys(signature)
      const candidates = new Set(keys.flatMap((key) => bands.get(key) ?? []))
      for (const index of candidates) {
        if (similarityOf(signature, signatures[index] as Uint32Array) >= similarity) return index
      }
      const index = signatures.push(signature) - 1
      for (const key of keys) {
        const found = bands.get(key)
        if (found === undefined) bands.set(key, [index])
        else found.push(index)
      }
      return undefined
    },
  }
}

/** The share of pieces that two texts have in common: the slow twin of the signatures. */
export function jaccard(one: string, other: string): number {
  const [first, second] = [new Set(piecesOf(one)), new Set(piecesOf(other))]
  const common = [...first].filter((piece) => second.has(piece)).length
  return common / (first.size + second.size - common)
}

/** The least value of each of 64 hash functions over all pieces. */
export function signatureOf(text: string): Uint32Array {
  const signature = new Uint32Array(signatureLength).fill(0xffffffff)
  for (const piece of piecesOf(text)) {
    const hash = hashText(piece)
    for (let index = 0; index < signatureLength; index++) {
      const value = mix(hash ^ Math.imul(index + 1, 0x9e3779b1))
      if (value < (signature[index] as number)) signature[index] = value
    }
  }
  return signature
}

export function similarityOf(one: Uint32Array, other: Uint32Array): number {
  let equal = 0
  for (const [index, value] of one.entries()) if (value === other[index]) equal += 1
  return equal / one.length
}

function bandKeys(signature: Uint32Array): string[] {
  return Array.from({ length: signatureLength / bandLength }, (_, band) => {
    return `${band} ${signature.subarray(band * bandLength, (band + 1) * bandLength).join(' ')}`
  })
}

function piecesOf(text: string): string[] {
  const plain = text
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim()
  if (plain.length <= pieceLength) return [plain]
  return Array.from({ length: plain.length - pieceLength + 1 }, (_, at) => plain.slice(at, at + pieceLength))
}

const [columns, rows] = [9, 8]

/** 64 bits, as a BigInt: whether each of 9 x 8 fields of a picture is brighter than its right neighbour ("difference hash"). */
export function pictureHash({ width, height, data }: Pixels): bigint {
  const fields = Array.from({ length: rows }, (_, row) =>
    Array.from({ length: columns }, (_, column) => {
      const [top, bottom] = [
        Math.floor((row * height) / rows),
        Math.max(Math.floor(((row + 1) * height) / rows), Math.floor((row * height) / rows) + 1),
      ]
      const [left, right] = [
        Math.floor((column * width) / columns),
        Math.max(Math.floor(((column + 1) * width) / columns), Math.floor((column * width) / columns) + 1),
      ]
      let sum = 0
      for (let y = top; y < Math.min(bottom, height); y++) {
        for (let at = (y * width + left) * 3; at < (y * width + Math.min(right, width)) * 3; at += 3) {
          sum += 299 * (data[at] as number) + 587 * (data[at + 1] as number) + 114 * (data[at + 2] as number)
        }
      }
      return sum / ((Math.min(bottom, height) - top) * (Math.min(right, width) - left))
    }),
  )
  let bits = 0n
  for (const row of fields) {
    for (let column = 0; column + 1 < columns; column++) {
      bits = (bits << 1n) | ((row[column] as number) > (row[column + 1] as number) ? 1n : 0n)
    }
  }
  return bits
}

/** Finds pictures whose hashes differ in at most `distance` of 64 bits, 0 to 7. */
export function nearDuplicatePictures({ distance }: { distance: number }): NearDuplicates<bigint> {
  if (!Number.isInteger(distance) || distance < 0 || distance > 7) {
    throw new RangeError(
      `Cannot look for near-duplicates: found distance ${distance}, expected a whole number from 0 to 7`,
    )
  }
  const hashes: bigint[] = []
  const bytes = new Map<number, number[]>() // two hashes that differ in seven bits at most share at least one of their eight bytes
  return {
    find: (hash) => {
      const keys = Array.from({ length: 8 }, (_, index) => index * 256 + Number((hash >> BigInt(8 * index)) & 0xffn))
      for (const index of new Set(keys.flatMap((key) => bytes.get(key) ?? []))) {
        if (bitsSet(hash ^ (hashes[index] as bigint)) <= distance) return index
      }
      const index = hashes.push(hash) - 1
      for (const key of keys) {
        const found = bytes.get(key)
        if (found === undefined) bytes.set(key, [index])
        else found.push(index)
      }
      return undefined
    },
  }
}

function bitsSet(value: bigint): number {
  let count = 0
  for (let rest = value; rest > 0n; rest &= rest - 1n) count += 1
  return count
}

/** FNV-1a. */
function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193)
  return hash
}

/** The final mix of MurmurHash3. */
function mix(value: number): number {
  let hash = Math.imul(value ^ (value >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
