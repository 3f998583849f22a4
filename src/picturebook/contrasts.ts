/**
 * Captions for contrastive learning: a true one, and others of the same scene in which one fact is changed and therefore false. Without them an encoder
 * learns what is in a picture but not how it belongs together ("When and why vision-language models behave like bags-of-words", Yuksekgonul et al. 2023).
 *
 * A changed caption is to be found out by looking, not by reading: it agrees with itself (no two of its sentences speak of the same thing), and the
 * names, places and colours that it puts in are such as true captions have. Numbers still tell a little: scenes of 1 to 4 things give 9 changes from two
 * to one for 5 from one to two, so that about 62 % of them are found without looking.
 */
import { type Color, categoryNamed } from './categories.ts'
import { drawCategory } from './composition.ts'
import { capitalize, listPhrase } from './language.ts'
import {
  type Direction,
  directionPhrase,
  directionsFrom,
  type Field,
  fieldOf,
  fields,
  oppositeOf,
  placePhrase,
  settingPhrase,
} from './places.ts'
import { chance, choose, createRandom, type Random, shuffle } from './random.ts'
import { countCategories, type Scene, streams, uniqueObjects } from './scene.ts'
import { clearFields } from './space.ts'
import { heldOutCount, isHeldOutPair } from './splits.ts'

/** What can be changed about a caption. */
export const facts = ['category', 'count', 'place', 'color', 'relation'] as const
export type Fact = (typeof facts)[number]

export type ContrastedCaption = {
  readonly text: string
  readonly contrasts: readonly { readonly fact: Fact; readonly text: string }[]
}

type Statement =
  | { readonly fact: 'place'; readonly name: string; readonly field: Field }
  | { readonly fact: 'relation'; readonly name: string; readonly direction: Direction; readonly other: string }
  | { readonly fact: 'color'; readonly field: Field; readonly name: string; readonly color: Color }

/** Everything that there is, and up to two sentences about some of it. */
type Caption = {
  readonly counts: ReadonlyMap<string, number>
  readonly setting: Scene['setting'] | undefined
  readonly statements: readonly Statement[]
}

/** Sentences after the first one, at most. */
const mostStatements = 2
/** Draws for each wanted contrast before fewer are given. */
const draws = 4

/**
 * A caption of the scene and up to `count` that are false in one fact, of as many kinds as it allows. `most` is the largest number of things in a scene
 * of this world: no contrast has more.
 */
export function contrastedCaption(
  scene: Scene,
  { seed, count, most }: { seed: number; count: number; most: number },
): ContrastedCaption {
  const random = createRandom(scene.seed, streams.contrasts + 16 * seed)
  const caption: Caption = {
    counts: countCategories(scene),
    setting: chance(random, 0.5) ? scene.setting : undefined,
    statements: drawStatements(random, scene),
  }
  const text = wordCaption(caption)
  const found = new Map<string, Fact>()
  // Things can always be exchanged: last, or they would be most of what is changed.
  const kinds = [...shuffle(random, facts.slice(1)), facts[0]]
  for (let draw = 0; draw < draws * count && found.size < count; draw++) {
    const fact = kinds[draw % kinds.length] as Fact
    const changed = changes[fact](random, { caption, scene, most })
    const worded = changed && wordCaption(changed)
    if (worded !== undefined && !found.has(worded)) found.set(worded, fact)
  }
  return { text, contrasts: [...found].map(([text, fact]) => ({ fact, text })) }
}

function wordCaption({ counts, setting, statements }: Caption): string {
  const listed = new Map([...counts].sort(([one], [other]) => (one < other ? -1 : 1)))
  const where = setting === undefined ? '' : ` ${settingPhrase(setting)}`
  return [`${capitalize(listPhrase(listed))}${where}.`, ...statements.map(wordStatement)].join(' ')
}

function wordStatement(statement: Statement): string {
  switch (statement.fact) {
    case 'place':
      return `The ${statement.name} is ${placePhrase(statement.field)}.`
    case 'relation':
      return `The ${statement.name} is ${directionPhrase(statement.direction)} the ${statement.other}.`
    case 'color':
      return `The thing ${placePhrase(statement.field)} is ${statement.color}.`
  }
}

/** Statements of different kinds about different things. */
function drawStatements(random: Random, scene: Scene): Statement[] {
  const drawn: Statement[] = []
  for (const fact of shuffle(random, ['place', 'relation', 'color'] as const)) {
    const known = new Set(drawn.flatMap(thingsOf))
    const open = statementsOf(scene, fact).filter((statement) => thingsOf(statement).every((name) => !known.has(name)))
    if (open.length > 0 && drawn.length < mostStatements) drawn.push(choose(random, open))
  }
  return drawn
}

function thingsOf(statement: Statement): string[] {
  return statement.fact === 'relation' ? [statement.name, statement.other] : [statement.name]
}

function statementsOf(scene: Scene, fact: Statement['fact']): Statement[] {
  const { side } = scene
  const unique = uniqueObjects(scene)
  switch (fact) {
    case 'place':
      return unique.flatMap(({ category: name, box }) => {
        const field = fieldOf(box, side)
        return field ? [{ fact, name, field }] : []
      })
    case 'relation':
      return unique.flatMap((one) =>
        unique.flatMap((other) => {
          if (other === one) return []
          const { horizontal, vertical } = directionsFrom(one.box, { other: other.box, side })
          const known = [horizontal, vertical].filter((direction) => direction !== undefined)
          return known.map((direction) => ({ fact, name: one.category, direction, other: other.category }))
        }),
      )
    case 'color': {
      const colors = colorsIn(scene)
      return clearFields(scene).flatMap(({ field, name }) => {
        const { color } = categoryNamed(name)
        return color !== undefined && colors.size > 1 ? [{ fact, field, name, color }] : []
      })
    }
  }
}

function colorsIn(scene: Scene): Set<Color> {
  return new Set(scene.objects.flatMap(({ category }) => categoryNamed(category).color ?? []))
}

type Change = (random: Random, from: { caption: Caption; scene: Scene; most: number }) => Caption | undefined

const changes: Readonly<Record<Fact, Change>> = {
  /** Another name, throughout. A thing whose colour is told keeps its name: the new one might not have that colour. */
  category: (random, { caption, scene }) => {
    const colored = caption.statements.flatMap((statement) => (statement.fact === 'color' ? [statement.name] : []))
    const names = [...caption.counts.keys()].filter((name) => !colored.includes(name))
    if (names.length === 0) return undefined
    const from = choose(random, names)
    const others = [...caption.counts.keys()].filter((name) => name !== from)
    const present = new Set(scene.objects.map(({ category }) => category))
    const allowed = (name: string) =>
      !present.has(name) &&
      caption.counts.get(from) !== heldOutCount(name) &&
      others.every((other) => !isHeldOutPair(name, other))
    const to = drawCategory(random, { allowed }).name
    const renamed = (name: string) => (name === from ? to : name)
    return {
      ...caption,
      counts: new Map([...caption.counts].map(([name, count]) => [renamed(name), count])),
      statements: caption.statements.map((statement) =>
        statement.fact === 'relation'
          ? { ...statement, name: renamed(statement.name), other: renamed(statement.other) }
          : { ...statement, name: renamed(statement.name) },
      ),
    }
  },
  /** Two numbers exchanged, or else one more or less: never of a thing that another sentence calls the only one. */
  count: (random, { caption, most }) => {
    const { counts, statements } = caption
    const named = new Set(statements.flatMap(thingsOf))
    const free = [...counts].filter(([name]) => !named.has(name))
    const total = [...counts.values()].reduce((sum, count) => sum + count, 0)
    const swaps = free.flatMap(([one, a], i) =>
      free.slice(i + 1).flatMap(([other, b]) => (a === b ? [] : [[[one, b] as const, [other, a] as const]])),
    )
    const steps = free.flatMap(([name, count]) => [
      ...(total < most ? [[[name, count + 1] as const]] : []),
      ...(count > 1 ? [[[name, count - 1] as const]] : []),
    ])
    const usual = (change: readonly (readonly [string, number])[]) =>
      change.every(([name, count]) => count !== heldOutCount(name))
    const usable = [swaps.filter(usual), steps.filter(usual)].find((list) => list.length > 0)
    return usable && { ...caption, counts: new Map([...counts, ...choose(random, usable)]) }
  },
  place: (random, { caption }) => {
    const told = caption.statements.flatMap((statement) => ('field' in statement ? [statement.field] : []))
    const open = fields.filter((field) => !told.includes(field))
    return withStatement(caption, 'place', (statement) => ({ ...statement, field: choose(random, open) }))
  },
  /** A colour that something else in the picture has. */
  color: (random, { caption, scene }) =>
    withStatement(caption, 'color', (statement) => {
      const others = [...colorsIn(scene)].filter((color) => color !== statement.color)
      return { ...statement, color: choose(random, others) }
    }),
  relation: (_, { caption }) =>
    withStatement(caption, 'relation', (statement) => ({ ...statement, direction: oppositeOf(statement.direction) })),
}

/** The caption with its statement of one kind changed; undefined when it has none. */
function withStatement<F extends Statement['fact']>(
  caption: Caption,
  fact: F,
  change: (statement: Extract<Statement, { fact: F }>) => Statement,
): Caption | undefined {
  const isOfKind = (statement: Statement): statement is Extract<Statement, { fact: F }> => statement.fact === fact
  if (!caption.statements.some(isOfKind)) return undefined
  return {
    ...caption,
    statements: caption.statements.map((statement) => (isOfKind(statement) ? change(statement) : statement)),
  }
}
