/** Look inside: every intermediate from pixels to logits, by name and with its shape. */
import { Llava } from 'llava-ts'

const llava = await Llava.load()
const image = new URL('../fixtures/pictures/picturebook.png', import.meta.url)
const arrays = await llava.trace({ image, question: 'What is in the picture?' })
await llava.dispose()

for (const [name, { shape, data }] of arrays) {
  const largest = data.reduce((most: number, value: number) => Math.max(most, Math.abs(value)), 0)
  console.log(`${name.padEnd(20)} [${shape.join(', ')}]`.padEnd(40), `at most ${largest.toFixed(2)}`)
}
