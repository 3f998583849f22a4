/** A picture on a terminal: two pixels per character cell, the upper one as the colour of `▀`, the lower one as its background. */

import type { Pixels } from '../image/pixels.ts'
import { resize } from '../image/resize.ts'

/** The lines of `picture` drawn `columns` wide, for terminals with 24-bit colours. */
export function drawPicture(picture: Pixels, { columns }: { columns: number }): string[] {
  const rows = Math.max(1, Math.round((picture.height / picture.width) * (columns / 2)))
  const { data, width } = resize(picture, { width: columns, height: rows * 2, filter: 'bicubic' })
  const colourAt = (x: number, y: number) => {
    const start = (y * width + x) * 3
    return data.subarray(start, start + 3).join(';')
  }
  return Array.from({ length: rows }, (_, row) => {
    let line = ''
    let last = ''
    for (let x = 0; x < columns; x++) {
      const colours = `\u001b[38;2;${colourAt(x, row * 2)};48;2;${colourAt(x, row * 2 + 1)}m`
      line += colours === last ? '▀' : `${colours}▀` // runs of one colour need it once
      last = colours
    }
    return `${line}\u001b[0m`
  })
}
