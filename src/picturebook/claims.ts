/** Reads sentences about a scene back and holds them against the scene graph: in a closed world, what a teacher says is checked and not judged. */

import { categoryNamed, colors } from './categories.ts'
import { absentPhrase } from './exchange.ts'
import { numberOf, thingsSaid, wordsOf } from './language.ts'
import { directionPhrase, directions, directionsFrom, fieldOf, fields, placePhrase, settingPhrase } from './places.ts'
import { countCategories, type Scene, settings, uniqueObjects } from './scene.ts'
import { withoutRequest } from './short-answers.ts'

/** What is wrong with a sentence; `undefined` in a list of claims means that it is right. */
export type FalseSentence = { readonly sentence: string; readonly reason: string }

export type CheckedText = {
  readonly sentences: number
  /** Sentences that claim something that can be checked. */
  readonly checked: number
  readonly wrong: readonly FalseSentence[]
}

/** Checks every sentence of an answer. A bare "yes", "no", number, place, direction or colour is read together with its question. */
export function checkAnswer(scene: Scene, { question, answer }: { question: string; answer: string }): CheckedText {
  const bare = bareAnswer(scene, { question, answer })
  if (bare !== undefined)
    return { sentences: 1, checked: 1, wrong: bare === '' ? [] : [{ sentence: answer, reason: bare }] }
  const sentences = answer.split(/(?<=[.!?])\s+/).filter((sentence) => sentence.trim() !== '')
  const whole = completed(question, answer)
  const found = sentences.map((sentence) => ({ sentence, claims: claimsIn(whole ?? sentence, scene) }))
  const wrong = found.flatMap(({ sentence, claims }) => {
    const reason = claims.find((claim) => claim !== true)
    return typeof reason === 'string' ? [{ sentence, reason }] : []
  })
  return { sentences: sentences.length, checked: found.filter(({ claims }) => claims.length > 0).length, wrong }
}

/** True, or in words what is so instead. */
type Claim = true | string

function claimsIn(sentence: string, scene: Scene): Claim[] {
  const text = wordsOf(sentence).join(' ')
  const conditional = /\b(?:could|would|may|might|if)\b/.test(text)
  return [
    ...thingClaims(text, scene),
    ...placeClaims(text, scene),
    ...relationClaims(text, scene),
    ...colorClaims(text, scene),
    ...(conditional ? [] : settingClaims(text, scene)),
    ...totalClaims(text, scene),
  ]
}

/** Things that are said to be there, with their numbers, and things that are said not to be. */
function thingClaims(text: string, scene: Scene): Claim[] {
  const counts = countCategories(scene)
  if (comparison.test(text)) return comparisonClaims(text, scene)
  const denied = new Set([...text.matchAll(/\bno (\w+)/g)].flatMap(([, name = '']) => [...thingsSaid(name).keys()]))
  const said = [...thingsSaid(text)].filter(([name]) => !denied.has(name))
  return [
    ...said.map(([name, count]): Claim => {
      const there = counts.get(name) ?? 0
      if (there === 0) return `there is no ${name}`
      // `a cat` and `the cat` leave others open
      return count <= 1 || count === there ? true : `the number of ${categoryNamed(name).plural} is ${there}`
    }),
    ...[...denied].map((name): Claim => (counts.has(name) ? `there is a ${name}` : true)),
  ]
}

const comparison = /\b(?:(more|fewer) (\w+) than (\w+)|as many (\w+) as (\w+))\b/

/** `there are more cats than dogs`, where there need be no dogs at all. */
function comparisonClaims(text: string, scene: Scene): Claim[] {
  const [, word, more = '', less = '', one = more, other = less] = comparison.exec(text) ?? []
  const [first, second] = [one, other].map((said) => [...thingsSaid(said).keys()][0])
  if (first === undefined || second === undefined) return []
  const counts = countCategories(scene)
  const difference = (counts.get(first) ?? 0) - (counts.get(second) ?? 0)
  const right = word === 'more' ? difference > 0 : word === 'fewer' ? difference < 0 : difference === 0
  return [
    right
      ? true
      : `the numbers of ${categoryNamed(first).plural} and ${categoryNamed(second).plural} differ by ${Math.abs(difference)}`,
  ]
}

/** `the cat is in the top left` */
function placeClaims(text: string, scene: Scene): Claim[] {
  return uniqueObjects(scene).flatMap(({ category, box }) => {
    const said = new RegExp(`\\b${category} is (${fields.map(placePhrase).sort(byLength).join('|')})(?! of)\\b`).exec(
      text,
    )?.[1]
    const field = fieldOf(box, scene.side)
    if (said === undefined || field === undefined) return []
    return [said === placePhrase(field) ? true : `the ${category} is ${placePhrase(field)}`]
  })
}

/** `the cat is to the left of the dog` */
function relationClaims(text: string, scene: Scene): Claim[] {
  const unique = uniqueObjects(scene)
  const pattern = new RegExp(`\\bthe (\\w+) is (${directions.map(directionPhrase).join('|')}) the (\\w+)`, 'g')
  return [...text.matchAll(pattern)].flatMap(([, first, said, second]): Claim[] => {
    const one = unique.find(({ category }) => category === first)
    const other = unique.find(({ category }) => category === second)
    if (one === undefined || other === undefined) return []
    const { horizontal, vertical } = directionsFrom(one.box, { other: other.box, side: scene.side })
    const sideways = said?.startsWith('to the') ?? false
    const truth = sideways ? horizontal : vertical
    if (truth === undefined) return []
    return [said === directionPhrase(truth) ? true : `the ${first} is ${directionPhrase(truth)} the ${second}`]
  })
}

/** `the car is red`, `a red car`, `the ducks have several colors`, of things whose colours are the same in every style. */
function colorClaims(text: string, scene: Scene): Claim[] {
  const words = text.replace(/\bgrey\b/g, 'gray')
  const all = colors.join('|')
  return [...countCategories(scene).keys()].flatMap((name): Claim[] => {
    const { color, severalColors, plural } = categoryNamed(name)
    const one = `(${all}) (?:${name}|${plural})|(?:${name} is|${plural} are) (${all})`
    const match = new RegExp(`\\b(?:${one}|(?:${name} has|${plural} have) (several) colors)\\b`).exec(words)
    const said = match?.[1] ?? match?.[2] ?? match?.[3]
    const truth = color ?? (severalColors && 'several')
    if (said === undefined || truth === undefined) return []
    return [said === truth ? true : `the ${name} ${truth === 'several' ? 'has several colors' : `is ${truth}`}`]
  })
}

function settingClaims(text: string, scene: Scene): Claim[] {
  const said = settings.filter((setting) => text.includes(settingPhrase(setting)))
  return said.map((setting): Claim => {
    const denied = new RegExp(`\\bnot (?:\\w+ )?${settingPhrase(setting)}`).test(text)
    if (denied) return setting === scene.setting ? `it is ${settingPhrase(setting)}` : true
    return setting === scene.setting ? true : `it is ${settingPhrase(scene.setting)}`
  })
}

/** `there are three things in all` */
function totalClaims(text: string, scene: Scene): Claim[] {
  const said = numberOf(/\b(\w+) things? in all\b/.exec(text)?.[1] ?? '')
  if (said === undefined) return []
  return [said === scene.objects.length ? true : `there are ${scene.objects.length} things in all`]
}

/** An empty text when the answer is right, else what is so instead; undefined when it is no bare answer, or its question is not understood. */
function bareAnswer(scene: Scene, { question, answer }: { question: string; answer: string }): string | undefined {
  const words = wordsOf(answer)
  const [word = ''] = words
  if (words.length !== 1) return undefined
  const asked = wordsOf(withoutRequest(question)).join(' ')
  if (word === 'yes' || word === 'no') {
    const isAboutOne = existenceQuestion.test(asked)
    const claims = [...relationClaims(asStatement(asked), scene), ...(isAboutOne ? thingClaims(asked, scene) : [])]
    if (claims.length === 0) return undefined
    const wrong = claims.find((claim) => claim !== true)
    if (word === 'yes') return typeof wrong === 'string' ? wrong : ''
    return wrong === undefined ? 'it is so' : ''
  }
  const count = numberOf(word)
  const [name] = thingsSaid(asked).keys()
  if (count === undefined || name === undefined || !/\bhow many|count\b/.test(asked)) return undefined
  const there = countCategories(scene).get(name) ?? 0
  return count === there ? '' : `the number of ${categoryNamed(name).plural} is ${there}`
}

/** The sentence that a bare place, direction or colour stands for; undefined when the answer is none, or the question names no thing for it. */
function completed(question: string, answer: string): string | undefined {
  const said = wordsOf(answer).join(' ')
  const asked = wordsOf(withoutRequest(question))
  const [one, other, ...more] = asked.flatMap((word) => [...thingsSaid(word).keys()])
  if (one === undefined || more.length > 0 || asked.includes('thing')) return undefined
  if (said === absentPhrase) return `there is no ${one}`
  const direction = directions.find((known) => known === said)
  if (other !== undefined) return direction && `the ${one} is ${directionPhrase(direction)} the ${other}`
  const field = fields.find((known) => known === said)
  if (field !== undefined) return `the ${one} is ${placePhrase(field)}`
  if (said === 'several') return `the ${one} has several colors`
  return colors.some((color) => color === said) ? `the ${one} is ${said}` : undefined
}

const existenceQuestion =
  /^(?:is there|can you see|does the (?:picture|image) show|is) an? \w+(?: in the (?:picture|image))?$/

/** `is the cat above the dog` as `the cat is above the dog` */
function asStatement(question: string): string {
  return question.replace(/^(?:is it true that )?is the (\w+)/, 'the $1 is')
}

function byLength(one: string, other: string): number {
  return other.length - one.length
}
