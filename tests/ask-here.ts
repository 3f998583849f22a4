/** What the embedded model answers here, the slow way: what other runtimes are held against. */

import { fileURLToPath } from 'node:url'
import { tokenizeConversation } from '../src/conversation/tokenize.ts'
import { userTurn } from '../src/conversation/turns.ts'
import { compileModel, disposeModel } from '../src/generation/compiled-model.ts'
import { readModelFolder } from '../src/generation/model-folder.ts'
import { makePrompt, type Prompt, preparePicture } from '../src/generation/prompt.ts'
import { generateUncached } from '../src/generation/uncached.ts'
import { decodeImage } from '../src/image/decode.ts'
import { preprocess } from '../src/image/preprocess.ts'

export const picturebook = fileURLToPath(new URL('../checkpoints/picturebook', import.meta.url))
const picture = fileURLToPath(new URL('../fixtures/pictures/picturebook.png', import.meta.url))

/** The prompt, and the ids of the greedy answer, at most 12. */
export async function askHere(question: string): Promise<{ prompt: Prompt; expected: number[] }> {
  const model = await readModelFolder(picturebook)
  const { config, template, tokenizer, imageProcessor } = model
  const prepared = preparePicture(preprocess(await decodeImage(picture), imageProcessor), config)
  const turns = [userTurn(question, { images: 1 })]
  const tokenized = tokenizeConversation(turns, {
    template,
    tokenizer,
    imageToken: config.imageToken,
    generationPrompt: true,
  })
  const prompt = makePrompt(tokenized, { pictures: [prepared], config })
  const compiled = await compileModel(model, { threads: 1 })
  const answer = await generateUncached(compiled, prompt, { maxTokens: 12 })
  await disposeModel(compiled)
  return { prompt, expected: answer.map(({ token }) => token) }
}
