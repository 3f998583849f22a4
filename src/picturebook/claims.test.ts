import { describe, expect, test } from 'vitest'
import { readAnswer } from '../instruction-data/read-answer.ts'
import { tasksOf } from '../instruction-data/requests.ts'
import { renderContext, type SymbolicPicture } from '../instruction-data/symbolic-picture.ts'
import { judge } from '../instruction-data/validators.ts'
import { captions, describeInDetail } from './captions.ts'
import { sceneValidator } from './claim-validator.ts'
import { checkAnswer } from './claims.ts'
import { makeConversation } from './questions.ts'
import { picturebookTeacher } from './rules-teacher.ts'
import { makeScene, type Scene } from './scene.ts'
import { sceneOf } from './scene-of.ts'

const scene: Scene = {
  seed: 1,
  side: 96,
  setting: 'night',
  objects: [
    {
      category: 'cat',
      style: 'noto',
      size: 'small',
      box: { x: 4, y: 4, width: 20, height: 20 },
      mirrored: false,
      visible: 1,
    },
    {
      category: 'car',
      style: 'noto',
      size: 'small',
      box: { x: 70, y: 70, width: 20, height: 20 },
      mirrored: false,
      visible: 1,
    },
    {
      category: 'owl',
      style: 'noto',
      size: 'small',
      box: { x: 4, y: 70, width: 20, height: 20 },
      mirrored: false,
      visible: 1,
    },
    {
      category: 'owl',
      style: 'noto',
      size: 'small',
      box: { x: 40, y: 40, width: 20, height: 20 },
      mirrored: false,
      visible: 1,
    },
  ],
}

/** As it stands in COCO files. */
function inWords(of: Scene): SymbolicPicture {
  const share = (pixels: number) => Math.round((pixels / of.side) * 1000) / 1000
  return {
    id: String(of.seed),
    image: 'a.png',
    width: of.side,
    height: of.side,
    captions: captions(of, { seed: 0 }),
    boxes: of.objects.map(({ category, box: { x, y, width, height } }) => ({
      category,
      box: [share(x), share(y), share(x + width), share(y + height)],
    })),
  }
}

const reasons = (answer: string, question = 'What do you see?') =>
  checkAnswer(scene, { question, answer }).wrong.map(({ reason }) => reason)

describe('checkAnswer', () => {
  test.each([
    ['There is a dog.', ['there is no dog']],
    ['There are three owls.', ['the number of owls is 2']],
    ['There is no cat.', ['there is a cat']],
    ['The cat is in the top right.', ['the cat is in the top left']],
    ['The cat is to the right of the car.', ['the cat is to the left of the car']],
    ['The cat is below the car.', ['the cat is above the car']],
    ['The car is blue.', ['the car is red']],
    ['The car has several colors.', ['the car is red']],
    ['A cat in a field.', ['it is at night']],
    ['There are five things in all.', ['there are 4 things in all']],
    ['There are more cats than owls.', ['the numbers of cats and owls differ by 1']],
    ['There are as many cars as dogs.', ['the numbers of cars and dogs differ by 1']],
    ['A cat at night. Two owls. A horse waits. There are 4 things in all.', ['there is no horse']],
  ])('%s is false', (answer, expected) => expect(reasons(answer)).toEqual(expected))

  test.each([
    'There are two owls and a red car at night.',
    'The cat is in the top left.',
    'No, there is no dog.',
    'There are four things in all.',
    'The weather may change.',
    'There are more owls than dogs.',
    'There are as many cats as cars.',
  ])('%s is not false', (answer) => expect(reasons(answer)).toEqual([]))

  test.each([
    ['Is there a cat in the picture?', 'Yes', []],
    ['Is there a dog in the picture?', 'Yes', ['there is no dog']],
    ['Is there a cat in the picture?', 'No', ['it is so']],
    ['Is a dog in the image? Answer in one word.', 'Yes', ['there is no dog']],
    ['Is the cat to the left of the car?', 'No.', ['it is so']],
    ['How many owls are there?', '3', ['the number of owls is 2']],
    ['How many owls are there?', 'Two', []],
    ['Where is the cat?', 'top left', []],
    ['Where is the cat?\nAnswer with a single word.', 'bottom left', ['the cat is in the top left']],
    ['Where is the dog?', 'not in the picture', []],
    ['Where is the cat?', 'Not in the picture', ['there is a cat']],
    ['Is the car to the left or to the right of the cat?', 'left', ['the car is to the right of the cat']],
    ['What color is the car?', 'red', []],
    ['What color is the car?', 'several', ['the car is red']],
    ['What color is the thing above the car?', 'blue', []],
  ])('%s %s', (question, answer, expected) => expect(reasons(answer, question)).toEqual(expected))

  test('things of several colours have none of their own', () => {
    const ducks = { ...scene, objects: scene.objects.map((object) => ({ ...object, category: 'duck' })) }
    const reasonsOf = (answer: string) => checkAnswer(ducks, { question: '', answer }).wrong.map(({ reason }) => reason)
    expect(reasonsOf('The ducks have several colors.')).toEqual([])
    expect(reasonsOf('The ducks are green.')).toEqual(['the duck has several colors'])
  })

  test('finds nothing wrong with what the picturebook itself says, and can check most of it', () => {
    let [sentences, checked] = [0, 0]
    for (let seed = 0; seed < 120; seed++) {
      const one = makeScene(seed, { objects: [1, 6] })
      const told = [...captions(one, { seed: 0 }), describeInDetail(one)].map((answer) => ({ question: '', answer }))
      for (const exchange of [...told, ...makeConversation(one, { seed: 0, turns: 6 })]) {
        const found = checkAnswer(one, exchange)
        expect(found.wrong, JSON.stringify(exchange)).toEqual([])
        sentences += found.sentences
        checked += found.checked
      }
    }
    expect(checked / sentences).toBeGreaterThan(0.9)
  })
})

describe('sceneOf', () => {
  test('is the way back from captions and boxes', () => {
    for (const side of [96, 224]) {
      for (let seed = 0; seed < 60; seed++) {
        const one = makeScene(seed, { side, objects: [1, 8], overlap: 0.3 })
        const back = sceneOf(inWords(one))
        expect(back.setting).toBe(one.setting)
        expect(back.objects.map(({ category, box, visible }) => ({ category, box, visible }))).toEqual(
          one.objects.map(({ category, box, visible }) => ({ category, box, visible: expect.closeTo(visible, 6) })),
        )
      }
    }
  })

  test('refuses what is no picturebook picture', () => {
    const picture = inWords(scene)
    expect(() => sceneOf({ ...picture, captions: ['A cat.'] })).toThrow('found captions that name no setting')
    expect(() => sceneOf({ ...picture, boxes: [{ category: 'zebra', box: [0, 0, 1, 1] }] })).toThrow('found a zebra')
    expect(() => sceneOf({ ...picture, height: 50 })).toThrow('found a size of 96 x 50')
  })
})

test('the picturebook teacher says nothing that its validator finds wrong', async () => {
  const prompt = { system: '', examples: [], questions: ['Describe it.'], version: 'x' }
  const prompts = {
    conversation: { ...prompt, type: 'conversation' },
    'detailed-description': { ...prompt, type: 'detailed-description' },
    'complex-reasoning': { ...prompt, type: 'complex-reasoning' },
  } as const
  const teacher = picturebookTeacher()
  const settings = { model: 'rules', temperature: 0, maxTokens: 1, seed: 3 }
  let answers = 0
  for (let seed = 0; seed < 60; seed++) {
    const picture = inWords(makeScene(seed, { objects: [2, 6] }))
    expect(renderContext(picture, 'captions-and-boxes')).toContain(': [0.')
    const types = { conversation: 1, 'detailed-description': 1, 'complex-reasoning': 1 }
    for (const task of tasksOf(picture, { types, perPicture: 3, seed: 3, prompts })) {
      const request = { key: '', task, messages: [], settings, round: 0 }
      const answer = await teacher
        .answer(request, { signal: AbortSignal.abort() })
        .catch((error: Error) => error.message)
      if (typeof answer === 'string') {
        expect(answer).toBe('the scene allows no complex-reasoning')
        continue
      }
      const { text, finish } = answer
      const exchanges = readAnswer(task, text)
      expect(judge({ task, exchanges, finish }, [sceneValidator()]), text).toEqual([])
      answers += 1
    }
  }
  expect(answers).toBeGreaterThan(160)
})
