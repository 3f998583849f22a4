import { describe, expect, test } from 'vitest'
import { categories, categoryNamed } from './categories.ts'
import { contrastedCaption, type Fact } from './contrasts.ts'
import { thingsSaid } from './language.ts'
import { directionPhrase, directions, directionsFrom, fieldOf, fields, placePhrase, settingPhrase } from './places.ts'
import { countCategories, makeScene, type Scene, settings, uniqueObjects } from './scene.ts'
import { isHeldOutPair, splits } from './splits.ts'

const made = Array.from({ length: 400 }, (_, seed) => {
  const scene = makeScene(seed, { objects: [1, 4] })
  return { scene, caption: contrastedCaption(scene, { seed: 0, count: 3, most: 4 }) }
})

describe('contrastedCaption', () => {
  test('says what is true, and changes it into what is not', () => {
    for (const { scene, caption } of made) {
      expect(falseSentences(scene, caption.text), caption.text).toEqual([])
      for (const { fact, text } of caption.contrasts) {
        expect(falseSentences(scene, text).length, text).toBeGreaterThan(0)
        // A name is changed wherever it stands; everything else in one sentence.
        if (fact !== 'category') expect(differing(caption.text, text), text).toBe(1)
      }
    }
  })

  test('changes every kind of fact', () => {
    const found = new Set<Fact>(made.flatMap(({ caption }) => caption.contrasts.map(({ fact }) => fact)))
    expect([...found].sort()).toEqual(['category', 'color', 'count', 'place', 'relation'])
  })

  test('gives different ones, as many as were asked for where the scene allows it', () => {
    for (const { caption } of made) {
      const texts = [caption.text, ...caption.contrasts.map(({ text }) => text)]
      expect(new Set(texts).size).toBe(texts.length)
      expect(caption.contrasts.length).toBeLessThanOrEqual(3)
    }
    const full = made.filter(({ caption }) => caption.contrasts.length === 3).length
    expect(full).toBeGreaterThan(0.85 * made.length)
    expect(contrastedCaption(made[0]!.scene, { seed: 0, count: 0, most: 4 }).contrasts).toEqual([])
  })

  test('is the same each time, and another with another seed', () => {
    const [{ scene, caption }] = made as [(typeof made)[number]]
    expect(contrastedCaption(scene, { seed: 0, count: 3, most: 4 })).toEqual(caption)
    const others = made.filter(
      ({ scene, caption }) => contrastedCaption(scene, { seed: 1, count: 3, most: 4 }).text !== caption.text,
    )
    expect(others.length).toBeGreaterThan(made.length / 2)
  })

  test('cannot be found out without the picture: as many things, no held-out pair, things that are called "the" are there once', () => {
    for (const { caption } of made) {
      for (const { text } of caption.contrasts) {
        const things = thingsSaid(sentencesOf(text)[0]!)
        expect([...things.values()].reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(4)
        const names = [...things.keys()]
        expect(
          names.some((one) => names.some((other) => isHeldOutPair(one, other))),
          text,
        ).toBe(false)
        for (const [, name = ''] of text.matchAll(/\b[Tt]he (\w+)/g)) {
          if (categories.some((category) => category.name === name)) expect(things.get(name), text).toBe(1)
        }
      }
    }
  })

  test('works on every split', () => {
    for (const split of splits) {
      const scene = makeScene(3, { objects: [2, 4], split })
      expect(falseSentences(scene, contrastedCaption(scene, { seed: 0, count: 3, most: 4 }).text)).toEqual([])
    }
  })
})

function sentencesOf(text: string): string[] {
  return text.split(/(?<=\.) /)
}

function differing(one: string, other: string): number {
  const [a, b] = [sentencesOf(one), sentencesOf(other)]
  return a.filter((sentence, i) => sentence !== b[i]).length
}

/** The sentences of a caption that the scene contradicts: read back with nothing of what wrote them. */
function falseSentences(scene: Scene, text: string): string[] {
  const [listing = '', ...statements] = sentencesOf(text)
  const truth = countCategories(scene)
  const said = thingsSaid(listing)
  const listed = said.size === truth.size && [...said].every(([name, count]) => truth.get(name) === count)
  const place = settings.find((setting) => listing.includes(settingPhrase(setting)))
  const wrong = listed && (place === undefined || place === scene.setting) ? [] : [listing]
  return [...wrong, ...statements.filter((statement) => !isTrue(scene, statement))]
}

function isTrue(scene: Scene, statement: string): boolean {
  const { side } = scene
  const one = (name: string) => uniqueObjects(scene).find(({ category }) => category === name)
  const [, colored = '', color] = /^The thing (.+) is (\w+)\.$/.exec(statement) ?? []
  if (color !== undefined) {
    const there = scene.objects.filter(({ box }) => {
      const field = fieldOf(box, side)
      return field !== undefined && placePhrase(field) === colored
    })
    return there.length === 1 && categoryNamed(there[0]!.category).color === color
  }
  const [, name = '', rest = ''] = /^The (\w+) is (.+)\.$/.exec(statement) ?? []
  const subject = one(name)
  if (subject === undefined) return false
  const field = fields.find((field) => placePhrase(field) === rest)
  if (field !== undefined) return fieldOf(subject.box, side) === field
  const direction = directions.find((direction) => rest.startsWith(`${directionPhrase(direction)} the `))
  const other = one(rest.split(' ').at(-1) ?? '')
  if (direction === undefined || other === undefined) return false
  return Object.values(directionsFrom(subject.box, { other: other.box, side })).includes(direction)
}
