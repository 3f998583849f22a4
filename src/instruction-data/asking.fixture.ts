/** Something to ask a teacher, for tests: one prompt for all types, settings, and as many tasks as are wanted, each about another picture. */

import type { AskOptions } from './ask-all.ts'
import { adaptiveConcurrency, createBudget } from './pace.ts'
import { type Prompts, responseTypes } from './prompts.ts'
import type { Task, TeacherSettings } from './requests.ts'

const prompt = { system: 'Write about the picture.', examples: [], questions: [], version: 'v' }
export const prompts = Object.fromEntries(
  responseTypes.map((type) => [type, { ...prompt, type }]),
) as unknown as Prompts
export const settings: TeacherSettings = { model: 'm', temperature: 0.5, maxTokens: 200, seed: 1 }

export async function* manyTasks(count: number): AsyncGenerator<Task> {
  for (let id = 0; id < count; id++) {
    const captions = [`Picture ${id} shows a man on a horse.`]
    const picture = { id: String(id), image: `${id}.jpg`, captions, boxes: [] }
    yield { picture, type: 'conversation', promptVersion: 'v' }
  }
}

/** Options of `askAll` that are alike in most tests: free of charge unless a price is given, every answer taken as it is. */
export const asking = {
  prompts,
  settings,
  price: { input: 0, output: 0 },
  transportRetries: 3,
  validationRetries: 0,
  usable: () => true,
  patienceMs: 60_000,
} satisfies Partial<AskOptions>

/** So many requests at a time at first and at most, and dollars that may be spent. */
export function paced({ first, most, usd }: { first: number; most: number; usd: number }) {
  return { concurrency: adaptiveConcurrency({ first, most }), budget: createBudget({ spent: 0, most: usd }) }
}
