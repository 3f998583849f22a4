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
import { countCategories, uniqueObjects } from './scene.ts'

export function askColor(context: Context): Exchange | undefined {
  const { scene, random } = context
  const choices = uniqueObjects(scene).flatMap(({ category }) => {
    const { color } = categoryNamed(category)
    return color ? [[{ category, color }, colorRarity[color]] as const] : []
  })
  if (choices.length === 0) return undefined
  if (chance(random, absentShare)) {
    const name = drawAbsent(context, (candidate) => categoryNamed(candidate).color !== undefined)
    const sentence = absentSentence(name)
    const texts = { form: 'color', slots: { the: `the ${name}` }, sentence, word: absentPhrase } as const
    return { skill: 'color', ...words(context, texts), subject: name, expected: 'absent' }
  }
  const { category, color } = chooseWeighted(random, choices)
  const sentence = `The ${category} is ${color}.`
  const texts = { form: 'color', slots: { the: `the ${category}` }, sentence, word: color } as const
  return { skill: 'color', ...words(context, texts), subject: category, expected: color }
}

const colorRarity: Readonly<Record<Color, number>> = {
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
