import { expect, test } from 'vitest'
import type { Prompt, Prompts, ResponseType } from './prompts.ts'
import { requestFor, requestKey, type Task } from './requests.ts'

const promptOf = (type: ResponseType): Prompt => ({
  type,
  system: 'You look at "a" picture.',
  examples: [{ context: 'A cat.', answer: 'Sure.' }],
  questions: [],
  version: '1',
})
const prompts: Prompts = {
  conversation: promptOf('conversation'),
  'detailed-description': promptOf('detailed-description'),
  'complex-reasoning': promptOf('complex-reasoning'),
}
const settings = { model: 'm', temperature: 0.5, maxTokens: 9, seed: 3 }
const taskOf = (caption: string): Task => ({
  picture: { id: '7', image: '7.jpg', captions: [caption], boxes: [] },
  type: 'conversation',
  promptVersion: '1',
})

test('the key of a request is that of its words, whichever requests came before', () => {
  const captions = ['A "quoted" cat, 猫.', 'A dog.', 'A "quoted" cat, 猫.']
  const requests = captions.flatMap((caption) =>
    [0, 1].map((round) => requestFor(taskOf(caption), { prompts, settings, round })),
  )
  for (const request of requests) expect(request.key).toBe(requestKey(request))
  expect(new Set(requests.map(({ key }) => key)).size).toBe(4)
})
