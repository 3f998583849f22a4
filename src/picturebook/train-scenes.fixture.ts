/** Scenes of the training split, and what is asked about them. */

import { type Exchange, makeExchange, type Skill } from './questions.ts'
import { makeScene } from './scene.ts'

export const train = Array.from({ length: 2000 }, (_, seed) => makeScene(seed))

/** What is asked about the scenes in one skill: where it can be, the first `most`. */
export function exchangesOf(
  skill: Skill,
  { most = train.length, ...options }: { short?: boolean; most?: number } = {},
) {
  const exchanges: Exchange[] = []
  for (const [seed, scene] of train.entries()) {
    if (exchanges.length === most) break
    const exchange = makeExchange(scene, { seed, skill, ...options })
    if (exchange !== undefined) exchanges.push(exchange)
  }
  return exchanges
}
