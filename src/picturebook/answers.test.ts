import { describe, expect, test } from 'vitest'
import { scoreAnswer } from './answers.ts'
import { type Exchange, type Skill, skills } from './questions.ts'
import { exchangesOf } from './train-scenes.fixture.ts'

/** What an answer of these means depends on its question; their wrong answers are tested below and beside their rules. */
const dependent: ReadonlySet<Skill> = new Set(['relation', 'multi-hop', 'comparison', 'reasoning'])

describe('scoreAnswer', () => {
  test.each(skills)('accepts the gold answer of %s and rejects the others', (skill) => {
    for (const short of [true, false]) {
      const exchanges = exchangesOf(skill, { short, most: 150 })
      expect(exchanges.length).toBeGreaterThan(50)
      for (const [index, exchange] of exchanges.entries()) {
        expect(scoreAnswer(exchange, exchange.answer), exchange.answer).toBe(true)
        expect(scoreAnswer(exchange, '')).toBe(false)
        const other = exchanges[(index + 1) % exchanges.length]!
        if (skill === 'caption') continue // a caption of a part is right for the whole, tested below
        if (dependent.has(skill) || other.expected === exchange.expected) continue
        expect(scoreAnswer(exchange, other.answer), `${exchange.answer} / ${other.answer}`).toBe(false)
      }
    }
  })

  const base = { question: '', answer: '', short: false }
  test.each<[Exchange, string[], string[]]>([
    [
      { ...base, skill: 'existence', subject: 'cat', expected: 'yes' },
      ['yes', 'Yes, there is a cat.', 'There is a cat.'],
      ['No', 'There is no cat.', "I don't see a cat", 'maybe'],
    ],
    [
      { ...base, skill: 'existence', subject: 'cat', expected: 'no' },
      ['no.', 'No, there is no cat.', 'There is no cat.'],
      ['Yes', 'There is a cat.'],
    ],
    [
      { ...base, skill: 'count', subject: 'cat', expected: '3' },
      ['3', 'three', 'There are three cats.'],
      ['2', 'two or three', 'There is a cat.', 'many'],
    ],
    [
      { ...base, skill: 'count', subject: 'cat', expected: '1' },
      ['1', 'There is a cat.', 'One'],
      ['0', 'There are no cats.'],
    ],
    [{ ...base, skill: 'count', subject: 'cat', expected: '0' }, ['0', 'none', 'There are no cats.'], ['1', 'a cat']],
    [
      { ...base, skill: 'position', subject: 'cat', expected: 'top left' },
      ['Top left', 'upper left corner', 'The cat is in the top left.'],
      ['top', 'left', 'top right', 'top left or top right', 'center'],
    ],
    [{ ...base, skill: 'position', subject: 'cat', expected: 'left' }, ['left', 'center left'], ['top left', 'center']],
    [
      { ...base, skill: 'relation', subject: 'cat', other: 'dog', relation: 'left or right', expected: 'left' },
      ['left', 'The cat is to the left of the dog.', 'The dog is to the right of the cat.'],
      ['right', 'The dog is to the left of the cat.', 'left or right', 'above'],
    ],
    [
      { ...base, skill: 'relation', subject: 'cat', other: 'dog', relation: 'above', expected: 'no' },
      ['No', 'No, the cat is below the dog.', 'The cat is below the dog.'],
      ['Yes', 'The cat is above the dog.', ''],
    ],
    [
      { ...base, skill: 'listing', expected: 'a cat and two dogs' },
      ['two dogs and a cat', 'The picture shows a cat and two dogs.', 'a cat, 2 dogs'],
      ['a cat and a dog', 'a cat', 'a cat, two dogs and a bee', 'two cats and two dogs'],
    ],
    [
      { ...base, skill: 'caption', expected: 'a cat and two dogs' },
      ['Two dogs in a field.', 'A cat and two dogs.'],
      ['A field.', 'Two cats.', 'A cat and a bee.'],
    ],
    [
      { ...base, skill: 'category-at', expected: 'cat' },
      ['cat', 'There is a cat in the top left.'],
      ['dog', 'a cat and a dog', 'nothing'],
    ],
    [{ ...base, skill: 'category-at', expected: 'nothing' }, ['nothing', 'There is nothing at the top.'], ['cat', '']],
    [
      { ...base, skill: 'color', subject: 'elephant', expected: 'gray' },
      ['gray', 'It is grey.'],
      ['red', 'gray and red', 'several'],
    ],
    [
      { ...base, skill: 'color', subject: 'duck', expected: 'several' },
      ['several', 'The ducks have several colors.', 'It has many colors.'],
      ['green', 'The ducks are green.', 'There are no ducks.', ''],
    ],
    [
      { ...base, skill: 'setting', expected: 'field' },
      ['field', 'The picture is in a field.'],
      ['beach', 'night', 'field or beach'],
    ],
    [
      { ...base, skill: 'position', subject: 'cat', expected: 'absent' },
      ['There is no cat in the picture.', 'not in the picture', 'The cat is not there.', 'None'],
      ['top left', 'The cat is in the top left.', ''],
    ],
    [
      { ...base, skill: 'position', subject: 'cat', expected: 'top left' },
      ['The cat is in the top left.'],
      ['There is no cat in the top left.', 'not in the picture'],
    ],
    [
      { ...base, skill: 'color', subject: 'car', expected: 'absent' },
      ['There is no car in the picture.', 'Not in the picture'],
      ['red', 'The car is red.', ''],
    ],
    [
      { ...base, skill: 'comparison', subject: 'cat', other: 'dog', relation: 'more', expected: 'yes' },
      ['Yes', 'Yes, there are three cats and one dog.', 'There are more cats than dogs.'],
      ['No', 'There are more dogs than cats.', 'There are as many cats as dogs.', 'cats', ''],
    ],
    [
      { ...base, skill: 'comparison', subject: 'cat', other: 'dog', relation: 'most', expected: 'dog' },
      ['dogs', 'dog', 'There are more dogs than cats.', 'more dogs'],
      ['cats', 'There are more cats than dogs.', 'cats and dogs', 'Yes', 'as many cats as dogs', ''],
    ],
    [
      { ...base, skill: 'comparison', subject: 'cat', other: 'dog', relation: 'as many', expected: 'no' },
      ['No', 'No, there are two cats and one dog.', 'There are more cats than dogs.'],
      ['Yes', 'Yes, there is one cat and one dog.', ''],
    ],
    [
      { ...base, skill: 'odd-one-out', expected: 'car' },
      ['car', 'The car does not belong: the others are animals.'],
      ['cat', 'the car and the cat', 'animals', ''],
    ],
    [
      { ...base, skill: 'nearest', subject: 'dog', expected: 'cat' },
      ['cat', 'The cat is nearest to the dog.', 'A cat'],
      ['dog', 'The bee is nearest to the dog.', 'the cat and the bee', ''],
    ],
    [
      { ...base, skill: 'multi-hop', subject: 'cat', other: 'dog', expected: 'cat' },
      ['cat', 'The dog is in the top right. The cat is to the left of it.'],
      ['dog', 'The bee is in the top right. The cat is to the left of it.', 'The bee', ''],
    ],
    [
      { ...base, skill: 'multi-hop', subject: 'apple', other: 'dog', expected: 'red' },
      ['red', 'The apple is above the dog. It is red.'],
      ['apple', 'green', 'red or green', ''],
    ],
    [
      { ...base, skill: 'reasoning', facts: ['cake', 'gift'], present: ['cake', 'gift', 'dog', 'field'], expected: '' },
      ['A cake and a gift', 'Because there is a cake and a gift.', 'There are a gift, a cake and a dog.'],
      ['a cake', 'Because there is a cake, a gift and a balloon.', 'A cake and a gift at night', 'Yes', ''],
    ],
    [
      { ...base, skill: 'reasoning', facts: ['night', 'owl'], present: ['owl', 'night'], expected: 'owl, night' },
      ['Because there is an owl at night.', 'It is night and there is an owl.'],
      ['Because there is an owl.', 'It is night.', 'Because there is an owl at night on a road.'],
    ],
    [
      { ...base, skill: 'reasoning', facts: [], present: ['dog', 'field'], expected: 'no' },
      ['No', 'No, there is no cake and no gift.', 'No, it is not night.'],
      ['Yes', 'No, there is no dog.', 'No, there is a cake.', 'There is a dog.', ''],
    ],
    [
      { ...base, skill: 'unknowable', expected: 'unknown' },
      ['Unknown', 'That cannot be known from the picture.', "I can't tell.", 'It is not possible to say.'],
      ['Rex', 'The dog is three.', 'No', 'nothing', 'A cat', ''],
    ],
  ])('reads free answers of %o', (exchange, right, wrong) => {
    for (const answer of right) expect(scoreAnswer(exchange, answer), answer).toBe(true)
    for (const answer of wrong) expect(scoreAnswer(exchange, answer), answer).toBe(false)
  })
})
