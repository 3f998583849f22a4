import { describe, expect, test } from 'vitest'
import { scoreAnswer } from './answers.ts'
import { captions } from './captions.ts'
import { categoryNamed } from './categories.ts'
import { corpus } from './corpus.ts'
import { thingsSaid } from './language.ts'
import { toLlavaJson } from './llava-json.ts'
import { phrasings } from './phrasings.ts'
import { type Exchange, makeConversation, makeExchange, type Skill, skills } from './questions.ts'
import { countCategories, makeScene } from './scene.ts'
import { withoutRequest } from './short-answers.ts'

const train = Array.from({ length: 2000 }, (_, seed) => makeScene(seed))

/** What is asked about the scenes in one skill: where it can be, the first `most`. */
function exchangesOf(skill: Skill, { most = train.length, ...options }: { short?: boolean; most?: number } = {}) {
  const exchanges: Exchange[] = []
  for (let seed = 0; seed < train.length && exchanges.length < most; seed++) {
    const exchange = makeExchange(train[seed]!, { seed, skill, ...options })
    if (exchange !== undefined) exchanges.push(exchange)
  }
  return exchanges
}

function shares(values: readonly string[]): Record<string, number> {
  const tally: Record<string, number> = {}
  for (const value of values) tally[value] = (tally[value] ?? 0) + 1 / values.length
  return tally
}

describe('questions', () => {
  test('repeat themselves and differ by seed', () => {
    const ask = (seed: number) => makeConversation(train[5]!, { seed, turns: 6 })
    expect(ask(1)).toEqual(ask(1))
    expect(ask(1)).not.toEqual(ask(2))
  })

  test('ask for existence half and half, in every turn of a conversation', () => {
    expect(shares(exchangesOf('existence').map((exchange) => exchange.expected)).yes).toBeCloseTo(0.5, 1)
    const conversations = train.map((scene) => makeConversation(scene, { seed: 1, turns: 6 }))
    for (const turn of [0, 1, 2]) {
      const answers = conversations.flatMap((turns) => turns.filter(({ skill }) => skill === 'existence')[turn] ?? [])
      expect(Math.abs((shares(answers.map(({ expected }) => expected)).yes ?? 0) - 0.5)).toBeLessThan(0.06)
    }
  })

  test('cannot be answered from the category alone', () => {
    const tally = new Map<string, { yes: number; no: number }>()
    const many = Array.from({ length: 20000 }, (_, seed) =>
      makeExchange(makeScene(seed), { seed: 1, skill: 'existence' }),
    )
    for (const exchange of many) {
      const { subject, expected } = exchange as Exchange
      const entry = tally.get(subject!) ?? { yes: 0, no: 0 }
      entry[expected as 'yes' | 'no'] += 1
      tally.set(subject!, entry)
    }
    const guessed = [...tally.values()].reduce((sum, { yes, no }) => sum + Math.max(yes, no), 0)
    expect(guessed / many.length).toBeLessThan(0.56)
  })

  test('draw the absent thing in the asked way', () => {
    for (const negative of ['random', 'popular', 'adversarial'] as const) {
      const asked = train.slice(0, 100).map((scene) => makeExchange(scene, { seed: 1, skill: 'existence', negative })!)
      const no = asked.filter((exchange) => exchange.expected === 'no')
      expect(no.length).toBeGreaterThan(20)
      expect(no.every((exchange) => exchange.negative === negative)).toBe(true)
    }
  })

  test('count 1 to 4 about equally often, 0 rarely', () => {
    const share = shares(exchangesOf('count').map((exchange) => exchange.expected))
    for (const count of ['1', '2', '3', '4']) {
      expect(share[count], count).toBeGreaterThan(0.16)
      expect(share[count], count).toBeLessThan(0.29)
    }
    expect(share['0']).toBeLessThan(0.15)
  })

  test('ask for relations half as a choice, half as yes or no, balanced within both', () => {
    const share = shares(exchangesOf('relation').map((exchange) => exchange.expected))
    for (const answer of ['yes', 'no']) expect(Math.abs(share[answer]! - 0.25), answer).toBeLessThan(0.05)
    for (const answer of ['left', 'right', 'above', 'below']) {
      expect(Math.abs(share[answer]! - 0.125), answer).toBeLessThan(0.04)
    }
  })

  test('use all nine fields, and say "nothing" rarely', () => {
    const fields = shares(exchangesOf('position').map((exchange) => exchange.expected))
    expect(Object.keys(fields)).toHaveLength(10) // with absent
    expect(Math.max(...Object.values(fields))).toBeLessThan(0.2)
    expect(shares(exchangesOf('category-at').map((exchange) => exchange.expected)).nothing).toBeLessThan(0.12)
  })

  test('favour no colour, and ask for those of things of several colours and of several things', () => {
    const exchanges = exchangesOf('color')
    const share = shares(exchanges.map(({ expected }) => expected))
    expect(Math.max(...Object.values(share))).toBeLessThan(0.25)
    expect(share.several).toBeGreaterThan(0.08)
    const plural = exchanges.filter(({ question }) => / are the |of the \w+s\b/.test(question))
    expect(plural.length / exchanges.length).toBeGreaterThan(0.1)
    expect(shares(plural.map(({ expected }) => expected)).absent).toBeGreaterThan(0.02)
  })

  test('are true of the scene', () => {
    for (const [seed, scene] of train.slice(0, 500).entries()) {
      const counts = countCategories(scene)
      for (const exchange of makeConversation(scene, { seed, turns: 8 })) {
        const { skill, subject = '', expected } = exchange
        if (skill === 'existence') expect(expected).toBe(counts.has(subject) ? 'yes' : 'no')
        if (skill === 'count') expect(expected).toBe(String(counts.get(subject) ?? 0))
        if (skill === 'listing') expect(thingsSaid(expected)).toEqual(counts)
        if (skill === 'position') expect(counts.get(subject) ?? 0).toBe(expected === 'absent' ? 0 : 1)
        if (skill === 'color') {
          const { color, severalColors } = categoryNamed(subject)
          expect(counts.has(subject) ? (color ?? (severalColors && 'several')) : 'absent').toBe(expected)
        }
        if (skill === 'nearest') expect([counts.get(subject), counts.get(expected)]).toEqual([1, 1])
      }
    }
  })

  test('end with a request for a short answer when one is wanted, and only then', () => {
    for (const skill of skills) {
      const wanted = skill !== 'caption' && skill !== 'detailed-description'
      for (const exchange of exchangesOf(skill, { short: true, most: 50 })) {
        expect(exchange.short).toBe(wanted)
        expect(withoutRequest(exchange.question) !== exchange.question).toBe(wanted)
      }
      for (const exchange of exchangesOf(skill, { short: false, most: 50 })) {
        expect(withoutRequest(exchange.question)).toBe(exchange.question)
        expect(exchange.answer).toMatch(/\.$/)
      }
    }
  })

  test('keep held-out phrasings to their split, made of words that training knows', () => {
    const known = new Set([...corpus(3000, 1)].join(' ').match(/\w+/g))
    for (const { usual, heldOut } of Object.values(phrasings)) {
      expect(usual.length).toBeGreaterThanOrEqual(4)
      for (const text of heldOut) {
        expect(usual).not.toContain(text)
        for (const word of text.replace(/\{\w+\}/g, '').match(/\w+/g) ?? []) expect(known, text).toContain(word)
      }
    }
    const heldOut = new Set<string>(
      phrasings.listing.heldOut.flatMap((text) => [text, text.replace('picture', 'image')]),
    )
    for (const [seed, scene] of train.slice(0, 100).entries()) {
      const ask = (split: 'train' | 'held-out-phrasing') =>
        makeExchange(scene, { seed, skill: 'listing', short: false, split })!.question
      expect(heldOut).toContain(ask('held-out-phrasing'))
      expect(heldOut).not.toContain(ask('train'))
    }
  })
})

describe('captions', () => {
  test('are five, and say nothing that is not there', () => {
    for (const [seed, scene] of train.slice(0, 500).entries()) {
      const counts = countCategories(scene)
      const five = captions(scene, { seed })
      expect(five).toHaveLength(5)
      expect(thingsSaid(five[0]!)).toEqual(counts)
      for (const caption of five) {
        const said = thingsSaid(caption)
        expect(said.size, caption).toBeGreaterThan(0)
        for (const [name, count] of said) expect(counts.get(name), caption).toBe(count)
      }
    }
  })
})

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

describe('text for training', () => {
  test('has a small vocabulary and exactly as many texts as asked for', () => {
    const texts = [...corpus(5000, 1)]
    expect(texts).toHaveLength(5000)
    expect(new Set(texts.join(' ').match(/\w+|[^\w\s]/g)).size).toBeLessThan(500)
  })

  test('becomes LLaVA JSON with the picture before the first question', () => {
    const scene = train[1]!
    const exchanges = makeConversation(scene, { seed: 1, turns: 3 })
    const row = toLlavaJson(scene, exchanges, { id: '1', image: '1.png' })
    expect(row).toMatchObject({ id: '1', image: '1.png' })
    expect(row.conversations.map(({ from }) => from)).toEqual(['human', 'gpt', 'human', 'gpt', 'human', 'gpt'])
    expect(row.conversations[0]!.value).toBe(`<image>\n${exchanges[0]!.question}`)
    expect(row.conversations.filter(({ value }) => value.includes('<image>'))).toHaveLength(1)
    expect(() => toLlavaJson(scene, [], { image: '1.png' })).toThrow(RangeError)
  })
})
