/** Questions that no picture answers: the right answer says so instead of making something up. */
import { categoryNamed, type Group } from './categories.ts'
import { type Context, type Exchange, words } from './exchange.ts'
import type { Form } from './phrasings.ts'
import { choose } from './random.ts'
import { gapBetween, type Scene, type SceneObject, uniqueObjects } from './scene.ts'

export const unknownSentence = 'That cannot be known from the picture.'
export const unknownPhrase = 'Unknown'

type Unknowable = { form: Form; groups?: readonly Group[]; isAbout?: (object: SceneObject, scene: Scene) => boolean }

/** What is asked of things of some groups, or, without groups, of the picture as a whole. */
const unknowables: readonly Unknowable[] = [
  { form: 'name', groups: ['animal'] },
  { form: 'age', groups: ['animal'] },
  { form: 'owner', groups: ['vehicle', 'thing'] },
  { form: 'behind', groups: ['outdoors', 'vehicle'], isAbout: standsAlone },
  { form: 'photographer' },
  { form: 'future' },
]

/** What hangs in the sky hides nothing worth asking for. */
const inTheSky: readonly string[] = ['sun', 'moon', 'star', 'rainbow', 'cloud']

export function askUnknowable(context: Context): Exchange | undefined {
  const { scene, random } = context
  const choices = unknowables.flatMap(({ form, groups, isAbout }) => {
    if (!groups) return [{ form }]
    const things = uniqueObjects(scene).filter((object) => {
      return groups.includes(categoryNamed(object.category).group) && (isAbout?.(object, scene) ?? true)
    })
    return things.length > 0 ? [{ form, subject: choose(random, things).category }] : []
  })
  const choice: { form: Form; subject?: string } = choose(random, choices)
  const slots = choice.subject === undefined ? {} : { the: `the ${choice.subject}` }
  const texts = { form: choice.form, slots, sentence: unknownSentence, word: unknownPhrase }
  const about = choice.subject === undefined ? {} : { subject: choice.subject }
  return { skill: 'unknowable', ...words(context, texts), ...about, expected: 'unknown' }
}

/** Where two boxes overlap, one thing is seen behind the other. */
function standsAlone(object: SceneObject, scene: Scene): boolean {
  if (inTheSky.includes(object.category)) return false
  return scene.objects.every((other) => other === object || gapBetween(object.box, other.box) >= 0)
}
