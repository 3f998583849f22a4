/** The scene graph as a validator of instruction data: every sentence of every answer is checked. */

import type { Draft, Validator } from '../instruction-data/validators.ts'
import { checkAnswer } from './claims.ts'
import type { Scene } from './scene.ts'
import { sceneOf } from './scene-of.ts'

export function sceneValidator(): Validator {
  return {
    name: 'scene',
    check: ({ task, exchanges }: Draft) => {
      let scene: Scene
      try {
        scene = sceneOf(task.picture)
      } catch (error) {
        if (error instanceof RangeError) return error.message
        throw error
      }
      const wrong = exchanges.flatMap((exchange) => checkAnswer(scene, exchange).wrong)
      const [first] = wrong
      if (first === undefined) return undefined
      return `${wrong.length} ${wrong.length === 1 ? 'sentence is' : 'sentences are'} false: "${first.sentence}" (${first.reason})`
    },
  }
}
