import { describe, expect, test } from 'vitest'
import { scoreAnswer } from './answers.ts'
import { categories, categoryNamed } from './categories.ts'
import { clauseOf, denialOf, factsOf, rules, supportOf } from './common-sense.ts'
import { type Exchange, makeExchange, type Skill } from './questions.ts'
import { countCategories, makeScene, type Scene, settings } from './scene.ts'

const scenes = Array.from({ length: 2000 }, (_, seed) => makeScene(seed, { objects: [1, 6] }))

function asked(skill: Skill, short?: boolean): { scene: Scene; exchange: Exchange }[] {
  return scenes.flatMap((scene, seed) => {
    const exchange = makeExchange(scene, { seed, skill, ...(short !== undefined && { short }) })
    return exchange ? [{ scene, exchange }] : []
  })
}

function shareOf(exchanges: readonly Exchange[], expected: string): number {
  return exchanges.filter((exchange) => exchange.expected === expected).length / exchanges.length
}

function largestShare(exchanges: readonly Exchange[]): number {
  return Math.max(...new Set(exchanges.map(({ expected }) => shareOf(exchanges, expected))))
}

describe('comparisons', () => {
  const all = asked('comparison')
  const of = (relation: string) => all.map(({ exchange }) => exchange).filter((one) => one.relation === relation)

  test('are true of the scene, and only the question of as many has ties', () => {
    for (const { scene, exchange } of all) {
      const counts = countCategories(scene)
      const [one, other] = [counts.get(exchange.subject!) ?? 0, counts.get(exchange.other!) ?? 0]
      if (exchange.relation === 'as many') expect(exchange.expected).toBe(one === other ? 'yes' : 'no')
      else expect(one).not.toBe(other)
      if (exchange.relation === 'more') expect(exchange.expected).toBe(one > other ? 'yes' : 'no')
      if (exchange.relation === 'most') expect(exchange.expected).toBe(one > other ? exchange.subject : exchange.other)
    }
  })

  test('are yes half of the time, and the thing named first is in the majority half of the time', () => {
    for (const relation of ['more', 'as many']) {
      expect(of(relation).length).toBeGreaterThan(200)
      expect(Math.abs(shareOf(of(relation), 'yes') - 0.5), relation).toBeLessThan(0.08)
    }
    const most = of('most')
    const first = most.filter(({ expected, subject }) => expected === subject).length / most.length
    expect(Math.abs(first - 0.5)).toBeLessThan(0.08)
    expect(largestShare(most)).toBeLessThan(0.06)
  })
})

test('the odd one is of another group than all others, which share theirs', () => {
  const all = asked('odd-one-out')
  expect(all.length).toBeGreaterThan(100)
  for (const { scene, exchange } of all) {
    const names = [...countCategories(scene).keys()]
    const groups = names.filter((name) => name !== exchange.expected).map((name) => categoryNamed(name).group)
    expect(new Set(groups).size).toBe(1)
    expect(groups).not.toContain(categoryNamed(exchange.expected).group)
    expect(groups.length).toBeGreaterThanOrEqual(2)
  }
  expect(largestShare(all.map(({ exchange }) => exchange))).toBeLessThan(0.1)
})

test('the nearest thing has the smallest distance between centers, by a clear margin', () => {
  const all = asked('nearest')
  expect(all.length).toBeGreaterThan(300)
  for (const { scene, exchange } of all) {
    const center = ({ box }: Scene['objects'][number]) => [box.x + box.width / 2, box.y + box.height / 2] as const
    const [x, y] = center(scene.objects.find(({ category }) => category === exchange.subject)!)
    const distances = scene.objects
      .filter(({ category }) => category !== exchange.subject)
      .map((object) => ({ name: object.category, distance: Math.hypot(center(object)[0] - x, center(object)[1] - y) }))
      .sort((one, other) => one.distance - other.distance)
    expect(distances[0]!.name).toBe(exchange.expected)
    expect(distances[1]!.distance - distances[0]!.distance).toBeGreaterThanOrEqual(12)
  }
  expect(largestShare(all.map(({ exchange }) => exchange))).toBeLessThan(0.06)
})

describe('questions of two steps', () => {
  const all = asked('multi-hop', false)

  test('come in four programs with steps that are true of the scene', () => {
    const programs = { place: 0, color: 0, 'color beside': 0, 'color at': 0 }
    for (const { scene, exchange } of all) {
      const { subject = '', other, expected, answer } = exchange
      const counts = countCategories(scene)
      const isColor = expected !== subject
      if (isColor) expect(expected).toBe(categoryNamed(subject).color)
      if (other !== undefined) expect([counts.get(subject), counts.get(other)]).toEqual([1, 1])
      const colorNamed =
        other !== undefined && !isColor && answer.startsWith(`The ${other} is ${categoryNamed(other).color}.`)
      programs[other === undefined ? 'color at' : isColor ? 'color beside' : colorNamed ? 'color' : 'place'] += 1
    }
    for (const [program, count] of Object.entries(programs)) expect(count, program).toBeGreaterThan(10)
  })

  test('have exactly one thing on the side that they ask for', () => {
    const offsets = { 'to the left of': [0, -1], 'to the right of': [0, 1], above: [1, -1], below: [1, 1] } as const
    for (const { scene, exchange } of all) {
      if (exchange.other === undefined) continue
      const relation = (Object.keys(offsets) as (keyof typeof offsets)[]).find((words) =>
        exchange.answer.includes(` is ${words} `),
      )!
      const [axis, sign] = offsets[relation]
      const center = ({ box }: Scene['objects'][number]) =>
        axis === 0 ? box.x + box.width / 2 : box.y + box.height / 2
      const from = center(scene.objects.find(({ category }) => category === exchange.other)!)
      const there = scene.objects.filter((object) => sign * (center(object) - from) > 0)
      expect(there.map(({ category }) => category)).toEqual([exchange.subject])
    }
  })

  test('favour no answer', () => {
    const exchanges = all.map(({ exchange }) => exchange)
    const colors = exchanges.filter(({ expected, subject }) => expected !== subject)
    expect(largestShare(colors)).toBeLessThan(0.27)
    expect(largestShare(exchanges.filter(({ expected, subject }) => expected === subject))).toBeLessThan(0.06)
  })
})

describe('reasoning', () => {
  test('has rules about things and settings that there are', () => {
    expect(rules.length).toBeGreaterThanOrEqual(15)
    const known = new Set<string>([...categories.map(({ name }) => name), ...settings])
    for (const { all = [], any = [], what } of rules) {
      for (const fact of [...all, ...any]) expect(known, what).toContain(fact)
      expect(all.length + any.length > 0 || rules.find((rule) => rule.what === what)!.group).toBeTruthy()
    }
  })

  test('supports, denies, or leaves open', () => {
    const party = rules.find(({ what }) => what === 'be a party')!
    expect(supportOf(party, new Set(['cake', 'gift', 'dog', 'field']))).toEqual(['cake', 'gift'])
    expect(supportOf(party, new Set(['cake', 'field']))).toBeUndefined()
    expect(denialOf(party, new Set(['cake', 'field']))).toBeUndefined()
    expect(denialOf(party, new Set(['dog', 'field']))).toBe('there is no cake, no gift and no balloon')
    const grass = rules.find(({ what }) => what === 'eat grass')!
    expect(denialOf(grass, new Set(['cow', 'room']))).toBe('there is no field')
  })

  test('says facts with their numbers and their place', () => {
    const scene = makeScene(3)
    const objects = ['owl', 'owl', 'dog'].map((category) => ({ ...scene.objects[0]!, category }))
    const night: Scene = { ...scene, setting: 'night', objects }
    expect(clauseOf(['night'], night)).toBe('it is night')
    expect(clauseOf(['owl', 'night'], night)).toBe('there are two owls at night')
    expect(clauseOf(['snow'], { ...night, setting: 'snow' })).toBe('the picture is in the snow')
  })

  test('rests on facts that are there, and denies only what is not', () => {
    for (const short of [true, false]) {
      for (const { scene, exchange } of asked('reasoning', short)) {
        const present = factsOf(scene)
        for (const fact of exchange.facts!) expect(present).toContain(fact)
        expect(exchange.facts!.length > 0).toBe(exchange.expected !== 'no')
        expect(scoreAnswer(exchange, exchange.answer), exchange.answer).toBe(true)
        if (exchange.expected === 'no') continue
        expect(scoreAnswer(exchange, `${exchange.answer} No ${scene.objects[0]!.category}.`), exchange.answer).toBe(
          false,
        )
      }
    }
  })

  test('affirms as often as it denies, and a claim does not tell its answer', () => {
    const many = Array.from({ length: 6000 }, (_, seed) => makeScene(seed)).flatMap((scene, seed) => {
      const exchange = makeExchange(scene, { seed, skill: 'reasoning', short: false })
      return exchange && (exchange.expected === 'yes' || exchange.expected === 'no') ? [exchange] : []
    })
    expect(Math.abs(shareOf(many, 'yes') - 0.5)).toBeLessThan(0.04)
    const guessed = rules.map(({ who, what }) => {
      const about = many.filter(({ question }) => question.includes(`${who} `) && question.includes(what))
      return Math.max(
        about.filter(({ expected }) => expected === 'yes').length,
        about.filter(({ expected }) => expected === 'no').length,
      )
    })
    expect(guessed.reduce((sum, count) => sum + count, 0) / many.length).toBeLessThan(0.59)
  })
})

test('what a picture cannot tell is asked of things that occur once, and never of what is seen behind a thing', () => {
  for (const { scene, exchange } of asked('unknowable', false)) {
    const { subject, question } = exchange
    if (subject !== undefined) expect(countCategories(scene).get(subject)).toBe(1)
    if (question.includes('behind')) expect(scene.objects.every(({ visible }) => visible === 1)).toBe(true)
  }
})

test('about one question in eight for a place or a colour is about a thing that is not there', () => {
  for (const skill of ['position', 'color'] as const) {
    const exchanges = asked(skill).map(({ exchange }) => exchange)
    expect(Math.abs(shareOf(exchanges, 'absent') - 0.12), skill).toBeLessThan(0.03)
  }
})
