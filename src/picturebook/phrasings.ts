/**
 * How questions are asked. Words in braces are replaced; see `phrase`. Held-out phrasings, for the split `held-out-phrasing` only, combine
 * words that other questions use: what they test is the wording and not the vocabulary.
 */
import { chance, choose, type Random } from './random.ts'
import type { Split } from './splits.ts'

export type Form = keyof typeof phrasings

export const phrasings = {
  existence: {
    usual: ['Is there {a} in the picture?', 'Can you see {a}?', 'Does the picture show {a}?', 'Is {a} in the picture?'],
    heldOut: ['Can you see {a} in the picture?', 'Tell me if {a} is in the picture.'],
  },
  count: {
    usual: [
      'How many {plural} are there?',
      'How many {plural} can you see?',
      'How many {plural} are in the picture?',
      'Count the {plural}.',
    ],
    heldOut: ['How many {plural} does the picture show?', 'Count the {plural} in the picture.'],
  },
  position: {
    usual: [
      'Where is {the}?',
      'Where in the picture is {the}?',
      'Where can you see {the}?',
      'In which part of the picture is {the}?',
      'Tell me where {the} is.',
    ],
    heldOut: ['Which part of the picture shows {the}?', 'Tell me in which part of the picture {the} is.'],
  },
  leftOrRight: {
    usual: [
      'Is {the} to the left or to the right of {other}?',
      'Is {the} left or right of {other}?',
      'Where is {the}, to the left or to the right of {other}?',
      'Tell me if {the} is to the left or to the right of {other}.',
    ],
    heldOut: ['In the picture, is {the} to the left or right of {other}?'],
  },
  aboveOrBelow: {
    usual: [
      'Is {the} above or below {other}?',
      'Where is {the}, above or below {other}?',
      'Tell me if {the} is above or below {other}.',
      'In the picture, is {the} above or below {other}?',
    ],
    heldOut: ['Can you see {the} above or below {other}?'],
  },
  relation: {
    usual: [
      'Is {the} {relation} {other}?',
      'Is it true that {the} is {relation} {other}?',
      'In the picture, is {the} {relation} {other}?',
      'Can you see {the} {relation} {other}?',
    ],
    heldOut: ['Does the picture show {the} {relation} {other}?'],
  },
  listing: {
    usual: [
      'What is in the picture?',
      'What can you see?',
      'Which things are in the picture?',
      'List the things in the picture.',
    ],
    heldOut: ['Which things can you see in the picture?', 'What things are there?'],
  },
  categoryAt: {
    usual: [
      'What is {place}?',
      'What can you see {place}?',
      'Which thing is {place}?',
      'What is {place} of the picture?',
      'Tell me what is {place}.',
    ],
    heldOut: ['Which thing can you see {place}?', 'Tell me what you see {place}.'],
  },
  color: {
    usual: [
      'What color is {the}?',
      'Which color is {the}?',
      'What is the color of {the}?',
      'Tell me the color of {the}.',
    ],
    heldOut: ['Tell me which color {the} is.'],
  },
  colorOfSeveral: {
    usual: [
      'What color are {the}?',
      'What colors are {the}?',
      'Which color are {the}?',
      'What is the color of {the}?',
      'Tell me the color of {the}.',
    ],
    heldOut: ['Tell me which color {the} are.'],
  },
  caption: {
    usual: [
      'Describe the picture in one sentence.',
      'Give a short description of the picture.',
      'Write a caption for the picture.',
      'What does the picture show?',
    ],
    heldOut: ['Write a short description of the picture.', 'Describe the picture.'],
  },
  detailedDescription: {
    usual: [
      'Describe the picture in detail.',
      'Tell me everything about the picture.',
      'Write a detailed description of the picture.',
      'What do you see? Describe it in detail.',
    ],
    heldOut: ['Give a detailed description of the picture.', 'Describe everything in the picture.'],
  },
  setting: {
    usual: [
      'Where is this?',
      'What is in the background?',
      'Which place does the picture show?',
      'What is the place in the picture?',
    ],
    heldOut: ['Which place is in the background?', 'Tell me where this is.'],
  },
  dayOrNight: {
    usual: [
      'Is it day or night?',
      'Is it day or night in the picture?',
      'Tell me if it is day or night.',
      'Does the picture show day or night?',
    ],
    heldOut: ['In the picture, is it day or night?'],
  },
  more: {
    usual: [
      'Are there more {plural} than {others}?',
      'Can you see more {plural} than {others}?',
      'Does the picture show more {plural} than {others}?',
      'Is it true that there are more {plural} than {others}?',
    ],
    heldOut: [
      'In the picture, are there more {plural} than {others}?',
      'Tell me if there are more {plural} than {others}.',
    ],
  },
  most: {
    usual: [
      'Which are there more of, {plural} or {others}?',
      'Are there more {plural} or more {others}?',
      'What can you see more of, {plural} or {others}?',
      'Tell me which there are more of, {plural} or {others}.',
    ],
    heldOut: ['Which can you see more of, {plural} or {others}?'],
  },
  asMany: {
    usual: [
      'Are there as many {plural} as {others}?',
      'Can you see as many {plural} as {others}?',
      'Does the picture show as many {plural} as {others}?',
      'Tell me if there are as many {plural} as {others}.',
    ],
    heldOut: ['Is it true that there are as many {plural} as {others}?'],
  },
  oddOneOut: {
    usual: [
      'Which thing does not belong with the others?',
      'What does not belong with the others?',
      'Which thing is not like the others?',
      'Tell me which thing does not belong.',
    ],
    heldOut: ['What is not like the others?', 'Tell me which thing is not like the others.'],
  },
  nearest: {
    usual: [
      'Which thing is nearest to {the}?',
      'What is nearest to {the}?',
      'Tell me what is nearest to {the}.',
      'What can you see nearest to {the}?',
    ],
    heldOut: ['In the picture, what is nearest to {the}?', 'Tell me which thing is nearest to {the}.'],
  },
  besidePlace: {
    usual: [
      'What is {relation} the thing {place}?',
      'Which thing is {relation} the thing {place}?',
      'What can you see {relation} the thing {place}?',
      'Tell me what is {relation} the thing {place}.',
    ],
    heldOut: ['Which thing can you see {relation} the thing {place}?'],
  },
  besideColor: {
    usual: [
      'What is {relation} the {color} thing?',
      'Which thing is {relation} the {color} thing?',
      'What can you see {relation} the {color} thing?',
      'Tell me what is {relation} the {color} thing.',
    ],
    heldOut: ['Which thing can you see {relation} the {color} thing?'],
  },
  colorBeside: {
    usual: [
      'What color is the thing {relation} {the}?',
      'Which color is the thing {relation} {the}?',
      'What is the color of the thing {relation} {the}?',
      'Tell me the color of the thing {relation} {the}.',
    ],
    heldOut: ['Tell me which color the thing {relation} {the} is.'],
  },
  colorAtPlace: {
    usual: [
      'What color is the thing {place}?',
      'Which color is the thing {place}?',
      'What is the color of the thing {place}?',
      'Tell me the color of the thing {place}.',
    ],
    heldOut: ['Tell me which color the thing {place} is.'],
  },
  why: {
    usual: [
      'Why could {who} {what}?',
      'Tell me why {who} could {what}.',
      'What shows that {who} could {what}?',
      'Can you tell me why {who} could {what}?',
    ],
    heldOut: ['In the picture, what shows that {who} could {what}?'],
  },
  could: {
    usual: [
      'Could {who} {what}?',
      'Tell me if {who} could {what}.',
      'Is it true that {who} could {what}?',
      'Does the picture show that {who} could {what}?',
    ],
    heldOut: ['In the picture, could {who} {what}?', 'Can you tell me if {who} could {what}?'],
  },
  name: {
    usual: [
      'What is the name of {the}?',
      'Tell me the name of {the}.',
      'Can you tell me the name of {the}?',
      'Which name does {the} have?',
    ],
    heldOut: ['What name does {the} have?'],
  },
  age: {
    usual: ['How old is {the}?', 'Tell me how old {the} is.', 'What is the age of {the}?', 'Which age is {the}?'],
    heldOut: ['Can you tell me how old {the} is?'],
  },
  owner: {
    usual: ['Who owns {the}?', 'Who has {the}?', 'Tell me who owns {the}.', 'Can you tell me who owns {the}?'],
    heldOut: ['Tell me who has {the}.'],
  },
  behind: {
    usual: [
      'What is behind {the}?',
      'Which thing is behind {the}?',
      'Tell me what is behind {the}.',
      'Can you tell me what is behind {the}?',
    ],
    heldOut: ['Tell me which thing is behind {the}.'],
  },
  photographer: {
    usual: [
      'Who took the picture?',
      'Tell me who took the picture.',
      'Can you tell me who took the picture?',
      'What is the name of who took the picture?',
    ],
    heldOut: ['Tell me the name of who took the picture.'],
  },
  future: {
    usual: [
      'What will happen next?',
      'Tell me what will happen next.',
      'Can you tell me what will happen next?',
      'What will happen next in the picture?',
    ],
    heldOut: ['In the picture, what will happen next?'],
  },
} as const satisfies Record<string, { usual: readonly string[]; heldOut: readonly string[] }>

type Slot = 'a' | 'the' | 'plural' | 'other' | 'others' | 'relation' | 'place' | 'color' | 'who' | 'what'
/** Words for the braces: `{ a: 'a cat', the: 'the cat', plural: 'cats', other: 'the dog', ... }`. */
export type Slots = Partial<Record<Slot, string>>

/**
 * One question of a form, worded at random; a third of them say `image` where the phrasing says `picture`.
 * @throws RangeError when a slot of the phrasing has no word
 */
export function phrase(random: Random, { form, slots, split }: { form: Form; slots: Slots; split: Split }): string {
  const { usual, heldOut } = phrasings[form]
  const template = choose<string>(random, split === 'held-out-phrasing' ? heldOut : usual)
  const worded = chance(random, 1 / 3) ? template.replaceAll('picture', 'image') : template
  return worded.replace(/\{(\w+)\}/g, (_, slot: keyof Slots) => {
    const word = slots[slot]
    if (word === undefined) throw new RangeError(`Cannot phrase a question: no word for {${slot}} in "${template}"`)
    return word
  })
}
