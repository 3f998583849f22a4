/** Sample text of the picturebook world, for training a tokenizer and for counting its words. */
import { captions } from './captions.ts'
import { categories, colors } from './categories.ts'
import { ruleTexts } from './common-sense.ts'
import { absentPhrase, absentSentence } from './exchange.ts'
import { capitalize, countPhrase, numberWord } from './language.ts'
import { phrasings } from './phrasings.ts'
import { makeConversation } from './questions.ts'
import { makeScene, mostObjects, settings } from './scene.ts'
import { unknownPhrase, unknownSentence } from './unknowable.ts'

/**
 * Yields `count` texts: first every category in singular and plural, every phrasing of training and every word that only
 * some answers have, so that even a short corpus holds every word, then questions, answers and captions of training scenes.
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
  for (const { name } of categories) yield `${countPhrase(name, 1)}, ${countPhrase(name, 2)}`
  for (const { usual } of Object.values(phrasings)) {
    for (const template of usual) yield template.replace(/ ?\{\w+\}/g, '')
  }
  yield* rareTexts()
  for (let next = seed; ; next++) {
    const scene = makeScene(next, { objects: [1, mostObjects] })
    for (const { question, answer } of makeConversation(scene, { seed: next, turns: 4 })) {
      yield question
      yield answer
    }
    yield* captions(scene, { seed: next })
  }
}

/** Words that sampled conversations may say only after a long while. */
function* rareTexts(): Generator<string> {
  yield* ruleTexts()
  yield Array.from({ length: mostObjects + 1 }, (_, count) => `${numberWord(count)}, ${count}`).join(', ')
  yield `${settings.join(', ')}. There are two things in all.`
  yield `${colors.join(', ')}, several, day, nothing. The duck has several colors. The ducks have several colors.`
  yield `${unknownSentence} ${unknownPhrase}. ${absentSentence('cat')} ${capitalize(absentPhrase)}.`
  yield 'The car does not belong: the others are animals. The cake does not belong: the others are vehicles, food.'
  yield 'There are more cats than dogs. The cat is nearest to the dog. Yes, I can see a cat. No, the picture shows no cat.'
}
