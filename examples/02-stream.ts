/** Show an answer while it is being written, and stop it after two seconds at the latest. */
import { Llava } from 'llava-ts'

const llava = await Llava.load()
const image = new URL('../fixtures/pictures/picturebook.png', import.meta.url)
const question = 'Describe the picture in detail.'
const signal = AbortSignal.timeout(2000)

for await (const text of llava.answer({ image, question, signal })) process.stdout.write(text)
process.stdout.write('\n')

await llava.dispose()
