import { describe, expect, test } from 'vitest'
import { mirrorExchange, mirrorScene } from './mirror.ts'
import { directionsFrom, fieldOf } from './places.ts'
import { makeExchange, type Skill } from './questions.ts'
import { makeScene } from './scene.ts'

describe('mirrors', () => {
  test('give back the scene when used twice', () => {
    for (let seed = 0; seed < 50; seed++) {
      const scene = makeScene(seed)
      expect(mirrorScene(mirrorScene(scene))).toEqual(scene)
    }
  })

  test.each(['position', 'relation'] satisfies Skill[])('turn the answer of a question of %s', (skill) => {
    let turned = 0
    for (let seed = 0; seed < 400; seed++) {
      const scene = makeScene(seed, { objects: [2, 4] })
      const exchange = makeExchange(scene, { seed, skill })
      if (exchange === undefined || exchange.expected === 'absent') continue
      const { objects, side } = mirrorScene(scene)
      const boxOf = (name = '') => objects.find(({ category }) => category === name)!.box
      const { expected, subject, other, relation = '' } = mirrorExchange(exchange)
      if (expected !== exchange.expected) turned++
      if (skill === 'position') expect(expected).toBe(fieldOf(boxOf(subject), side))
      else {
        const { horizontal, vertical } = directionsFrom(boxOf(subject), { other: boxOf(other), side })
        const said = expected === 'yes' || expected === 'no' ? relation : expected
        expect([horizontal, vertical].includes(said as 'left'), `seed ${seed}`).toBe(expected !== 'no')
      }
    }
    expect(turned).toBeGreaterThan(60)
  })
})
