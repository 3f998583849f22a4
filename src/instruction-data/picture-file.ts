/** Whether the file of a picture is there, lies where it may, and is a picture. */

import { open } from 'node:fs/promises'
import { isAbsolute, join, normalize } from 'node:path'
import { describeBytes, sniffFormat } from '../image/format.ts'
import { unreadable } from './lines.ts'

/** Why a picture below the folder `images` cannot be used, in a clause; its first bytes tell whether it is a picture. */
export async function pictureProblem(image: string, images: string): Promise<string | undefined> {
  const inside = normalize(image)
  if (isAbsolute(inside) || inside.startsWith('..')) return `${image} lies outside of ${images}`
  const path = join(images, inside)
  const start = Buffer.alloc(1024)
  try {
    const handle = await open(path)
    try {
      const { bytesRead } = await handle.read(start, 0, start.length, 0)
      const bytes = start.subarray(0, bytesRead)
      if (sniffFormat(bytes) !== undefined) return undefined
      return `${path} holds ${bytesRead === 0 ? 'nothing' : describeBytes(bytes)}, expected a picture`
    } finally {
      await handle.close()
    }
  } catch (error) {
    return unreadable(path, error as NodeJS.ErrnoException).message.replace(/^C/, 'c')
  }
}
