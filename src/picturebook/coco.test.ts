import { describe, expect, test } from 'vitest'
import { captions } from './captions.ts'
import { categories, styles, trainingStyles } from './categories.ts'
import { cocoCaptions, cocoInstances, creditsOf, type NumberedScene, type PictureSet } from './coco.ts'
import { makeScene } from './scene.ts'

const numbered: NumberedScene[] = Array.from({ length: 40 }, (_, id) => ({
  id,
  file: `${id}.png`,
  scene: makeScene(id, { objects: [1, 8], split: 'iid', overlap: 0.5 }),
}))
const about: PictureSet = { split: 'iid', seed: 0, styles: trainingStyles }
const instances = JSON.parse([...cocoInstances(() => numbered, about)].join(''))
const told = JSON.parse([...cocoCaptions(() => numbered, about)].join(''))

type Annotation = {
  id: number
  image_id: number
  category_id: number
  bbox: number[]
  area: number
  iscrowd: number
  visibility: number
}

describe('COCO instances', () => {
  test('have exactly the boxes and categories of the scenes', () => {
    const names = new Map<number, string>(
      instances.categories.map((row: { id: number; name: string }) => [row.id, row.name]),
    )
    for (const { id, scene } of numbered) {
      const rows = instances.annotations.filter((row: Annotation) => row.image_id === id) as Annotation[]
      expect(rows.map(({ category_id, bbox }) => [names.get(category_id), ...bbox])).toEqual(
        scene.objects.map(({ category, box }) => [category, box.x, box.y, box.width, box.height]),
      )
      for (const { bbox, area, iscrowd } of rows) expect([area, iscrowd]).toEqual([bbox[2]! * bbox[3]!, 0])
    }
  })

  test('have the whole box of a covered object, and how much of it is visible', () => {
    const rows = instances.annotations as Annotation[]
    const objects = numbered.flatMap(({ scene }) => scene.objects)
    expect(rows.map(({ visibility }) => visibility)).toEqual(
      objects.map(({ visible }) => Math.round(visible * 10_000) / 10_000),
    )
    expect(rows.filter(({ visibility }) => visibility < 1).length).toBeGreaterThan(5)
  })

  test('have every category once, none with the id 0', () => {
    expect(instances.categories.map(({ name }: { name: string }) => name)).toEqual(categories.map(({ name }) => name))
    expect(instances.categories.map(({ id }: { id: number }) => id)).toEqual(categories.map((_, index) => index + 1))
  })
})

describe('COCO captions', () => {
  test('are the five of each scene', () => {
    for (const { id, scene } of numbered) {
      const rows = told.annotations.filter((row: { image_id: number }) => row.image_id === id)
      expect(rows).toHaveLength(5)
      expect(rows.map(({ caption }: { caption: string }) => caption)).toEqual(captions(scene, { seed: 0 }))
    }
  })
})

describe('both COCO files', () => {
  test('name the same pictures and number their annotations from 1', () => {
    expect(told.images).toEqual(instances.images)
    expect(told.images[3]).toMatchObject({ id: 3, file_name: '3.png', width: 96, height: 96 })
    for (const { annotations } of [told, instances]) {
      expect(annotations.map(({ id }: Annotation) => id)).toEqual(
        annotations.map((_: Annotation, at: number) => at + 1),
      )
    }
  })

  test('credit the styles that were drawn with, and give each picture the licences of its drawings', () => {
    expect(instances.info.credits).toEqual(creditsOf(trainingStyles))
    expect(instances.info.credits.map(({ style }: { style: string }) => style)).not.toContain('twemoji')
    const licenceOf = new Map(creditsOf(styles).map(({ style, licence }) => [style, licence]))
    const names = new Map(instances.licenses.map(({ id, name }: { id: number; name: string }) => [id, name]))
    for (const { id, scene } of numbered) {
      const stated = instances.images[id].licenses.map((licence: number) => names.get(licence))
      expect(new Set(stated)).toEqual(new Set(scene.objects.map(({ style }) => licenceOf.get(style))))
    }
  })

  test('are valid without any picture', () => {
    expect(JSON.parse([...cocoInstances(() => [], about)].join('')).annotations).toEqual([])
  })
})
