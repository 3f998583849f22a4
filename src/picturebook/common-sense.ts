/** What people conclude from what a picture shows: rules as data, each a claim and the facts that support it. */
import { categories, type Group } from './categories.ts'
import { capitalize, countPhrase, joinList } from './language.ts'
import { settingPhrase } from './places.ts'
import { countCategories, type Scene, type Setting, settings } from './scene.ts'

/** The name of a category or of a setting. */
export type Fact = string

export type Rule = {
  who: string // `{who} could {what}`
  what: string
  all?: readonly Fact[] // each is needed
  any?: readonly Fact[] // some are needed
  least?: number // so many of `any`, 1 unless told
  group?: Group // stands for `any` of its categories
}

export const rules: readonly Rule[] = [
  { who: 'this', what: 'be a party', any: ['cake', 'gift', 'balloon'], least: 2 },
  { who: 'this', what: 'be a birthday', any: ['cake', 'gift'] },
  { who: 'this', what: 'be a farm', any: ['cow', 'pig', 'tractor', 'chicken', 'horse'] },
  { who: 'this', what: 'be a zoo', any: ['lion', 'elephant', 'panda', 'tiger'] },
  { who: 'this', what: 'be a garden', any: ['sunflower', 'tulip', 'butterfly', 'bee'] },
  { who: 'this', what: 'be a home', all: ['room'], any: ['clock', 'book', 'cup', 'television', 'telephone'] },
  { who: 'it', what: 'be winter', any: ['snow', 'snowman'] },
  { who: 'it', what: 'be cold', any: ['snow', 'snowman', 'penguin'], least: 2 },
  { who: 'it', what: 'be hot', any: ['sun', 'beach', 'cactus'], least: 2 },
  { who: 'it', what: 'be late', any: ['night', 'moon', 'owl'], least: 2 },
  { who: 'it', what: 'rain', any: ['cloud', 'umbrella', 'rainbow'] },
  { who: 'people', what: 'be asleep', all: ['night'] },
  { who: 'people', what: 'eat', group: 'food' },
  { who: 'people', what: 'go on a trip', group: 'vehicle' },
  { who: 'people', what: 'swim', any: ['sea', 'beach'] },
  { who: 'people', what: 'sail', all: ['boat'] },
  { who: 'people', what: 'fly', any: ['airplane', 'helicopter', 'rocket'] },
  { who: 'people', what: 'hear music', any: ['guitar', 'drum', 'bell'] },
  { who: 'people', what: 'play', any: ['ball', 'basketball'] },
  { who: 'people', what: 'read a story', all: ['book'] },
  { who: 'people', what: 'tell the time', all: ['clock'] },
  { who: 'people', what: 'sleep outside', all: ['tent'] },
  { who: 'a king', what: 'live here', any: ['castle', 'crown'] },
  { who: 'an animal', what: 'eat grass', all: ['field'], any: ['cow', 'horse', 'rabbit'] },
  { who: 'an animal', what: 'live in water', any: ['fish', 'whale', 'octopus'] },
  { who: 'cars', what: 'be slow here', all: ['road'], any: ['bus', 'truck', 'tractor'] },
  { who: 'someone', what: 'need help', all: ['ambulance'] },
]

/** An answer names all facts, so a conclusion from more than these would be too long a list. */
const mostFacts = 3
/** A denial names at most this many missing facts; all the others of the rule are missing too. */
const mostDenied = 3

const membersOfGroup: ReadonlyMap<Group, readonly Fact[]> = new Map(
  [...new Set(categories.map((category) => category.group))].map((group) => [
    group,
    categories.filter((category) => category.group === group).map(({ name }) => name),
  ]),
)

/** The facts that support the claim of a rule; undefined when there are too few, or too many to name. */
export function supportOf({ all = [], any, least = 1, group }: Rule, present: ReadonlySet<Fact>): Fact[] | undefined {
  const some = any ?? membersOf(group)
  const found = some.filter((fact) => present.has(fact))
  if (!all.every((fact) => present.has(fact)) || (some.length > 0 && found.length < least)) return undefined
  const facts = [...all, ...found]
  return facts.length <= mostFacts ? facts : undefined
}

/** Why the claim of a rule lacks support, as a clause: `there is no cake and no gift`; undefined when it is not clear. */
export function denialOf({ all = [], any, group }: Rule, present: ReadonlySet<Fact>): string | undefined {
  const missing = all.filter((fact) => !present.has(fact))
  const some = any ?? membersOf(group)
  if (missing.length > 0) return lackOf(missing)
  if (some.length === 0 || some.some((fact) => present.has(fact))) return undefined
  return group ? `there is no ${group}` : lackOf(some.slice(0, mostDenied))
}

/** Categories and setting of a scene. */
export function factsOf(scene: Pick<Scene, 'setting'> & { objects: readonly { category: string }[] }): Set<Fact> {
  return new Set([...scene.objects.map((object) => object.category), scene.setting])
}

/** The facts as a clause: `there is a cake and a gift`, `there is an owl at night`, `it is night`. */
export function clauseOf(facts: readonly Fact[], scene: Scene): string {
  const { things, setting, counts } = partsOf(facts, scene)
  const [first] = things
  if (first === undefined) return setting === 'night' ? 'it is night' : `the picture is ${settingPhrase(scene.setting)}`
  const verb = counts.get(first) === 1 ? 'is' : 'are'
  return `there ${verb} ${phraseOf(facts, scene)}`
}

/** The facts as a phrase: `a cake and a gift`, `an owl at night`, `in the snow`. */
export function phraseOf(facts: readonly Fact[], scene: Scene): string {
  const { things, setting, counts } = partsOf(facts, scene)
  const list = joinList(things.map((name) => countPhrase(name, counts.get(name) ?? 0)))
  return [...(list ? [list] : []), ...(setting ? [settingPhrase(setting)] : [])].join(' ')
}

/** Every sentence that only these rules say, for counting words. */
export function ruleTexts(): string[] {
  const negatives = rules.flatMap((rule) => denialOf(rule, new Set()) ?? [])
  return [
    ...rules.map(({ who, what }) => `${capitalize(who)} could ${what}.`),
    ...negatives.map((denial) => `No, ${denial}.`),
    'Because there is, because there are, because it is, because the picture is.',
  ]
}

function partsOf(
  facts: readonly Fact[],
  scene: Scene,
): { things: Fact[]; setting: Setting | undefined; counts: Map<string, number> } {
  const setting = settings.find((name) => facts.includes(name))
  return { things: facts.filter((fact) => fact !== setting), setting, counts: countCategories(scene) }
}

function lackOf(facts: readonly Fact[]): string {
  const nouns = facts.filter((fact) => fact !== 'night').map((fact) => `no ${fact}`)
  const night = facts.includes('night') ? ['it is not night'] : []
  return [...night, ...(nouns.length > 0 ? [`there is ${joinList(nouns)}`] : [])].join(' and ')
}

function membersOf(group: Group | undefined): readonly Fact[] {
  return (group && membersOfGroup.get(group)) ?? []
}
