/** Askers for how the picture looks: colours, the place it shows, and the whole in sentences. */
import { describeInDetail, oneSentence } from './captions.ts'
import { type Color, categoryNamed } from './categories.ts'
import {
  absentPhrase,
  absentSentence,
  absentShare,
  type Context,
  drawAbsent,
  type Exchange,
  words,
} from './exchange.ts'
import { listPhrase } from './language.ts'
import { settingPhrase } from './places.ts'
import { chance, chooseWeighted } from './random.ts'
import { countCategories } from './scene.ts'

/** Share of the colours of absent things that are asked for as of several things. */
const absentPluralShare = 0.3
/** How often a question about a thing of several colours is kept: many scenes hold nothing else to ask about. */
const keptSeveral = 0.5

export function askColor(context: Context): Exchange | undefined {
  const { scene, random } = context
  const choices = [...countCategories(scene)].flatMap(([category, count]) => {
    const color = colorsOf(category)
    return color ? [[{ category, count, color }, colorRarity[color]] as const] : []
  })
  if (choices.length === 0) return undefined
  if (chance(random, absentShare)) {
    const name = drawAbsent(context, (candidate) => colorsOf(candidate) !== undefined)
    const told = { sentence: absentSentence(name), word: absentPhrase, expected: 'absent' }
    return colorExchange(context, { name, isPlural: chance(random, absentPluralShare), ...told })
  }
  const { category: name, count, color } = chooseWeighted(random, choices)
  if (color === 'several' && !chance(random, keptSeveral)) return undefined
  const isPlural = count > 1
  const the = isPlural ? `The ${categoryNamed(name).plural}` : `The ${name}`
  const sentence =
    color === 'several'
      ? `${the} ${isPlural ? 'have' : 'has'} several colors.`
      : `${the} ${isPlural ? 'are' : 'is'} ${color}.`
  return colorExchange(context, { name, isPlural, sentence, word: color, expected: color })
}

function colorExchange(
  context: Context,
  told: { name: string; isPlural: boolean; sentence: string; word: string; expected: string },
): Exchange {
  const { name, isPlural, sentence, word, expected } = told
  const texts = isPlural
    ? ({ form: 'colorOfSeveral', slots: { the: `the ${categoryNamed(name).plural}` }, sentence, word } as const)
    : ({ form: 'color', slots: { the: `the ${name}` }, sentence, word } as const)
  return { skill: 'color', ...words(context, texts), subject: name, expected }
}

/** The one colour of a thing or `several`; undefined where styles differ. */
function colorsOf(name: string): Color | 'several' | undefined {
  const { color, severalColors } = categoryNamed(name)
  return color ?? (severalColors && 'several')
}

const colorRarity: Readonly<Record<Color | 'several', number>> = {
  several: 1,
  red: 1,
  green: 1,
  yellow: 1,
  orange: 2,
  blue: 3,
  pink: 3,
  gray: 6,
  white: 6,
}

export function askSetting(context: Context): Exchange | undefined {
  const { scene, random } = context
  const { setting } = scene
  if (setting === 'night' || (setting !== 'room' && setting !== 'plain' && chance(random, 0.15))) {
    const time = setting === 'night' ? 'night' : 'day'
    const texts = { form: 'dayOrNight', slots: {}, sentence: `It is ${time}.`, word: time } as const
    return { skill: 'setting', ...words(context, texts), expected: time }
  }
  const sentence = `The picture is ${settingPhrase(setting)}.`
  const texts = { form: 'setting', slots: {}, sentence, word: setting } as const
  return { skill: 'setting', ...words(context, texts), expected: setting }
}

export function askCaption(context: Context): Exchange {
  const sentence = oneSentence(context.scene)
  const texts = { form: 'caption', slots: {}, sentence, word: sentence } as const
  const expected = listPhrase(countCategories(context.scene))
  return { skill: 'caption', ...words({ ...context, short: false }, texts), expected }
}

export function askDetailedDescription(context: Context): Exchange {
  const sentence = describeInDetail(context.scene)
  const texts = { form: 'detailedDescription', slots: {}, sentence, word: sentence } as const
  const expected = listPhrase(countCategories(context.scene))
  return { skill: 'detailed-description', ...words({ ...context, short: false }, texts), expected }
}
