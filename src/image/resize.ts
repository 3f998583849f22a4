/**
 * Resizing exactly as Pillow's `Image.resize` does it on 8-bit RGB, to the last bit.
 *
 * The published vision encoders were trained on pictures that Pillow shrank, so a resize that is merely similar feeds
 * them slightly different pixels. What makes Pillow's result its own: the filter widens with the shrinking factor
 * (no aliasing), its weights are rounded to 22 fractional bits, and the horizontal pass is rounded back to bytes
 * before the vertical pass starts. Plain typed arrays, no imports from Node: a browser page uses the same file.
 */
import { filledPixels, type Pixels } from './pixels.ts'

export type Filter = 'nearest' | 'bilinear' | 'bicubic' | 'lanczos'

export interface ResizeOptions {
  /** Width of the result in pixels. */
  readonly width: number
  /** Height of the result in pixels. */
  readonly height: number
  readonly filter: Filter
}

/**
 * A picture `[H, W, 3]` at the size asked for. A side that keeps its length is not filtered at all; when both do, the
 * picture itself is returned.
 *
 * @throws RangeError when a side is not a positive integer or the result would exceed `maxPixelCount`
 */
export function resize(picture: Pixels, { width, height, filter }: ResizeOptions): Pixels {
  if (width === picture.width && height === picture.height) return picture
  const result = filledPixels(width, height)
  if (filter === 'nearest') {
    pickNearest(picture, result)
    return result
  }
  const kernel = kernels[filter]
  if (width === picture.width) {
    resizeColumns(picture, result, kernel)
    return result
  }
  if (height === picture.height) {
    resizeRows(picture, result, kernel)
    return result
  }
  const widened = filledPixels(width, picture.height)
  resizeRows(picture, widened, kernel)
  resizeColumns(widened, result, kernel)
  return result
}

/** A filter curve, zero beyond `reach` source pixels (at scale 1) from its centre. */
type Kernel = { readonly reach: number; readonly weight: (distance: number) => number }

const kernels: Readonly<Record<Exclude<Filter, 'nearest'>, Kernel>> = {
  bilinear: { reach: 1, weight: triangle },
  bicubic: { reach: 2, weight: cubic },
  lanczos: { reach: 3, weight: lanczos3 },
}

function triangle(distance: number): number {
  return Math.max(0, 1 - Math.abs(distance))
}

/** Keys' cubic convolution with a = -0.5, the value Pillow uses (many other libraries take -0.75). */
function cubic(distance: number): number {
  const a = -0.5
  const d = Math.abs(distance)
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * a
  return 0
}

function lanczos3(distance: number): number {
  return distance >= -3 && distance < 3 ? sinc(distance) * sinc(distance / 3) : 0
}

function sinc(x: number): number {
  if (x === 0) return 1
  const angle = x * Math.PI
  return Math.sin(angle) / angle
}

/** 8 bits hold the value and 2 leave room for overshoot, which leaves 22 of 32 for the fraction. */
const fractionBits = 32 - 8 - 2
const one = 2 ** fractionBits
const half = 2 ** (fractionBits - 1)

/** For each output position: which input positions it reads and with which fixed-point weights. */
type Taps = {
  readonly first: Int32Array // [out]
  readonly count: Int32Array // [out]
  readonly weights: Int32Array // [out, stride], the first `count` of each row are used
  readonly stride: number
}

function computeTaps(inputSize: number, outputSize: number, kernel: Kernel): Taps {
  const scale = inputSize / outputSize
  const stretch = Math.max(scale, 1) // enlarging keeps the curve as it is, shrinking widens it
  const reach = kernel.reach * stretch
  const stride = Math.ceil(reach) * 2 + 1
  const first = new Int32Array(outputSize)
  const count = new Int32Array(outputSize)
  const weights = new Int32Array(outputSize * stride) // [out, stride]
  const exact = new Float64Array(stride)

  for (let output = 0; output < outputSize; output++) {
    const centre = (output + 0.5) * scale
    const from = Math.max(0, Math.trunc(centre - reach + 0.5))
    const to = Math.min(inputSize, Math.trunc(centre + reach + 0.5))
    let sum = 0
    for (let input = from; input < to; input++) {
      // Multiplying by the reciprocal, not dividing: the last bit of the weight follows Pillow.
      const weight = kernel.weight((input - centre + 0.5) * (1 / stretch))
      exact[input - from] = weight
      sum += weight
    }
    first[output] = from
    count[output] = to - from
    for (let tap = 0; tap < to - from; tap++) {
      const share = (exact[tap] ?? 0) / (sum === 0 ? 1 : sum)
      weights[output * stride + tap] = Math.trunc(share * one + (share < 0 ? -0.5 : 0.5))
    }
  }
  return { first, count, weights, stride }
}

/** [H, W, 3] → [H, W', 3]. The `?? 0` never fires: it only tells the compiler that the index is inside. */
function resizeRows(source: Pixels, target: Pixels, kernel: Kernel): void {
  const { first, count, weights, stride } = computeTaps(source.width, target.width, kernel)
  const { data } = source
  let to = 0
  for (let y = 0; y < target.height; y++) {
    const row = y * source.width
    for (let x = 0; x < target.width; x++) {
      let from = (row + (first[x] ?? 0)) * 3
      let red = half
      let green = half
      let blue = half
      const start = x * stride
      const end = start + (count[x] ?? 0)
      for (let tap = start; tap < end; tap++) {
        const weight = weights[tap] ?? 0
        red += (data[from] ?? 0) * weight
        green += (data[from + 1] ?? 0) * weight
        blue += (data[from + 2] ?? 0) * weight
        from += 3
      }
      target.data[to] = toByte(red)
      target.data[to + 1] = toByte(green)
      target.data[to + 2] = toByte(blue)
      to += 3
    }
  }
}

/** [H, W, 3] → [H', W, 3], one output row at a time so that memory is read in order. */
function resizeColumns(source: Pixels, target: Pixels, kernel: Kernel): void {
  const { first, count, weights, stride } = computeTaps(source.height, target.height, kernel)
  const { data } = source
  const rowBytes = source.width * 3
  const sums = new Int32Array(rowBytes)
  for (let y = 0; y < target.height; y++) {
    sums.fill(half)
    for (let tap = 0; tap < (count[y] ?? 0); tap++) {
      const weight = weights[y * stride + tap] ?? 0
      const from = ((first[y] ?? 0) + tap) * rowBytes
      for (let i = 0; i < rowBytes; i++) sums[i] = (sums[i] ?? 0) + (data[from + i] ?? 0) * weight
    }
    const to = y * rowBytes
    for (let i = 0; i < rowBytes; i++) target.data[to + i] = toByte(sums[i] ?? 0)
  }
}

function toByte(fixedPoint: number): number {
  return Math.min(255, Math.max(0, fixedPoint >> fractionBits))
}

function pickNearest(source: Pixels, target: Pixels): void {
  const columns = nearestPositions(source.width, target.width)
  const rows = nearestPositions(source.height, target.height)
  let to = 0
  for (const row of rows) {
    for (const column of columns) {
      const from = (row * source.width + column) * 3
      target.data[to] = source.data[from] ?? 0
      target.data[to + 1] = source.data[from + 1] ?? 0
      target.data[to + 2] = source.data[from + 2] ?? 0
      to += 3
    }
  }
}

/** Steps are added up, not multiplied out, because Pillow does so and the rounding errors decide near an edge. */
function nearestPositions(inputSize: number, outputSize: number): Int32Array {
  const positions = new Int32Array(outputSize)
  const step = inputSize / outputSize
  let position = step * 0.5
  for (let output = 0; output < outputSize; output++) {
    positions[output] = Math.min(Math.trunc(position), inputSize - 1)
    position += step
  }
  return positions
}
