/** Asks what a picture lets one conclude, and why; the answer names the facts that the conclusion rests on. */
import { clauseOf, denialOf, type Fact, factsOf, phraseOf, type Rule, rules, supportOf } from './common-sense.ts'
import { drawComposition } from './composition.ts'
import { type Context, type Exchange, words } from './exchange.ts'
import { capitalize } from './language.ts'
import { chance, choose } from './random.ts'
import { settings } from './scene.ts'

/** Other scenes are imagined this often at most; nearly always one of the first few will do. */
const mostImagined = 60

/** Half of the questions ask why, the others whether; of these, half are to be denied. */
export function askReasoning(context: Context): Exchange | undefined {
  const { scene, random } = context
  const present = factsOf(scene)
  const supported = supportedBy(present)
  if (supported.length === 0) return undefined
  const { rule, facts } = choose(random, supported)
  if (chance(random, 0.5)) {
    const sentence = `Because ${clauseOf(facts, scene)}.`
    const texts = { form: 'why', slots: slotsOf(rule), sentence, word: capitalize(phraseOf(facts, scene)) } as const
    return { skill: 'reasoning', ...words(context, texts), facts, present: [...present], expected: facts.join(', ') }
  }
  if (chance(random, 0.5)) {
    return whether(context, { rule, reason: clauseOf(facts, scene), facts, expected: 'yes' })
  }
  const denied = imagineDenied(context, present)
  return denied && whether(context, { ...denied, facts: [], expected: 'no' })
}

function whether(
  context: Context,
  { rule, reason, facts, expected }: { rule: Rule; reason: string; facts: Fact[]; expected: 'yes' | 'no' },
): Exchange {
  const word = capitalize(expected)
  const texts = { form: 'could', slots: slotsOf(rule), sentence: `${word}, ${reason}.`, word } as const
  const present = [...factsOf(context.scene)]
  return { skill: 'reasoning', ...words(context, texts), facts, present, expected }
}

/**
 * A rule that this scene denies and another scene supports. Drawn like this, a claim is denied about as often as it is
 * affirmed, however rare its facts are, and the claim alone does not tell the answer.
 */
function imagineDenied(
  { scene, random }: Context,
  present: ReadonlySet<Fact>,
): { rule: Rule; reason: string } | undefined {
  const objects = [scene.objects.length, scene.objects.length] as const
  for (let attempt = 0; attempt < mostImagined; attempt++) {
    const names = drawComposition(random, { objects, split: 'train' })
    const imagined = factsOf({ setting: choose(random, settings), objects: names.map((category) => ({ category })) })
    const supported = supportedBy(imagined)
    if (supported.length === 0) continue
    const { rule } = choose(random, supported)
    const reason = denialOf(rule, present)
    if (reason) return { rule, reason }
  }
  return undefined
}

function supportedBy(present: ReadonlySet<Fact>): { rule: Rule; facts: Fact[] }[] {
  return rules.flatMap((rule) => {
    const facts = supportOf(rule, present)
    return facts ? [{ rule, facts }] : []
  })
}

function slotsOf({ who, what }: Rule): { who: string; what: string } {
  return { who, what }
}
