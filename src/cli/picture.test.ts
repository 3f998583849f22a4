import { expect, test } from 'vitest'
import { filledPixels, paste } from '../image/pixels.ts'
import { drawPicture } from './picture.ts'

test('the upper pixel is the colour of a cell, the lower one its background', () => {
  const picture = filledPixels(2, 2, [10, 20, 30])
  paste(picture, filledPixels(2, 1, [200, 100, 0]), { x: 0, y: 1 })
  expect(drawPicture(picture, { columns: 2 })).toEqual(['\u001b[38;2;10;20;30;48;2;200;100;0m▀▀\u001b[0m'])
})

test('keeps the shape of a picture', () => {
  const lines = drawPicture(filledPixels(300, 150, [0, 0, 0]), { columns: 32 })
  expect(lines).toHaveLength(8)
  expect(lines[0]?.match(/▀/g)).toHaveLength(32)
  expect(drawPicture(filledPixels(900, 1, [0, 0, 0]), { columns: 32 })).toHaveLength(1)
})
