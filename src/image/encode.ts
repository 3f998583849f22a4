/** Writes a picture as a PNG file in memory, lossless: for tests, the picturebook and reports. */
import sharp from 'sharp'
import { type Pixels, pixels } from './pixels.ts'

/** The bytes of an 8-bit RGB PNG; decoding them gives the same pixels back. */
export async function encodePng(picture: Pixels): Promise<Uint8Array> {
  const { width, height, data } = pixels(picture.width, picture.height, picture.data)
  const bytes = await sharp(data, { raw: { width, height, channels: 3 }, limitInputPixels: false })
    .png()
    .toBuffer()
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** The bytes of a small JPEG for a page: no side longer than `side` pixels. */
export async function encodeThumbnail(picture: Pixels, side: number): Promise<Uint8Array> {
  const { width, height, data } = pixels(picture.width, picture.height, picture.data)
  return sharp(data, { raw: { width, height, channels: 3 }, limitInputPixels: false })
    .resize({ width: side, height: side, fit: 'inside', withoutEnlargement: true })
    .jpeg({ quality: 82 })
    .toBuffer()
}
