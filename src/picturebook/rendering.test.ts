import { beforeAll, describe, expect, test } from 'vitest'
import { categories, heldOutStyle, type Style, styles } from './categories.ts'
import { aspectOf, type Drawings, loadDrawings, spriteOf } from './drawings.ts'
import { centerLabels, labelNames, partLabels, settingCount, textPicture } from './labels.ts'
import { proportions } from './proportions.ts'
import { renderScene } from './rendering.ts'
import { type Box, makeScene, type Scene } from './scene.ts'

let drawings: Drawings
beforeAll(async () => {
  drawings = await loadDrawings({ styles })
}, 60_000)

/** The smallest box around all pixels that differ between two pictures of one size. */
function changedBox(scene: Scene, other: Scene): Box {
  const [one, two] = [renderScene(scene, drawings), renderScene(other, drawings)]
  const changed = Array.from({ length: scene.side ** 2 }, (_, pixel) => pixel).filter((pixel) =>
    [0, 1, 2].some((channel) => one.data[pixel * 3 + channel] !== two.data[pixel * 3 + channel]),
  )
  const columns = changed.map((pixel) => pixel % scene.side)
  const rows = changed.map((pixel) => Math.floor(pixel / scene.side))
  const [x, y] = [Math.min(...columns), Math.min(...rows)]
  return { x, y, width: Math.max(...columns) + 1 - x, height: Math.max(...rows) + 1 - y }
}

function union(one: Box, other: Box): Box {
  const [x, y] = [Math.min(one.x, other.x), Math.min(one.y, other.y)]
  const right = Math.max(one.x + one.width, other.x + other.width)
  const bottom = Math.max(one.y + one.height, other.y + other.height)
  return { x, y, width: right - x, height: bottom - y }
}

describe('rendering', () => {
  test('gives RGB of the stated size, the same each time', () => {
    const scene = makeScene(7)
    const picture = renderScene(scene, drawings)
    expect([picture.width, picture.height, picture.data.length]).toEqual([96, 96, 96 * 96 * 3])
    expect(renderScene(scene, drawings).data).toEqual(picture.data)
    expect(renderScene(makeScene(8), drawings).data).not.toEqual(picture.data)
  })

  test('changes exactly the pixels of the box when an object is added', () => {
    for (let seed = 0; seed < 150; seed++) {
      const scene = makeScene(seed, { objects: [1, 1], styles })
      // A white border on a white ground leaves no trace: a dark and a light ground together show all of it.
      const boxes = (['night', 'plain'] as const).map((setting) =>
        changedBox({ ...scene, setting }, { ...scene, setting, objects: [] }),
      )
      expect(union(boxes[0]!, boxes[1]!), `seed ${seed}`).toEqual(scene.objects[0]!.box)
    }
  })

  test('paints the later of two objects over the earlier one', () => {
    for (let seed = 0; seed < 20; seed++) {
      const scene = makeScene(seed, { objects: [2, 2], overlap: 1 })
      const [far, near] = scene.objects
      // Under an opaque pixel of the nearer object it does not matter where the farther one is.
      const moved = { ...scene, objects: [{ ...far!, box: { ...far!.box, x: 0, y: 0 } }, near!] }
      const [picture, other] = [renderScene(scene, drawings), renderScene(moved, drawings)]
      const { box, category, style, mirrored } = near!
      const sprite = spriteOf(drawings, { category, style, width: box.width, height: box.height })
      for (let pixel = 0; pixel < box.width * box.height; pixel++) {
        const [x, y] = [pixel % box.width, Math.floor(pixel / box.width)]
        const from = y * box.width + (mirrored ? box.width - 1 - x : x)
        if (sprite.data[from * 4 + 3] !== 255) continue
        const at = ((box.y + y) * scene.side + box.x + x) * 3
        expect(picture.data.slice(at, at + 3)).toEqual(other.data.slice(at, at + 3))
      }
    }
  })

  test('mirrors a drawing when asked', () => {
    const scene = makeScene(3, { objects: [1, 1] })
    const flipped = { ...scene, objects: scene.objects.map((object) => ({ ...object, mirrored: !object.mirrored })) }
    expect(renderScene(flipped, drawings).data).not.toEqual(renderScene(scene, drawings).data)
  })

  test('has a drawing of the written proportions for every category in every style', () => {
    for (const { name } of categories) {
      for (const [index, style] of styles.entries()) {
        expect(aspectOf(drawings, { category: name, style }), `${name} ${style}`).toBeCloseTo(
          proportions[name]![index]!,
          1,
        )
      }
    }
  })

  test('fills sprites to all four borders', () => {
    for (const { name } of categories) {
      const { data } = spriteOf(drawings, { category: name, style: 'emojione', width: 20, height: 20 })
      const opaque = Array.from({ length: 400 }, (_, pixel) => pixel).filter((pixel) => data[pixel * 4 + 3]! >= 48)
      const columns = opaque.map((pixel) => pixel % 20)
      expect([Math.min(...columns), Math.max(...columns), Math.floor(opaque[0]! / 20)], name).toEqual([0, 19, 0])
      expect(Math.floor(opaque.at(-1)! / 20), name).toBe(19)
    }
  })

  test('says which styles are loaded when one is missing', async () => {
    const few = await loadDrawings({ styles: ['noto'] })
    const scene = makeScene(1, { styles: [heldOutStyle] })
    expect(() => renderScene(scene, few)).toThrow(/style twemoji: the loaded styles are noto/)
    await expect(loadDrawings({ styles: ['crayon' as Style] })).rejects.toThrow(/found style "crayon", expected one of/)
  })
})

describe('patch labels', () => {
  test('name every object and nothing else, with boxes, drawn pixels or middles', () => {
    for (let seed = 0; seed < 300; seed++) {
      const scene = makeScene(seed)
      const present = new Set(scene.objects.map((object) => object.category))
      for (const labels of [
        partLabels(scene, { patch: 12 }),
        partLabels(scene, { patch: 12, drawings }),
        centerLabels(scene, { patch: 12 }),
      ]) {
        expect(labels).toHaveLength(64)
        const named = [...labels].filter((label) => label >= settingCount).map((label) => labelNames[label])
        expect(new Set(named), `seed ${seed}`).toEqual(present)
      }
    }
  })

  test('put the category where the box is and the setting elsewhere', () => {
    const [object] = makeScene(1, { objects: [1, 1] }).objects
    const box = { x: 24, y: 48, width: 24, height: 12 }
    const scene: Scene = { ...makeScene(1), setting: 'sea', objects: [{ ...object!, category: 'cat', box }] }
    const expected = Array<string>(64).fill('sea')
    expected.fill('cat', 4 * 8 + 2, 4 * 8 + 4)
    expect([...partLabels(scene, { patch: 12 })].map((label) => labelNames[label])).toEqual(expected)
  })

  test('write every object once, also when two middles share a patch', () => {
    for (let seed = 0; seed < 100; seed++) {
      const scene = makeScene(seed, { objects: [8, 8], overlap: 1 })
      const words = textPicture(scene, { patch: 24 }).filter((word) => word !== scene.setting)
      expect(words.sort(), `seed ${seed}`).toEqual(scene.objects.map(({ category }) => category).sort())
    }
  })

  test('refuse a patch that does not divide the side', () => {
    expect(() => partLabels(makeScene(1), { patch: 14 })).toThrow(RangeError)
    expect(() => centerLabels(makeScene(1), { patch: 14 })).toThrow(RangeError)
  })
})
