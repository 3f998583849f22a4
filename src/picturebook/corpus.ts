/** Sample text of the picturebook world, for training a tokenizer and for counting its words. */
import { captions } from './captions.ts'
import { categories } from './categories.ts'
import { backgroundWord } from './labels.ts'
import { countPhrase } from './language.ts'
import { phrasings } from './phrasings.ts'
import { makeConversation } from './questions.ts'
import { makeScene } from './scene.ts'

/**
 * Yields `count` texts: first every category in singular and plural and every phrasing of training, so that even a
 * short corpus holds every word, then questions, answers and captions of training scenes.
 */
export function* corpus(count: number, seed: number): Generator<string> {
  let left = count
  for (const text of endlessTexts(seed)) {
    if (left <= 0) return
    left -= 1
    yield text
  }
}

function* endlessTexts(seed: number): Generator<string> {
  for (const { name } of categories) yield `${countPhrase(name, 1)}, ${countPhrase(name, 2)}, ${backgroundWord}`
  for (const { usual } of Object.values(phrasings)) {
    for (const template of usual) yield template.replace(/ ?\{\w+\}/g, '')
  }
  for (let next = seed; ; next++) {
    const scene = makeScene(next, { objects: [1, 6] })
    for (const { question, answer } of makeConversation(scene, { seed: next, turns: 4 })) {
      yield question
      yield answer
    }
    yield* captions(scene, { seed: next })
  }
}
