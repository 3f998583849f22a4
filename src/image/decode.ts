/**
 * From a file or its bytes to RGB pixels, with sharp (libvips) as decoder only.
 *
 * Where there is a choice, the result equals Pillow's `convert('RGB')`, which the published models were trained with:
 * embedded colour profiles are ignored and CMYK turns into RGB by the plain formula. Three deliberate differences:
 * EXIF orientation is applied (people see the upright picture), transparency is laid over white instead of dropped,
 * and 16-bit grey keeps its upper 8 bits (Pillow clips it to white).
 */
import { readFile, stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import sharp, { type Metadata, type SharpOptions } from 'sharp'
import { describeBytes, type PictureFormat, pictureFormats, sniffFormat } from './format.ts'
import { type Pixels, pixels } from './pixels.ts'
import type { Size } from './tiles.ts'

/** A path, a `file:` URL, the bytes of an encoded picture, or pixels (checked and passed through). */
export type ImageSource = string | URL | Uint8Array | Pixels

export interface DecodeOptions {
  /** Largest width * height, read from the header before anything is decoded. Default 64 Mi (192 MB of RGB). */
  readonly maxPixels?: number
  /** Largest encoded size in bytes. Default 64 MiB. */
  readonly maxBytes?: number
  /** Longest time for decoding in whole seconds, 1 to 3600: a small file can ask for a lot of work. Default 30. */
  readonly maxSeconds?: number
  /** Stops waiting at once; the decoder itself ends in the background. */
  readonly signal?: AbortSignal
}

/** Why a picture was refused. Refusals of files and bytes carry one as `error.cause`; OpenAI's image error codes. */
export type ImageFault =
  | 'image_file_not_found'
  | 'invalid_image_url'
  | 'empty_image_file'
  | 'image_file_too_large'
  | 'unsupported_image_media_type'
  | 'image_too_large'
  | 'image_parse_error'

/**
 * The pixels of a picture, upright, 8-bit RGB, first frame of an animation.
 *
 * @throws Error when the file cannot be opened
 * @throws TypeError when it is not a picture of 8 or 16 bits in one of the formats JPEG, PNG, WebP, GIF, TIFF, AVIF
 * @throws RangeError when it is empty, too many bytes or too many pixels
 * @throws SyntaxError when it is truncated or damaged, or takes longer than `maxSeconds`
 */
export async function decodeImage(source: ImageSource, options: DecodeOptions = {}): Promise<Pixels> {
  const { maxPixels = 2 ** 26, maxBytes = 2 ** 26, maxSeconds = 30, signal } = options
  signal?.throwIfAborted()
  if (isPixels(source)) return pixels(source.width, source.height, source.data)
  const { bytes, name, format } = await readEncoded(source, { maxBytes, signal })
  // libvips looks at the clock between strips only, so we also stop waiting ourselves.
  const deadline = AbortSignal.timeout(maxSeconds * 1000)
  const stop = signal === undefined ? deadline : AbortSignal.any([signal, deadline])
  // The decoder's own words stay inside: they describe hostile bytes at length and help nobody.
  const refuse = (error: unknown): never => {
    signal?.throwIfAborted()
    const slow = deadline.aborted || (error instanceof Error && error.message.startsWith('timeout'))
    throw new SyntaxError(
      slow
        ? `Cannot decode ${name}: it was not done after ${maxSeconds} s, expected a simpler picture`
        : `Cannot decode ${name}: the ${format.toUpperCase()} data is truncated or damaged, expected a complete file`,
      fault('image_parse_error'),
    )
  }
  const header = await unlessAborted(sharp(bytes, decoding).metadata(), stop).catch(refuse)
  if (header.mediaType !== `image/${format}`) refuse(undefined)
  checkHeader(header, { name, maxPixels })
  const samples = await unlessAborted(decodeSamples(bytes, { header, maxSeconds }), stop).catch(refuse)
  return toRgbOverWhite(samples)
}

/**
 * Width and height of the picture that `decodeImage` would give, read from the header.
 * @throws as `decodeImage`, apart from what only the pixels would tell
 */
export async function readImageSize(source: ImageSource, options: DecodeOptions = {}): Promise<Size> {
  const { maxPixels = 2 ** 26, maxBytes = 2 ** 26, signal } = options
  if (isPixels(source)) return { width: source.width, height: source.height }
  const { bytes, name, format } = await readEncoded(source, { maxBytes, signal })
  const header = await sharp(bytes, decoding)
    .metadata()
    .catch(() => undefined)
  if (header?.mediaType !== `image/${format}`) {
    throw new SyntaxError(
      `Cannot read the size of ${name}: the header of the ${format.toUpperCase()} is damaged, expected a complete file`,
      fault('image_parse_error'),
    )
  }
  checkHeader(header, { name, maxPixels })
  return { width: header.autoOrient.width, height: header.autoOrient.height }
}

/** Pixels are limited by `checkHeader`, in our own words. */
const decoding: SharpOptions = {
  failOn: 'error',
  ignoreIcc: true,
  autoOrient: true,
  pages: 1,
  limitInputPixels: false,
}

async function readEncoded(
  source: string | URL | Uint8Array,
  { maxBytes, signal }: { maxBytes: number; signal: AbortSignal | undefined },
): Promise<{ bytes: Uint8Array; name: string; format: PictureFormat }> {
  const name = nameOf(source)
  const bytes = source instanceof Uint8Array ? source : await readPictureFile(source, { maxBytes, signal })
  checkByteCount(bytes.length, { name, maxBytes })
  return { bytes, name, format: recogniseFormat(bytes, name) }
}

function recogniseFormat(bytes: Uint8Array, name: string): PictureFormat {
  const format = sniffFormat(bytes)
  if (format !== undefined) return format
  const found = describeBytes(bytes)
  const reason = found === 'an SVG drawing' ? ', which is a program and not a picture' : ''
  throw new TypeError(
    `Cannot decode ${name}: found ${found}${reason}, expected one of ${pictureFormats.join(', ')}`,
    fault('unsupported_image_media_type'),
  )
}

function checkHeader(header: Metadata, { name, maxPixels }: { name: string; maxPixels: number }): void {
  const { width, height, depth, space } = header
  if (width * height > maxPixels) {
    throw new RangeError(
      `Cannot decode ${name}: found ${width}x${height} pixels, expected at most ${maxPixels} in all`,
      fault('image_too_large'),
    )
  }
  const bits = space === 'cmyk' ? '8 bits' : '8 or 16 bits'
  if (depth !== 'uchar' && (depth !== 'ushort' || space === 'cmyk')) {
    throw new TypeError(
      `Cannot decode ${name}: found ${space} samples of type ${depth}, expected ${bits} per channel`,
      fault('unsupported_image_media_type'),
    )
  }
}

/** What the decoder hands over: 8-bit samples `[H, W, channels]`. */
type Samples = {
  readonly width: number
  readonly height: number
  readonly channels: number
  readonly cmyk: boolean
  readonly data: Uint8Array
}

/** Throws at once, in sharp's words, when `maxSeconds` is no integer from 1 to 3600; rejects when decoding fails. */
function decodeSamples(
  bytes: Uint8Array,
  { header, maxSeconds }: { header: Metadata; maxSeconds: number },
): Promise<Samples> {
  const decoder = sharp(bytes, decoding).timeout({ seconds: maxSeconds })
  // Left alone, libvips converts CMYK through a colour profile of its own; Pillow does not.
  const cmyk = header.space === 'cmyk'
  if (cmyk) decoder.pipelineColourspace('cmyk').toColourspace('cmyk')
  return decoder
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true })
    .then(({ data: { buffer, byteOffset, length }, info: { width, height, channels } }) => {
      // A plain view: Buffers compare and slice differently.
      return { width, height, channels, cmyk, data: new Uint8Array(buffer, byteOffset, length) }
    })
}

/** [H, W, 1..5] → [H, W, 3]: grey is repeated, CMYK mixed, and a channel beyond the colours is opacity over white. */
function toRgbOverWhite({ width, height, channels, cmyk, data }: Samples): Pixels {
  const colours = cmyk ? 4 : channels < 3 ? 1 : 3
  if (colours === 3 && channels === 3) return pixels(width, height, data)
  const rgb = new Uint8Array(width * height * 3) // [H, W, 3]
  for (let from = 0, to = 0; to < rgb.length; from += channels, to += 3) {
    const opacity = channels > colours ? (data[from + colours] ?? 255) : 255
    const ink = cmyk ? 255 - (data[from + 3] ?? 0) : 255
    for (let channel = 0; channel < 3; channel++) {
      const sample = data[from + (colours === 1 ? 0 : channel)] ?? 0
      const value = cmyk ? Math.max(0, ink - Math.round((sample * ink) / 255)) : sample
      rgb[to + channel] = Math.round((value * opacity + 255 * (255 - opacity)) / 255)
    }
  }
  return pixels(width, height, rgb)
}

function isPixels(source: ImageSource): source is Pixels {
  if (typeof source === 'string' || source instanceof URL || source instanceof Uint8Array) return false
  if (typeof source === 'object' && source !== null && 'width' in source) return true
  throw new TypeError('Cannot decode the picture: expected a path, a file URL, a Uint8Array or pixels')
}

async function readPictureFile(
  source: string | URL,
  { maxBytes, signal }: { maxBytes: number; signal: AbortSignal | undefined },
): Promise<Uint8Array> {
  const name = nameOf(source)
  const path = toPath(source)
  // Asked before opening: opening a pipe would wait for a writer for ever.
  const status = await stat(path).catch((error: unknown) => {
    throw new Error(`Cannot read ${name}: ${fileTrouble(error)}`, fault('image_file_not_found'))
  })
  if (!status.isFile()) {
    const found = status.isDirectory() ? 'a folder' : 'a device or pipe'
    throw new Error(`Cannot read ${name}: it is ${found}, expected a picture file`, fault('image_file_not_found'))
  }
  checkByteCount(status.size, { name, maxBytes })
  return await readFile(path, signal === undefined ? {} : { signal }).catch((error: unknown) => {
    signal?.throwIfAborted()
    throw new Error(`Cannot read ${name}: ${fileTrouble(error)}`, fault('image_file_not_found'))
  })
}

function toPath(source: string | URL): string | URL {
  const scheme = /^(https?|data|blob|ftp|file):/i.exec(String(source))?.[1]?.toLowerCase()
  if (scheme === undefined && typeof source === 'string') return source
  try {
    if (scheme === 'file') return fileURLToPath(source)
  } catch {
    throw new TypeError(`Cannot read ${nameOf(source)}: this file URL names no local file`, fault('invalid_image_url'))
  }
  const remedy =
    scheme === 'data' ? 'decode its base64 first and pass the bytes' : 'download it first and pass the bytes'
  throw new TypeError(
    `Cannot read ${nameOf(source)}: found a URL, expected a file or bytes; ${remedy}`,
    fault('invalid_image_url'),
  )
}

function checkByteCount(count: number, { name, maxBytes }: { name: string; maxBytes: number }): void {
  if (count === 0) {
    throw new RangeError(`Cannot decode ${name}: found 0 bytes, expected a picture`, fault('empty_image_file'))
  }
  if (count > maxBytes) {
    throw new RangeError(
      `Cannot decode ${name}: found ${count} bytes, expected at most ${maxBytes}`,
      fault('image_file_too_large'),
    )
  }
}

/** Names the picture in a message; a data URI may be megabytes long. */
function nameOf(source: string | URL | Uint8Array): string {
  if (source instanceof Uint8Array) return 'the given bytes'
  const name = String(source)
  return name.length <= 200 ? name : `${name.slice(0, 60)}…`
}

function fileTrouble(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'no such file'
  if (code === 'EACCES' || code === 'EPERM') return 'permission denied'
  if (code === 'ENAMETOOLONG') return 'no file can have so long a name'
  return `the file cannot be opened (${typeof code === 'string' ? code : 'unknown reason'})`
}

function fault(cause: ImageFault): { cause: ImageFault } {
  return { cause }
}

/** The promise's result, or the signal's reason as soon as it fires. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  let stop = (): void => {}
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason)
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}
