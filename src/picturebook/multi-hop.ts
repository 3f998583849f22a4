/** Questions of two steps: find a thing by its place, its colour or its neighbour, then tell something of it. */
import { type Color, categoryNamed } from './categories.ts'
import { type Context, type Exchange, words } from './exchange.ts'
import { type Direction, directionPhrase, directions, directionsFrom, oppositeOf, placePhrase } from './places.ts'
import { chance, choose, shuffle } from './random.ts'
import { type Scene, type SceneObject, uniqueObjects } from './scene.ts'
import { clearFields } from './space.ts'

/** A program gives undefined where one of its steps has no single clear result. */
type Program = (context: Context) => Exchange | undefined

const programs: readonly Program[] = [askBesidePlace, askColorBeside, askColorAtPlace]

/** The rarest program comes first, where a scene allows it; the others in any order. */
export function askMultiHop(context: Context): Exchange | undefined {
  for (const program of [askBesideColor, ...shuffle(context.random, programs)]) {
    const exchange = program(context)
    if (exchange) return exchange
  }
  return undefined
}

/** `What is to the left of the thing in the top right?` */
function askBesidePlace(context: Context): Exchange | undefined {
  const { scene } = context
  const steps = clearFields(scene).flatMap(({ field, object }) =>
    stepsFrom(object, scene).map((step) => ({ ...step, slot: { place: placePhrase(field) } })),
  )
  return askBeside(context, { form: 'besidePlace', steps })
}

/** `What is below the red thing?` */
function askBesideColor(context: Context): Exchange | undefined {
  const { scene } = context
  const steps = colored(scene)
    .filter(({ object, color }) => isOnlyOf(color, { object, scene }))
    .flatMap(({ object, color }) => stepsFrom(object, scene).map((step) => ({ ...step, slot: { color } })))
  return askBeside(context, { form: 'besideColor', steps })
}

/** What lies beside a thing that the question calls by what the slot says of it. */
function askBeside(
  context: Context,
  options: {
    form: 'besidePlace' | 'besideColor'
    steps: readonly (Step & { slot: { place: string } | { color: Color } })[]
  },
): Exchange | undefined {
  const { form, steps } = options
  if (steps.length === 0) return undefined
  const { from, to, direction, slot } = choose(context.random, steps)
  const relation = directionPhrase(direction)
  const [called] = Object.values(slot)
  const sentence = `The ${from.category} is ${called}. The ${to.category} is ${relation} it.`
  const texts = { form, slots: { relation, ...slot }, sentence, word: to.category }
  return twoSteps(context, { texts, from, to, expected: to.category })
}

/** `What color is the thing above the cat?` */
function askColorBeside(context: Context): Exchange | undefined {
  const { scene, random } = context
  const steps = scene.objects.flatMap((object) =>
    stepsFrom(object, scene).flatMap((step) => {
      const { color } = categoryNamed(step.to.category)
      return color ? [{ ...step, color }] : []
    }),
  )
  if (steps.length === 0) return undefined
  const { from, to, direction, color } = choose(random, steps)
  if (!chance(random, keptColors[color])) return undefined
  const [relation, the] = [directionPhrase(direction), `the ${from.category}`]
  const sentence = `The ${to.category} is ${relation} ${the}. It is ${color}.`
  const texts = { form: 'colorBeside', slots: { relation, the }, sentence, word: color } as const
  return twoSteps(context, { texts, from, to, expected: color })
}

/** `What color is the thing in the top left?` */
function askColorAtPlace(context: Context): Exchange | undefined {
  const { scene, random } = context
  const places = clearFields(scene).flatMap(({ field, object }) => {
    const { color } = categoryNamed(object.category)
    return color ? [{ field, object, color }] : []
  })
  if (places.length === 0) return undefined
  const { field, object, color } = choose(random, places)
  if (!chance(random, keptColors[color])) return undefined
  const place = placePhrase(field)
  const sentence = `The ${object.category} is ${place}. It is ${color}.`
  const texts = { form: 'colorAtPlace', slots: { place }, sentence, word: color } as const
  return { skill: 'multi-hop', ...words(context, texts), subject: object.category, expected: color }
}

/** How likely a question for a colour is kept: far more things are red than blue. */
const keptColors: Readonly<Record<Color, number>> = {
  red: 0.4,
  green: 0.5,
  yellow: 0.4,
  orange: 0.7,
  blue: 1,
  pink: 1,
  gray: 1,
  white: 1,
}

type Step = { from: SceneObject; to: SceneObject; direction: Direction }

function twoSteps(
  context: Context,
  {
    texts,
    from,
    to,
    expected,
  }: { texts: Parameters<typeof words>[1]; from: SceneObject; to: SceneObject; expected: string },
): Exchange {
  const about = { subject: to.category, other: from.category, expected }
  return { skill: 'multi-hop', ...words(context, texts), ...about }
}

/** Directions in which exactly one thing lies, clearly, and all others clearly on the opposite side; all names unambiguous. */
function stepsFrom(from: SceneObject, scene: Scene): Step[] {
  const unique = uniqueObjects(scene)
  if (!unique.includes(from)) return []
  const others = scene.objects.filter((object) => object !== from)
  const seen = others.map((object) => directionsFrom(object.box, { other: from.box, side: scene.side }))
  return directions.flatMap((direction) => {
    const axis = direction === 'left' || direction === 'right' ? 'horizontal' : 'vertical'
    const there = others.filter((_, index) => seen[index]?.[axis] === direction)
    const away = others.filter((_, index) => seen[index]?.[axis] === oppositeOf(direction))
    const [to] = there
    return to && there.length === 1 && away.length === others.length - 1 && unique.includes(to)
      ? [{ from, to, direction }]
      : []
  })
}

function colored(scene: Scene): { object: SceneObject; color: Color }[] {
  return scene.objects.flatMap((object) => {
    const { color } = categoryNamed(object.category)
    return color ? [{ object, color }] : []
  })
}

/** Things of no one colour that are neither red nor green in any style. */
const neitherRedNorGreen: ReadonlySet<string> = new Set([
  'cat',
  'dog',
  'horse',
  'cow',
  'rabbit',
  'lion',
  'panda',
  'owl',
  'bee',
  'bear',
  'tiger',
  'cheese',
  'cloud',
])

/** A thing of no one colour could be of this one in some style, so every other thing must be known to look different. */
function isOnlyOf(color: Color, { object, scene }: { object: SceneObject; scene: Scene }): boolean {
  return scene.objects.every((other) => {
    if (other === object) return true
    const { color: another } = categoryNamed(other.category)
    const looksDifferent = (color === 'red' || color === 'green') && neitherRedNorGreen.has(other.category)
    return another === undefined ? looksDifferent : another !== color
  })
}
