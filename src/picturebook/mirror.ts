/** Scenes and questions as a mirror shows them: who really sees where things are answers both. */
import type { Exchange } from './exchange.ts'
import type { Scene } from './scene.ts'

/** The scene with left and right exchanged. */
export function mirrorScene(scene: Scene): Scene {
  const objects = scene.objects.map((object) => ({
    ...object,
    box: { ...object.box, x: scene.side - object.box.x - object.box.width },
    mirrored: !object.mirrored,
  }))
  return { ...scene, objects }
}

/** The same question with the answer that is right in the mirrored scene; for questions of position and relation. */
export function mirrorExchange(exchange: Exchange): Exchange {
  const { expected, relation } = exchange
  const turned = { yes: 'no', no: 'yes' }[expected] ?? expected
  if (exchange.skill === 'relation' && (relation === 'left' || relation === 'right')) {
    return { ...exchange, expected: turned }
  }
  const sides: Readonly<Record<string, string>> = { left: 'right', right: 'left' }
  return { ...exchange, expected: expected.replace(/left|right/, (side) => sides[side] ?? side) }
}
