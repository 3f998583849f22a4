/** Ask one question about a picture, get one answer. */
import { Llava } from 'llava-ts'

const llava = await Llava.load()
const image = new URL('../fixtures/pictures/picturebook.png', import.meta.url)
const { answer, usage, timings } = await llava.ask({ image, question: 'What is in the picture?' })
await llava.dispose()

console.log(answer)
console.log(`${usage.promptTokens} tokens read, ${usage.imageTokens} of them from the picture`)
console.log(`${usage.completionTokens} tokens written in ${timings.decodeMs.toFixed(0)} ms`)
