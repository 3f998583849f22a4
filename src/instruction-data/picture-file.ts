/** Whether the file of a picture is there, lies where it may, and is a picture. */

import { isAbsolute, join, normalize } from 'node:path'
import { readImageSize } from '../image/decode.ts'
import { describeBytes, sniffFormat } from '../image/format.ts'
import { firstBytes } from './lines.ts'
import type { PictureSize } from './symbolic-picture.ts'

/** Why a picture below the folder `images` cannot be used, in a clause; its first bytes tell whether it is a picture. */
export async function pictureProblem(image: string, images: string): Promise<string | undefined> {
  const inside = normalize(image)
  if (isAbsolute(inside) || inside.startsWith('..')) return `${image} lies outside of ${images}`
  const path = join(images, inside)
  try {
    const bytes = await firstBytes(path, 1024)
    if (sniffFormat(bytes) !== undefined) return undefined
    return `${path} holds ${bytes.length === 0 ? 'nothing' : describeBytes(bytes)}, expected a picture`
  } catch (error) {
    return error instanceof Error ? error.message.replace(/^C/, 'c') : String(error)
  }
}

/** The size of a picture below the folder `images`. @throws RangeError that says why the picture cannot be used */
export async function sizeOfPicture(image: string, images: string): Promise<PictureSize> {
  const problem = await pictureProblem(image, images)
  if (problem !== undefined) throw new RangeError(problem)
  return readImageSize(join(images, normalize(image))).catch((error) => {
    throw new RangeError(error instanceof Error ? error.message.replace(/^C/, 'c') : String(error), { cause: error })
  })
}
