/** One model, many pictures: the same question about every file of a folder. */
import { readdir } from 'node:fs/promises'
import { Llava } from 'llava-ts'

const folder = new URL('../fixtures/pictures/', import.meta.url)
const files = (await readdir(folder)).filter((name) => name.endsWith('.png')).sort()

const llava = await Llava.load()
for (const file of files) {
  const { answer } = await llava.ask({ image: new URL(file, folder), question: 'What can you see?' })
  console.log(`${file}: ${answer}`)
}
await llava.dispose()
