/**
 * Which picture format a file has, told from its first bytes and never from its name or a sender's claim.
 *
 * The decoder knows more formats than we want it to meet; only what is listed here is handed to it.
 */

export type PictureFormat = 'jpeg' | 'png' | 'webp' | 'gif' | 'tiff' | 'avif'

export const pictureFormats = ['jpeg', 'png', 'webp', 'gif', 'tiff', 'avif'] as const satisfies readonly PictureFormat[]

/** The format of an encoded picture, or undefined when it is none of ours. Looks at no more than 256 bytes. */
export function sniffFormat(bytes: Uint8Array): PictureFormat | undefined {
  const head = latin1(bytes, 16)
  if (head.startsWith('\xff\xd8\xff')) return 'jpeg'
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'png'
  if (head.startsWith('GIF87a') || head.startsWith('GIF89a')) return 'gif'
  if (head.startsWith('RIFF') && head.slice(8, 12) === 'WEBP') return 'webp'
  if (/^(II[*+]\0|MM\0[*+])/.test(head)) return 'tiff' // + marks the 64-bit variant
  if (brands(bytes).some((brand) => brand === 'avif' || brand === 'avis')) return 'avif'
  return undefined
}

/** What a file that is no picture of ours looks like, for an error message. */
export function describeBytes(bytes: Uint8Array): string {
  const head = latin1(bytes, 16)
  const start = latin1(bytes, 1024)
  if (brands(bytes).some((brand) => /^(heic|heix|hevc|heim|heis|mif1|msf1)$/.test(brand))) return 'a HEIC picture'
  if (brands(bytes).length > 0) return 'a video or another MP4-like file'
  if (head.startsWith('BM')) return 'a BMP picture'
  if (head.startsWith('8BPS')) return 'a Photoshop document'
  if (head.startsWith('\0\0\x01\0')) return 'an icon'
  if (head.startsWith('\0\0\0\x0cjP  ')) return 'a JPEG 2000 picture'
  if (head.startsWith('\xff\x0a') || head.startsWith('\0\0\0\x0cJXL ')) return 'a JPEG XL picture'
  if (head.startsWith('%PDF')) return 'a PDF document'
  if (head.startsWith('PK\x03\x04')) return 'a ZIP archive'
  if (head.startsWith('\x1f\x8b')) return 'a gzip archive'
  if (/<svg[\s>]/i.test(start) || /<!doctype\s+svg/i.test(start)) return 'an SVG drawing'
  if (/<(html|!doctype\s+html|head|body)[\s>]/i.test(start)) return 'an HTML page'
  return isText(bytes.subarray(0, 1024)) ? 'text' : 'unknown bytes'
}

/** Brands in the file type box that opens every HEIF and MP4 file; empty for other files. */
function brands(bytes: Uint8Array): string[] {
  const box = latin1(bytes, 256)
  if (box.slice(4, 8) !== 'ftyp') return []
  const size = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0)
  const found: string[] = []
  for (let at = 8; at + 4 <= Math.min(size, box.length); at += 4) {
    if (at !== 12) found.push(box.slice(at, at + 4)) // 12 to 16 hold a version number, not a brand
  }
  return found
}

function latin1(bytes: Uint8Array, length: number): string {
  return String.fromCharCode(...bytes.subarray(0, length))
}

function isText(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte >= 32 || byte === 9 || byte === 10 || byte === 13)
}
