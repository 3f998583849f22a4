/** Questions about a scene with exact answers, balanced so that guessing without the picture does not pay. */
import { ask, type Exchange, type Negative, type Skill, skills } from './askers.ts'
import { chance, chooseWeighted, createRandom, type Random } from './random.ts'
import { type Scene, streams } from './scene.ts'
import type { Split } from './splits.ts'

export { type Exchange, type Negative, type Skill, skills } from './askers.ts'

export type ExchangeOptions = {
  seed: number
  skill: Skill
  short?: boolean // at random unless told; captions and descriptions are never short
  split?: Split // decides the phrasings, 'train' unless told
  negative?: Negative // all three equally often unless told
}

/** How often each skill is asked; skills that a scene does not allow are skipped. */
const skillWeights: Readonly<Record<Skill, number>> = {
  existence: 4,
  count: 3,
  position: 2,
  relation: 3,
  listing: 1.5,
  'category-at': 1.5,
  color: 1,
  setting: 0.7,
  caption: 0.7,
  'detailed-description': 0.4,
  comparison: 1,
  'odd-one-out': 0.5,
  nearest: 1,
  'multi-hop': 1,
  reasoning: 0.7,
  unknowable: 0.4,
}

/**
 * Several exchanges about one scene, no question asked twice. Fewer than `turns` when the scene gives no more.
 * @param options.skills replaces `skillWeights`: skills left out are not asked
 */
export function makeConversation(
  scene: Scene,
  options: {
    seed: number
    turns: number
    split?: Split
    skills?: Partial<Record<Skill, number>>
    short?: number // share of questions that ask for a single word, 0.5 unless told
  },
): Exchange[] {
  const { seed, turns, split = 'train' } = options
  const random = questionRandom(scene, { seed, purpose: 1 })
  const weights = new Map(
    skills.map((skill) => [skill, options.skills ? (options.skills[skill] ?? 0) : skillWeights[skill]]),
  )
  const asked = new Set<string>()
  const exchanges: Exchange[] = []
  for (let attempt = 0; attempt < 12 * turns && exchanges.length < turns && hasPositive(weights); attempt++) {
    const skill = chooseWeighted(random, [...weights])
    const short = chance(random, options.short ?? 0.5)
    const exchange = ask({ scene, random, split, short, negative: undefined, known: knownThings(exchanges) }, skill)
    const about = exchange && topicOf(exchange)
    if (!exchange || !about || asked.has(about)) {
      // Asking for a count until one is kept would undo its balance.
      if (!exchange || skill === 'count') weights.delete(skill)
      continue
    }
    asked.add(about)
    exchanges.push(exchange)
  }
  return exchanges
}

/** One exchange of a skill; undefined when the scene does not allow it or the answer would unbalance the skill. */
export function makeExchange(scene: Scene, options: ExchangeOptions): Exchange | undefined {
  const { seed, skill, split = 'train', negative } = options
  const random = questionRandom(scene, { seed, purpose: 2 + skills.indexOf(skill) })
  const short = options.short ?? chance(random, 0.5)
  return ask({ scene, random, split, short, negative, known: new Set() }, skill)
}

/** Conversations and skills draw from streams of their own. */
const mostPurposes = 32

function questionRandom(scene: Scene, { seed, purpose }: { seed: number; purpose: number }): Random {
  return createRandom(scene.seed, streams.questions + 16 * (seed * mostPurposes + purpose))
}

function hasPositive(weights: ReadonlyMap<Skill, number>): boolean {
  return [...weights.values()].some((weight) => weight > 0)
}

/** What a question is about, however it is worded: two questions of one topic would say the same twice. */
function topicOf({ skill, subject, other, expected }: Exchange): string {
  const things = [subject, other].sort().join(' ')
  return `${skill}/${things}/${skill === 'category-at' ? expected : ''}`
}

function knownThings(exchanges: readonly Exchange[]): Set<string> {
  return new Set(exchanges.flatMap(({ skill, subject }) => (skill === 'existence' && subject ? [subject] : [])))
}
