import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { crc32, deflateSync } from 'node:zlib'
import sharp from 'sharp'
import { afterAll, describe, expect, test } from 'vitest'
import { decodeImage, type ImageFault, type ImageSource, readImageSize } from './decode.ts'
import { encodePng } from './encode.ts'
import { filledPixels, pixels } from './pixels.ts'

const media = 'unsupported_image_media_type'
const parse = 'image_parse_error'
const fixtures = fileURLToPath(new URL('../../fixtures/image/', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'llava-image-'))
afterAll(() => rmSync(folder, { recursive: true }))

type Golden = { width: number; height: number; tolerance: number; rgb: string }
const goldens: Record<string, Golden> = JSON.parse(readFileSync(join(fixtures, 'decode.json'), 'utf8')).cases

describe('decodeImage gives the pixels that Pillow gives', () => {
  test.each(Object.keys(goldens))('%s', async (name) => {
    const golden = goldens[name]!
    const picture = await decodeImage(join(fixtures, name))
    expect([picture.width, picture.height]).toEqual([golden.width, golden.height])
    const expected = Buffer.from(golden.rgb, 'base64')
    expect(picture.data.length).toBe(expected.length)
    let worst = 0
    for (const [i, value] of picture.data.entries()) worst = Math.max(worst, Math.abs(value - expected[i]!))
    expect(worst).toBeLessThanOrEqual(golden.tolerance)
  })
})

describe('decodeImage', () => {
  test('reads a path, a file URL, bytes and a part of a larger buffer alike', async () => {
    const path = join(fixtures, 'rgba.png')
    const bytes = readFileSync(path)
    const padded = Uint8Array.from([1, 2, 3, ...bytes, 4, 5]).subarray(3, 3 + bytes.length)
    const expected = await decodeImage(path)
    for (const source of [pathToFileURL(path), pathToFileURL(path).href, bytes, padded]) {
      expect(await decodeImage(source)).toEqual(expected)
    }
  })

  test('passes pixels through, checked', async () => {
    const picture = filledPixels(3, 2, [1, 2, 3])
    expect(await decodeImage(picture)).toEqual(picture)
    await expect(decodeImage({ width: 3, height: 3, data: picture.data })).rejects.toThrow(RangeError)
  })

  test('gives back what encodePng wrote', async () => {
    const picture = pixels(
      5,
      3,
      Uint8Array.from({ length: 45 }, (_, i) => (i * 37) % 256),
    )
    expect(await decodeImage(await encodePng(picture))).toEqual(picture)
  })

  test('reads AVIF', async () => {
    const avif = await sharp(filledPixels(20, 12, [200, 30, 60]).data, { raw: { width: 20, height: 12, channels: 3 } })
      .avif({ lossless: true })
      .toBuffer()
    const picture = await decodeImage(avif)
    expect([picture.width, picture.height]).toEqual([20, 12])
    expect(Math.abs(picture.data[0]! - 200)).toBeLessThanOrEqual(2)
  })

  test('goes by the bytes and not by the name', async () => {
    const path = join(folder, 'photo.jpg')
    writeFileSync(path, readFileSync(join(fixtures, 'grey.png')))
    expect(await decodeImage(path)).toEqual(await decodeImage(join(fixtures, 'grey.png')))
  })

  test('reads a picture with something appended', async () => {
    const bytes = Buffer.concat([readFileSync(join(fixtures, 'grey.png')), Buffer.from('PK\x03\x04<svg>')])
    expect((await decodeImage(bytes)).width).toBe(16)
  })
})

describe('decodeImage refuses in one sentence', () => {
  const svg = '<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>'
  const laughs = `<!DOCTYPE svg [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>\n<svg>&b;</svg>`
  const heic = Buffer.from('\0\0\0\x18ftypheic\0\0\0\0heicmif1', 'latin1')

  test.each<[string, ImageSource, string, new () => Error, ImageFault]>([
    ['an SVG', Buffer.from(svg), 'found an SVG drawing, which is a program and not a picture', TypeError, media],
    ['an SVG bomb', Buffer.from(laughs), 'found an SVG drawing', TypeError, media],
    ['HEIC', heic, 'found a HEIC picture, expected one of jpeg, png, webp, gif, tiff, avif', TypeError, media],
    ['HTML', Buffer.from('<!doctype html><p>404'), 'found an HTML page', TypeError, media],
    ['a PDF', Buffer.from('%PDF-1.7'), 'found a PDF document', TypeError, media],
    ['text', Buffer.from('hello'), 'found text', TypeError, media],
    ['noise', Buffer.from([1, 2, 3, 250]), 'found unknown bytes', TypeError, media],
    ['nothing', new Uint8Array(0), 'found 0 bytes', RangeError, 'empty_image_file'],
    ['a signature only', Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'), 'truncated or damaged', SyntaxError, parse],
    ['one byte of a box', Buffer.from([0]), 'found unknown bytes', TypeError, media],
    ['http', 'https://example.org/cat.png', 'download it first', TypeError, 'invalid_image_url'],
    ['http as URL', new URL('http://127.0.0.1/cat.png'), 'download it first', TypeError, 'invalid_image_url'],
    ['a data URI', 'data:image/png;base64,AAAA', 'decode its base64 first', TypeError, 'invalid_image_url'],
    ['a file on another host', 'file://host/cat.png', 'names no local file', TypeError, 'invalid_image_url'],
    ['a folder', folder, `Cannot read ${folder}: it is a folder`, Error, 'image_file_not_found'],
    ['a missing file', `${folder}/no.png`, `Cannot read ${folder}/no.png: no such file`, Error, 'image_file_not_found'],
    ['a device', '/dev/zero', 'it is a device or pipe', Error, 'image_file_not_found'],
    ['a name with a zero byte', 'a\0b', 'cannot be opened', Error, 'image_file_not_found'],
  ])('%s', async (_, source, words, type, cause) => {
    const error = await refusal(source)
    expect(error.message).toContain(words)
    expect(error.message).not.toMatch(/\n|\.$|vips/i)
    expect(error.constructor).toBe(type)
    expect(error.cause).toBe(cause)
  })

  test('an empty file and a text file, naming them', async () => {
    writeFileSync(join(folder, 'empty.png'), '')
    writeFileSync(join(folder, 'notes.png'), 'not a picture\n')
    expect((await refusal(join(folder, 'empty.png'))).message).toBe(
      `Cannot decode ${join(folder, 'empty.png')}: found 0 bytes, expected a picture`,
    )
    expect((await refusal(join(folder, 'notes.png'))).message).toContain(`${join(folder, 'notes.png')}: found text`)
  })

  test.each([
    'jpeg',
    'png',
    'webp',
    'gif',
    'tiff',
    'avif',
  ] as const)('a %s cut short at any of many places', async (format) => {
    const data = Uint8Array.from({ length: 64 * 48 * 3 }, (_, i) => (i * i * 7919) >>> 5)
    const whole = await sharp(data, { raw: { width: 64, height: 48, channels: 3 } })
      .toFormat(format)
      .toBuffer()
    expect((await decodeImage(whole)).width).toBe(64)
    for (const share of [0.05, 0.3, 0.6, 0.9]) {
      const cut = whole.subarray(0, Math.floor(whole.length * share))
      const error = await refusal(cut)
      expect(error, `cut at ${share}`).toBeInstanceOf(SyntaxError)
      expect(error.message).toMatch(/^Cannot decode the given bytes: the [A-Z]+ data is truncated or damaged/)
      expect(error.cause).toBe(parse)
    }
  })

  test('a PNG with a wrong checksum', async () => {
    const bytes = readFileSync(join(fixtures, 'grey.png'))
    const last = bytes.length - 14 // inside the checksum of the picture data
    bytes[last]! ^= 1
    expect((await refusal(bytes)).cause).toBe(parse)
  })

  test.each([
    [30_000, 30_000, 'image_too_large'],
    [65_535, 65_535, 'image_too_large'],
    [2 ** 31 - 1, 1, 'image_parse_error'],
    [0, 0, 'image_parse_error'],
  ])('a PNG header that claims %d x %d, without allocating it', async (width, height, cause) => {
    const before = process.memoryUsage().rss
    const start = performance.now()
    const error = await refusal(pngOf(width, height))
    expect(error.cause).toBe(cause)
    expect(performance.now() - start).toBeLessThan(2000)
    expect(process.memoryUsage().rss - before).toBeLessThan(2 ** 26)
    if (cause === 'image_too_large') {
      expect(error).toBeInstanceOf(RangeError)
      expect(error.message).toBe(
        `Cannot decode the given bytes: found ${width}x${height} pixels, expected at most 67108864 in all`,
      )
    }
  })

  test('more pixels or bytes than allowed', async () => {
    const path = join(fixtures, 'plain.jpg') // 20 x 12
    expect((await decodeImage(path, { maxPixels: 240 })).width).toBe(20)
    await expect(decodeImage(path, { maxPixels: 239 })).rejects.toThrow(RangeError)
    await expect(decodeImage(path, { maxBytes: 100 })).rejects.toThrow(/found \d+ bytes, expected at most 100/)
    await expect(decodeImage(readFileSync(path), { maxBytes: 100 })).rejects.toThrow(RangeError)
  })

  test('samples that are neither 8 nor 16 bits', async () => {
    const floats = await sharp(filledPixels(4, 3).data, { raw: { width: 4, height: 3, channels: 3 } })
      .toColourspace('scrgb')
      .raw({ depth: 'float' })
      .toBuffer({ resolveWithObject: true })
    const values = new Float32Array(floats.data.buffer, floats.data.byteOffset, floats.data.length / 4)
    const tiff = await sharp(values, { raw: { width: 4, height: 3, channels: 3 } })
      .pipelineColourspace('scrgb')
      .toColourspace('scrgb')
      .tiff({ compression: 'none' })
      .toBuffer()
    expect((await sharp(tiff).metadata()).depth).toBe('float')
    expect((await refusal(tiff)).message).toContain('scrgb samples of type float')
  })

  test.each([undefined, null, 7, new ArrayBuffer(4)])('%s instead of a picture', async (source) => {
    expect(await refusal(source as unknown as ImageSource)).toBeInstanceOf(TypeError)
  })

  test('a time limit that is no whole number of seconds', async () => {
    const path = join(fixtures, 'plain.jpg')
    await expect(decodeImage(path, { maxSeconds: 0.5 })).rejects.toThrow('Expected integer')
  })

  test('when the signal fires before or while decoding', async () => {
    const reason = new Error('enough')
    await expect(decodeImage(join(fixtures, 'rgba.png'), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason)
    const controller = new AbortController()
    const pending = decodeImage(join(fixtures, 'rgba.png'), { signal: controller.signal })
    controller.abort(reason)
    await expect(pending).rejects.toBe(reason)
    const later = new AbortController()
    const decoding = decodeImage(readFileSync(join(fixtures, 'rgba.png')), { signal: later.signal })
    later.abort(reason)
    await expect(decoding).rejects.toBe(reason)
  })
})

test('damaged bytes give a picture or one of our refusals, never another error', async () => {
  for (const [i, name] of Object.keys(goldens).entries()) {
    const bytes = readFileSync(join(fixtures, name))
    for (let k = 0; k < 8; k++) bytes[(i * 7919 + k * 104_729) % bytes.length]! ^= 1 + ((i * 31 + k * 17) % 255)
    const outcome: unknown = await decodeImage(bytes).catch((error: unknown) => error)
    if (outcome instanceof Error) expect(outcome.message).toMatch(/^Cannot decode the given bytes: [^\n]+[^.]$/)
    else expect(outcome).toHaveProperty('data')
  }
})

test.skipIf(process.platform === 'win32')('a pipe is refused instead of waited for', async () => {
  const path = join(folder, 'pipe.png')
  if (spawnSync('mkfifo', [path]).status !== 0) return
  expect((await refusal(path)).message).toContain('it is a device or pipe')
})

async function refusal(source: ImageSource): Promise<Error> {
  return await decodeImage(source).then(
    () => {
      throw new Error('The picture was decoded, expected a refusal')
    },
    (error: Error) => error,
  )
}

/** A PNG whose header claims a size and whose data is a few zeros. */
function pngOf(width: number, height: number): Buffer {
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([8, 2], 8)
  const chunk = (kind: string, data: Uint8Array): Buffer => {
    const body = Buffer.concat([Buffer.from(kind), data])
    const framed = Buffer.alloc(body.length + 8)
    framed.writeUInt32BE(data.length, 0)
    framed.set(body, 4)
    framed.writeUInt32BE(crc32(body), body.length + 4)
    return framed
  }
  const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')
  const data = deflateSync(Buffer.alloc(100))
  return Buffer.concat([signature, chunk('IHDR', header), chunk('IDAT', data), chunk('IEND', Buffer.alloc(0))])
}

describe('readImageSize', () => {
  test('is that of the decoded picture, upright', async () => {
    const png = await sharp(Buffer.alloc(5 * 3 * 3, 99), { raw: { width: 5, height: 3, channels: 3 } })
      .png()
      .toBuffer()
    expect(await readImageSize(png)).toEqual({ width: 5, height: 3 })
    const turned = await sharp(png).jpeg().withMetadata({ orientation: 6 }).toBuffer()
    expect(await readImageSize(turned)).toEqual({ width: 3, height: 5 })
    expect(await decodeImage(turned)).toMatchObject({ width: 3, height: 5 })
    expect(await readImageSize(pixels(2, 1, new Uint8Array(6)))).toEqual({ width: 2, height: 1 })
  })

  test('refuses what decoding would refuse by its header', async () => {
    await expect(readImageSize('no such.png')).rejects.toThrow('Cannot read no such.png: no such file')
    await expect(readImageSize(Buffer.from('GIF89a'))).rejects.toThrow(/^Cannot read the size of the given bytes: /)
    const png = await sharp(Buffer.alloc(12), { raw: { width: 2, height: 2, channels: 3 } })
      .png()
      .toBuffer()
    await expect(readImageSize(png, { maxPixels: 3 })).rejects.toThrow('found 2x2 pixels, expected at most 3 in all')
  })
})
