/** Questions and answers as data: the skills, one exchange, what an asker may look at, and how both forms are worded. */
import { drawCategory } from './composition.ts'
import { type Form, phrase, type Slots } from './phrasings.ts'
import type { Random } from './random.ts'
import { absentCategories, type Scene } from './scene.ts'
import { askShortly } from './short-answers.ts'
import type { Split } from './splits.ts'

/** The order decides the random numbers of each skill: append, never insert. */
export const skills = [
  'existence',
  'count',
  'position',
  'relation',
  'listing',
  'category-at',
  'color',
  'setting',
  'caption',
  'detailed-description',
  'comparison',
  'odd-one-out',
  'nearest',
  'multi-hop',
  'reasoning',
  'unknowable',
] as const
export type Skill = (typeof skills)[number]

/** Which thing a question with the answer "no" asks for (POPE: Li et al., 2023; adversarial = often seen together). */
export type Negative = 'random' | 'popular' | 'adversarial'

export type Exchange = {
  skill: Skill
  question: string
  answer: string
  short: boolean // asked for a single word or phrase
  subject?: string // category asked about; of several steps, the one the last step finds
  other?: string // second category of a relation or comparison; of several steps, the one found on the way
  relation?: string // the direction asked about, 'left or right', 'above or below', 'more', 'most', 'as many'
  negative?: Negative // how the absent category of an existence question was found
  facts?: readonly string[] // categories and setting that a conclusion rests on; none for the answer "no"
  present?: readonly string[] // all categories and the setting of the scene, where an answer may name any of them
  /** Canonical: 'yes', 'no', '3', 'top left', 'absent', 'left', 'cat', 'red', 'a cat and two dogs', 'unknown'. */
  expected: string
}

/** What an asker may look at. */
export type Context = {
  scene: Scene
  random: Random
  split: Split
  short: boolean
  negative: Negative | undefined
  known: ReadonlySet<string> // things whose existence was asked before in the conversation
}

/** One exchange about a scene; undefined when the scene does not allow it or the answer would unbalance the skill. */
export type Asker = (context: Context) => Exchange | undefined

/** Question and answer in words: a request for a single word and that word, or neither and a sentence. */
export function words(
  { random, split, short }: Context,
  { form, slots, sentence, word }: { form: Form; slots: Slots; sentence: string; word: string },
): { question: string; answer: string; short: boolean } {
  const question = phrase(random, { form, slots, split })
  return short
    ? { question: askShortly(random, question, { split }), answer: word, short }
    : { question, answer: sentence, short }
}

/** Share of the questions for a place or a colour that ask about a thing which is not there. */
export const absentShare = 0.12
/** What a short answer says of such a thing. */
export const absentPhrase = 'not in the picture'

/** `There is no dog in the picture.` */
export function absentSentence(name: string): string {
  return `There is no ${name} in the picture.`
}

/** A thing that the scene lacks, drawn as scenes draw theirs: its name must not tell that it is absent. */
export function drawAbsent({ scene, random }: Context, allowed: (name: string) => boolean = () => true): string {
  const absent = new Set(absentCategories(scene).map((category) => category.name))
  return drawCategory(random, { allowed: (name) => absent.has(name) && allowed(name) }).name
}
