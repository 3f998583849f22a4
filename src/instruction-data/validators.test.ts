import { describe, expect, test } from 'vitest'
import { groundingValidators } from './grounding.ts'
import { createObjectFinder } from './object-names.ts'
import { loadPrompts, type ResponseType, responseTypes } from './prompts.ts'
import { type Exchange, readAnswer, writeAnswer } from './read-answer.ts'
import { shareOf, tasksOf } from './requests.ts'
import { rulesTeacher } from './rules-teacher.ts'
import type { NamedBox, SymbolicPicture } from './symbolic-picture.ts'
import { judge, wordValidators } from './validators.ts'

const prompts = await loadPrompts('prompts')
const find = createObjectFinder()
const box = (category: string, ...corners: [number, number, number, number]): NamedBox => ({ category, box: corners })
const picture: SymbolicPicture = {
  id: '1',
  image: '1.jpg',
  captions: ['A man sits on a bench next to his dog.', 'A person and a puppy in the park.'],
  boxes: [box('person', 0.1, 0.2, 0.3, 0.9), box('dog', 0.6, 0.5, 0.8, 0.9), box('bench', 0.05, 0.5, 0.5, 0.95)],
}

function problems(exchanges: Exchange[], { type = 'conversation' as ResponseType, finish = 'stop' } = {}) {
  const task = { picture, type, promptVersion: 'v' }
  const verdicts = judge({ task, exchanges, finish }, [...wordValidators(prompts), ...groundingValidators(find)])
  return verdicts.map(({ validator, problem }) => `${validator}: ${problem}`)
}
const say = (answer: string, question = 'What can you see?') => problems([{ question, answer }])

describe('validators', () => {
  test.each([
    ['A man and his dog at a bench.'],
    ['No, there is no cat in the picture.'],
    ['The dog is to the right of the person.'],
    ['There are fewer dogs than cats.'],
    ['He is sitting, and an orange leash lies beside him.'],
  ])('pass: %s', (answer) => expect(say(answer)).toEqual([]))

  test.each([
    ['There is a cat under the bench.', 'objects: neither captions nor boxes have: cat'],
    ['A woman peels an orange.', 'objects: neither captions nor boxes have: orange'],
    ['The dog is to the left of the person.', 'sides: the boxes deny that the dog is left of the person'],
    ['As an AI language model, I cannot see pictures.', 'refusal: the teacher refuses or speaks of itself: "As an AI"'],
    ["I'm sorry, but that is not clear.", 'refusal: the teacher refuses or speaks of itself: "I\'m sorry"'],
    [
      'According to the captions, a man sits there.',
      'cites-source: it speaks of what the teacher was told: "captions"',
    ],
    ['The dog is at [0.6, 0.5, 0.8, 0.9].', 'cites-source: it speaks of what the teacher was told: "[0.6"'],
    [
      'На скамейке сидит мужчина с собакой.',
      'language: 30 of 43 letters are not of the Latin alphabet, expected English',
    ],
    [
      'Ein Mann sitzt mit seinem Hund auf einer Bank im Park und schaut sich dabei die Enten an, die dort schwimmen und gern Brot fressen würden.',
      expect.stringMatching(/^language: \d+ % of the words are frequent English ones, expected at least 20 %$/),
    ],
    [
      'Ask only what can be answered with certainty: either the sentences say it, or not.',
      'prompt-echo: it repeats the prompt: "ask only what can be answered with certainty either the"',
    ],
  ])('fail: %s', (answer, problem) => expect(say(answer)).toContainEqual(problem))

  test('an echo is ten words of the prompt in a row, wherever they stand in it', () => {
    const { system } = prompts.conversation
    const words = system.toLowerCase().match(/[a-z]+(?:'[a-z]+)?/g) ?? []
    const echoes = (answer: readonly string[]) => say(answer.join(' ')).some((one) => one.startsWith('prompt-echo'))
    for (let at = 0; at + 20 <= words.length; at += 7) {
      expect(echoes(['There', ...words.slice(at, at + 10)])).toBe(true)
      expect(echoes([...words.slice(at, at + 9), 'xyz', ...words.slice(at + 9, at + 18)])).toBe(false)
      expect(echoes(words.slice(at, at + 20).toReversed())).toBe(false) // known words, in another order
    }
  })

  test('look at the conversation as a whole', () => {
    const asked = (question: string, answer: string) => ({ question, answer })
    expect(problems([asked('What is there?', 'A man.'), asked('what is  there', 'A dog.')])).toEqual([
      'duplicate-question: a question comes twice: "what is  there"',
    ])
    const yes = ['Is there a man?', 'Is there a dog?', 'Is there a bench?', 'Is it a park?'].map((question) =>
      asked(question, 'Yes, there is.'),
    )
    expect(problems(yes)).toEqual(['only-yes: all 4 yes-or-no questions are answered with yes'])
    expect(problems([...yes, asked('Is there a cat?', 'No, there is no cat.')])).toEqual([])
    expect(problems([asked('What is there?', 'A man and')], { finish: 'length' })).toEqual([
      'complete: the response was cut off at its longest length',
    ])
    expect(problems([asked('Describe it.', 'A man.')], { type: 'detailed-description' })).toEqual([
      'length: an answer has 2 words, expected 12 to 500',
    ])
  })

  test('none finds anything in the examples of the prompts but what their own pictures have', async () => {
    for (const type of responseTypes) {
      for (const { context, answer } of prompts[type].examples) {
        const [captions = '', boxes = ''] = context.split('\n\n')
        const named = boxes
          .split('\n')
          .filter(Boolean)
          .map((line) => {
            const [category = '', corners = ''] = line.split(': ')
            return { category, box: JSON.parse(corners) as [number, number, number, number] }
          })
        const shown = { id: 'x', image: 'x', captions: captions.split('\n'), boxes: named }
        const task = { picture: shown, type, promptVersion: 'v', question: 'Describe it.' }
        const validators = [
          ...wordValidators(prompts).filter(({ name }) => name !== 'prompt-echo'),
          ...groundingValidators(find),
        ]
        expect(judge({ task, exchanges: readAnswer(task, answer), finish: 'stop' }, validators)).toEqual([])
      }
    }
  })
})

describe('readAnswer', () => {
  const exchanges = [
    { question: 'What is there?', answer: 'A cat.\n\nAnd a dog.' },
    { question: 'Where?', answer: 'Here.' },
  ]
  const read = (text: string, type: ResponseType = 'conversation') =>
    readAnswer({ type, question: 'Describe it.' }, text)

  test('reads what the prompts ask for, and what models make of it', () => {
    expect(read(writeAnswer(exchanges))).toEqual(exchanges)
    expect(read('Question: What is there?\n===\nAnswer: A cat.\n===')).toEqual([
      { question: 'What is there?', answer: 'A cat.' },
    ])
    expect(read('**Question:** What is there?\n**Answer:** A cat.')).toEqual([
      { question: 'What is there?', answer: 'A cat.' },
    ])
    expect(read('A long description.', 'detailed-description')).toEqual([
      { question: 'Describe it.', answer: 'A long description.' },
    ])
  })

  test.each([
    ['', 'conversation', 'found nothing, expected a response'],
    ['Hello.', 'conversation', 'found "Hello." without "Question:" or "Answer:" before it'],
    ['Question:\nWhat?', 'conversation', 'found nothing after the question "What?", expected its answer'],
    ['Question:\nWhat?\n===\nQuestion:\nWhere?', 'conversation', 'found a question after the question "What?"'],
    ['Answer:\nA cat.', 'conversation', 'found answer as part 1, expected a question'],
    ['Question:\nWhat?\n===\nAnswer:\n', 'conversation', 'found an empty answer'],
    [writeAnswer(exchanges), 'complex-reasoning', 'found 2 questions, expected one'],
  ] as const)('refuses %j', (text, type, reason) => {
    expect(() => read(text, type)).toThrow(SyntaxError)
    expect(() => read(text, type)).toThrow(reason)
  })
})

describe('tasksOf', () => {
  const plan = {
    types: { conversation: 58, 'detailed-description': 23, 'complex-reasoning': 77 },
    perPicture: 1,
    seed: 0,
    prompts,
  }

  test('draws types as often as their weights say, the same for a picture in any order', () => {
    const counts = new Map<string, number>()
    for (let id = 0; id < 3000; id++) {
      const [task] = tasksOf({ ...picture, id: String(id) }, plan)
      counts.set(task!.type, (counts.get(task!.type) ?? 0) + 1)
      expect(tasksOf({ ...picture, id: String(id) }, plan)[0]?.type).toBe(task?.type)
    }
    expect(counts.get('conversation')! / 3000).toBeCloseTo(58 / 158, 1)
    expect(counts.get('detailed-description')! / 3000).toBeCloseTo(23 / 158, 1)
  })

  test('draws no type twice, and a question for descriptions alone', () => {
    const all = tasksOf(picture, { ...plan, perPicture: 3 })
    expect(new Set(all.map(({ type }) => type)).size).toBe(3)
    expect(all.filter(({ question }) => question !== undefined).map(({ type }) => type)).toEqual([
      'detailed-description',
    ])
    expect(tasksOf(picture, { ...plan, types: { conversation: 1 }, perPicture: 3 }).length).toBe(1)
  })
})

test('the rules teacher says nothing that the boxes deny', async () => {
  const names = ['person', 'dog', 'cat', 'bench', 'car', 'kite']
  const teacher = rulesTeacher({ categories: names, find })
  const plan = {
    types: { conversation: 1, 'detailed-description': 1, 'complex-reasoning': 1 },
    perPicture: 3,
    seed: 0,
    prompts,
  }
  const settings = { model: 'rules', temperature: 0, maxTokens: 1, seed: 0 }
  let answers = 0
  for (let id = 0; id < 100; id++) {
    const boxes = names
      .filter((name) => shareOf(`${name} ${id}`) < 0.6)
      .flatMap((name) => {
        return Array.from({ length: 1 + Math.floor(shareOf(`n ${name} ${id}`) * 2) }, (_, index) => {
          const [x, y] = [shareOf(`x ${name} ${id} ${index}`) * 0.7, shareOf(`y ${name} ${id} ${index}`) * 0.7]
          return box(name, x, y, x + 0.2, y + 0.25)
        })
      })
    const shown = { ...picture, id: String(id), captions: ['A sunny day outside.'], boxes }
    for (const task of tasksOf(shown, plan)) {
      const answer = await teacher
        .answer({ key: '', task, messages: [], settings, round: 0 }, { signal: new AbortController().signal })
        .catch(() => undefined)
      if (answer === undefined) continue
      answers += 1
      const exchanges = readAnswer(task, answer.text)
      expect(
        judge({ task, exchanges, finish: 'stop' }, [...wordValidators(prompts), ...groundingValidators(find)]).filter(
          ({ validator }) => validator !== 'length',
        ),
        answer.text,
      ).toEqual([])
    }
  }
  expect(answers).toBeGreaterThan(200)
})
