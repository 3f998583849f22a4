/**
 * The picturebook benchmark: questions about scenes that no recipe trains on, whose answers are known, each asked twice: with the picture, and with a
 * blank one. What a model gains from the picture is the difference.
 */

import { filledPixels, type Pixels } from '../image/pixels.ts'
import {
  skills as allSkills,
  type Exchange,
  loadDrawings,
  makeExchange,
  makeScene,
  mirrorExchange,
  mirrorScene,
  renderScene,
  type Skill,
  type Split,
  scoreAnswer,
} from '../picturebook/index.ts'
import { type DescriptionScores, scoreDescriptions } from './descriptions.ts'
import { type Share, shareOf, yesNoScores } from './statistics.ts'

export type SkillScore = Share & {
  readonly skill: Skill
  readonly blind: Share | undefined
  /** For position and relation: of the answers that are right, those that are right in the mirrored picture as well. */
  readonly mirrored: Share | undefined
}

export type PicturebookReport = {
  readonly split: Split
  readonly scenes: number
  readonly seed: number
  readonly skills: readonly SkillScore[]
  /** Of the existence questions: balanced, so a model that looks says yes half of the time. */
  readonly existence: {
    readonly f1: number
    readonly yesRatio: number
    readonly byNegative: Readonly<Record<string, Share>>
  }
  readonly descriptions: DescriptionScores
  /** Shares of right counts by the true number. */
  readonly counts: Readonly<Record<string, Share>>
}

export type Answerer = (question: { readonly picture: Pixels; readonly question: string }) => Promise<string>

export type PicturebookOptions = {
  readonly scenes: number
  readonly side: number // S, pixels
  readonly split?: Split
  readonly skills?: readonly Skill[]
  readonly objects?: readonly [number, number]
  readonly seed?: number
  /** Also ask with a blank picture. */
  readonly blind?: boolean
  readonly signal?: AbortSignal | undefined
  /** Told after every scene. */
  readonly onProgress?: (done: { readonly scenes: number; readonly right: number; readonly asked: number }) => void
}

/** All but captions, which may leave out what they like. */
const defaultSkills: readonly Skill[] = allSkills.filter((skill) => skill !== 'caption')

/** One question of every skill per scene, so that the answers within a skill are independent of one another. */
export async function evaluatePicturebook(answer: Answerer, options: PicturebookOptions): Promise<PicturebookReport> {
  const { scenes, side, split = 'iid', skills = defaultSkills, objects = [1, 4], seed = 0, blind = true } = options
  const drawings = await loadDrawings({ side, ...(split === 'held-out-style' && { styles: ['twemoji'] }) })
  const blank = filledPixels(side, side, [122, 116, 104]) // the mean colour, as the padding of pictures has it
  const seen: Scored[] = []
  const unseen: Scored[] = []
  const mirrored: Scored[] = []

  for (let number = 0; number < scenes; number++) {
    options.signal?.throwIfAborted()
    // Far from the first scenes of the split: those validate while training.
    const scene = makeScene(1_000_000 + seed * 100_000 + number, { side, split, objects })
    const picture = renderScene(scene, drawings)
    let mirror: Pixels | undefined
    for (const skill of skills) {
      const exchange = makeExchange(scene, { seed: number, skill, split })
      if (exchange === undefined) continue
      const answered = await ask(answer, { exchange, picture })
      seen.push(answered)
      if (answered.right && (skill === 'position' || skill === 'relation')) {
        mirror ??= renderScene(mirrorScene(scene), drawings)
        mirrored.push(await ask(answer, { exchange: mirrorExchange(exchange), picture: mirror }))
      }
      if (blind) unseen.push(await ask(answer, { exchange, picture: blank }))
    }
    options.onProgress?.({ scenes: number + 1, right: seen.filter(({ right }) => right).length, asked: seen.length })
  }
  options.signal?.throwIfAborted() // answers that were cut off are no answers
  return {
    split,
    scenes,
    seed,
    skills: skills.map((skill) => scoreSkill(skill, { seen, unseen: blind ? unseen : undefined, mirrored })),
    existence: scoreExistence(seen),
    descriptions: scoreDescriptions(ofSkill(seen, 'detailed-description')),
    counts: scoreCounts(seen),
  }
}

type Scored = { readonly exchange: Exchange; readonly said: string; readonly right: boolean }

async function ask(answer: Answerer, { exchange, picture }: { exchange: Exchange; picture: Pixels }): Promise<Scored> {
  const said = await answer({ picture, question: exchange.question })
  return { exchange, said, right: scoreAnswer(exchange, said) }
}

function scoreSkill(
  skill: Skill,
  {
    seen,
    unseen,
    mirrored,
  }: Readonly<Record<'seen' | 'mirrored', readonly Scored[]>> & { unseen: readonly Scored[] | undefined },
): SkillScore {
  const mirror = ofSkill(mirrored, skill)
  return {
    skill,
    ...shareRight(ofSkill(seen, skill)),
    blind: unseen && shareRight(ofSkill(unseen, skill)),
    mirrored: mirror.length > 0 ? shareRight(mirror) : undefined,
  }
}

function scoreCounts(seen: readonly Scored[]): Record<string, Share> {
  const asked = ofSkill(seen, 'count')
  const numbers = [...new Set(asked.map(({ exchange }) => exchange.expected))].sort()
  return Object.fromEntries(
    numbers.map((number) => [number, shareRight(asked.filter(({ exchange }) => exchange.expected === number))]),
  )
}

/** An answer that is neither yes nor no counts as no: it found nothing. */
function scoreExistence(seen: readonly Scored[]): PicturebookReport['existence'] {
  const asked = ofSkill(seen, 'existence')
  const pairs = asked.map(({ exchange, right }) => ({
    expected: exchange.expected === 'yes',
    said: right ? exchange.expected === 'yes' : exchange.expected === 'no',
  }))
  const kinds = [...new Set(asked.flatMap(({ exchange }) => exchange.negative ?? []))].sort()
  const byNegative = kinds.map((kind) => [kind, shareRight(asked.filter(({ exchange }) => exchange.negative === kind))])
  const { f1, yesRatio } = yesNoScores(pairs)
  return { f1, yesRatio, byNegative: Object.fromEntries(byNegative) }
}

function ofSkill(scored: readonly Scored[], skill: Skill): readonly Scored[] {
  return scored.filter(({ exchange }) => exchange.skill === skill)
}

function shareRight(scored: readonly Scored[]): Share {
  return shareOf(scored.filter(({ right }) => right).length, scored.length)
}
