/** Conversations about a scene in the data format of LLaVA: `{ id, image, conversations: [{ from, value }] }`. */
import type { Exchange } from './askers.ts'
import type { Scene } from './scene.ts'

export type LlavaRow = {
  id: string
  image: string // file name, relative to the image folder
  conversations: { from: 'human' | 'gpt'; value: string }[]
}

/**
 * One row of LLaVA's training files. The picture stands at the beginning of the first question.
 * @throws RangeError without exchanges
 */
export function toLlavaJson(
  scene: Scene,
  exchanges: readonly Exchange[],
  options: { id?: string; image: string },
): LlavaRow {
  if (exchanges.length === 0)
    throw new RangeError('Cannot write a LLaVA row: found no exchanges, expected at least one')
  const conversations = exchanges.flatMap(({ question, answer }, index) => [
    { from: 'human' as const, value: index === 0 ? `<image>\n${question}` : question },
    { from: 'gpt' as const, value: answer },
  ])
  return { id: options.id ?? String(scene.seed), image: options.image, conversations }
}
