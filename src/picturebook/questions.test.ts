import { describe, expect, test } from 'vitest'
import { captions } from './captions.ts'
import { categoryNamed } from './categories.ts'
import { corpus } from './corpus.ts'
import { thingsSaid } from './language.ts'
import { toLlavaJson } from './llava-json.ts'
import { phrasings } from './phrasings.ts'
import { type Exchange, makeConversation, makeExchange, skills } from './questions.ts'
import { countCategories, makeScene } from './scene.ts'
import { withoutRequest } from './short-answers.ts'
import { exchangesOf, train } from './train-scenes.fixture.ts'

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
