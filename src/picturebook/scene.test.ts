import { describe, expect, test } from 'vitest'
import { categories, heldOutStyle, trainingStyles } from './categories.ts'
import { hashText } from './random.ts'
import { countCategories, coveredBy, gapBetween, makeScene, type Scene, type SceneOptions } from './scene.ts'
import { heldOutCount, heldOutPairs, isHeldOutPair, splits } from './splits.ts'

const scenes = (count: number, options?: SceneOptions): Scene[] =>
  Array.from({ length: count }, (_, seed) => makeScene(seed, options))

const hasHeldOutPair = (scene: Scene) =>
  scene.objects.some((one) => scene.objects.some((other) => isHeldOutPair(one.category, other.category)))

const hasHeldOutCount = (scene: Scene) =>
  [...countCategories(scene)].some(([name, count]) => count === heldOutCount(name))

describe('scenes', () => {
  test('repeat themselves', () => {
    expect(makeScene(42)).toEqual(makeScene(42))
    expect(makeScene(42).objects).not.toEqual(makeScene(43).objects)
  })

  test.each([96, 64, 224])('keep boxes inside and apart at side %i', (side) => {
    for (const scene of scenes(120, { side, objects: [1, 8] })) {
      for (const [index, { box }] of scene.objects.entries()) {
        expect(Math.min(box.x, box.y)).toBeGreaterThanOrEqual(0)
        expect(Math.max(box.x + box.width, box.y + box.height)).toBeLessThanOrEqual(side)
        for (const other of scene.objects.slice(index + 1)) {
          expect(gapBetween(box, other.box)).toBeGreaterThanOrEqual((6 * side) / 96)
        }
        expect(scene.objects[index]!.visible).toBe(1)
      }
    }
  })

  test.each([32, 96])('hold as many objects as asked for, up to eight, at side %i', (side) => {
    for (const overlap of [0, 1]) {
      for (const scene of scenes(150, { objects: [8, 8], side, overlap })) expect(scene.objects).toHaveLength(8)
    }
    expect(new Set(scenes(200).map((scene) => scene.objects.length))).toEqual(new Set([1, 2, 3, 4]))
  })

  test('repeat a category in 35 to 55 percent, show every category and mirror half of the drawings', () => {
    const many = scenes(1500)
    const repeated = many.filter((scene) => Math.max(...countCategories(scene).values()) > 1).length / many.length
    expect(repeated).toBeGreaterThan(0.35)
    expect(repeated).toBeLessThan(0.55)
    const objects = many.flatMap((scene) => scene.objects)
    expect(new Set(objects.map((object) => object.category)).size).toBe(categories.length)
    expect(objects.filter((object) => object.mirrored).length / objects.length).toBeCloseTo(0.5, 1)
  })

  test('hold up to four of a kind as usual, up to six where there may be that many', () => {
    const counts = (options: SceneOptions) =>
      new Set(scenes(1500, options).flatMap((scene) => [...countCategories(scene).values()]))
    expect(counts({})).toEqual(new Set([1, 2, 3, 4]))
    expect(counts({ objects: [1, 8] })).toEqual(new Set([1, 2, 3, 4, 5, 6]))
  })

  test.each([
    96, 64, 224,
  ])('cover one object in the share of scenes asked for, by 10 to 40 percent, at side %i', (side) => {
    const many = scenes(700, { side, objects: [2, 8], overlap: 0.3 })
    const covering = many.filter(({ objects }) => objects.some(({ visible }) => visible < 1))
    expect(covering.length / many.length).toBeCloseTo(0.3, 1)
    for (const { objects } of covering) {
      const covered = objects.filter(({ visible }) => visible < 1)
      expect(covered).toHaveLength(1)
      expect(covered[0]!.visible).toBeGreaterThanOrEqual(0.6)
      expect(covered[0]!.visible).toBeLessThanOrEqual(0.9)
      const touching = objects.flatMap((one, at) =>
        objects
          .slice(at + 1)
          .flatMap((nearer) => (gapBetween(one.box, nearer.box) < 0 ? [[one, nearer] as const] : [])),
      )
      expect(touching).toHaveLength(1)
      const [one, nearer] = touching[0]!
      expect(one).toBe(covered[0])
      expect(one.visible).toBeCloseTo(1 - coveredBy(one.box, nearer.box), 12)
      for (const { box } of objects) {
        expect(Math.min(box.x, box.y)).toBeGreaterThanOrEqual(0)
        expect(Math.max(box.x + box.width, box.y + box.height)).toBeLessThanOrEqual(side)
      }
    }
  })

  test('tell what share of a box another covers', () => {
    const box = { x: 10, y: 10, width: 20, height: 10 }
    expect(coveredBy(box, { x: 25, y: 15, width: 30, height: 30 })).toBe(0.125)
    expect(coveredBy(box, { x: 0, y: 0, width: 90, height: 90 })).toBe(1)
    expect(coveredBy(box, { x: 30, y: 10, width: 5, height: 5 })).toBe(0)
    expect(coveredBy(box, { x: 40, y: 40, width: 5, height: 5 })).toBe(0)
  })

  test('refuse impossible options in one sentence', () => {
    expect(() => makeScene(-1)).toThrow(RangeError)
    expect(() => makeScene(1, { objects: [2, 1] })).toThrow(/found 2 to 1 objects/)
    expect(() => makeScene(1, { objects: [1, 9] })).toThrow(RangeError)
    expect(() => makeScene(1, { overlap: 1.5 })).toThrow(/found overlap 1.5, expected a share from 0 to 1/)
    expect(() => makeScene(1, { overlap: Number.NaN })).toThrow(RangeError)
    expect(() => makeScene(1, { objects: [1, 1], overlap: 0.5 })).toThrow(RangeError)
    expect(() => makeScene(1, { styles: [] })).toThrow(RangeError)
    expect(() => makeScene(1, { side: 20 })).toThrow(RangeError)
    expect(() => makeScene(1, { objects: [1, 1], split: 'held-out-pairs' })).toThrow(RangeError)
  })
})

describe('splits', () => {
  test('never share a scene seed', () => {
    const seeds = splits.flatMap((split) => scenes(50, { split }).map((scene) => scene.seed))
    expect(new Set(seeds).size).toBe(seeds.length)
  })

  test('draw the held-out style in its own split only', () => {
    for (const split of splits) {
      const drawn = new Set(scenes(200, { split }).flatMap((scene) => scene.objects.map((object) => object.style)))
      expect(drawn).toEqual(new Set(split === 'held-out-style' ? [heldOutStyle] : trainingStyles))
    }
  })

  test('keep held-out pairs, about a tenth of all, to their own split', () => {
    const all = (categories.length * (categories.length - 1)) / 2
    expect(heldOutPairs.length / all).toBeCloseTo(0.1, 1)
    for (const split of splits) {
      const found = scenes(300, { split, objects: [1, 8], overlap: 0.5 }).filter(hasHeldOutPair).length
      expect(found).toBe(split === 'held-out-pairs' ? 300 : 0)
    }
  })

  test('hold out what the names hash to, whichever name comes first', () => {
    for (const { name } of categories) {
      expect(heldOutCount(name)).toBe(2 + (hashText(`several ${name}`) % 3))
      expect(isHeldOutPair(name, name)).toBe(false)
      for (const other of categories.filter((category) => category.name > name)) {
        const held = hashText(`${name} and ${other.name}`) % 10 === 0
        expect([isHeldOutPair(name, other.name), isHeldOutPair(other.name, name)]).toEqual([held, held])
      }
    }
  })

  test('keep held-out counts to their own split', () => {
    for (const split of splits) {
      for (const options of [{ split }, { split, objects: [1, 8] }] as const) {
        const found = scenes(300, options).filter(hasHeldOutCount).length
        expect(found).toBe(split === 'held-out-counts' ? 300 : 0)
      }
    }
  })
})
