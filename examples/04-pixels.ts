/** Pictures need no file: here the program draws one itself, a yellow disc on blue, and asks about it. */
import { Llava } from 'llava-ts'

const side = 96
const sky = [110, 170, 230]
const disc = [250, 210, 60]

const data = new Uint8Array(side * side * 3) // [H, W, 3], red, green and blue from 0 to 255
for (let y = 0; y < side; y++) {
  for (let x = 0; x < side; x++) {
    const inside = Math.hypot(x - 30, y - 30) < 16
    data.set(inside ? disc : sky, (y * side + x) * 3)
  }
}

const llava = await Llava.load()
const image = { width: side, height: side, data }
const { answer } = await llava.ask({ image, question: 'What is in the picture?' })
console.log(answer)
await llava.dispose()
