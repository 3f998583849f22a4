/** Several questions in a row: the picture is read once, later turns go on from there. */
import { Llava } from 'llava-ts'

const llava = await Llava.load()
const image = new URL('../fixtures/pictures/picturebook.png', import.meta.url)
const conversation = llava.conversation()

await ask('How many ducks are there?', image)
await ask('Is there a cat in the picture?')
await ask('Is there a dog in the picture?')
await llava.dispose()

async function ask(question: string, ...images: URL[]): Promise<void> {
  process.stdout.write(`${question} `)
  for await (const text of conversation.say({ question, images })) process.stdout.write(text)
  process.stdout.write('\n')
}
