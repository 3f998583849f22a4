/** A process of its own that asks a server for many answers, for tests that kill it: `asking-process.ts JOURNAL ADDRESS COUNT`, begins when told on standard input. */

import { openJournal } from '../src/instruction-data/answer-journal.ts'
import { askAll } from '../src/instruction-data/ask-all.ts'
import { openAiTeacher } from '../src/instruction-data/openai-teacher.ts'
import { adaptiveConcurrency, createBudget } from '../src/instruction-data/pace.ts'
import { type Prompts, responseTypes } from '../src/instruction-data/prompts.ts'
import type { Task } from '../src/instruction-data/requests.ts'

const [path = '', baseURL = '', count = ''] = process.argv.slice(2)
const prompt = { system: 'Write.', examples: [], questions: [], version: 'v' }

export async function* manyTasks(count: number): AsyncGenerator<Task> {
  for (let id = 0; id < count; id++) {
    const picture = { id: String(id), image: `${id}.jpg`, captions: [`Picture ${id}.`], boxes: [] }
    yield { picture, type: 'conversation', promptVersion: 'v' }
  }
}

await new Promise((resolve) => process.stdin.once('data', resolve))
const journal = await openJournal(path)
const { tasks } = await askAll(manyTasks(Number(count)), {
  teacher: openAiTeacher({ model: 'm', apiKey: 'k', baseURL, timeoutMs: 10_000 }),
  journal,
  prompts: Object.fromEntries(responseTypes.map((type) => [type, { ...prompt, type }])) as unknown as Prompts,
  settings: { model: 'm', temperature: 0, maxTokens: 100, seed: 0 },
  price: { input: 0, output: 0 },
  concurrency: adaptiveConcurrency({ first: 8, most: 8 }),
  budget: createBudget({ spent: 0, most: 1 }),
  transportRetries: 3,
  validationRetries: 0,
  usable: () => true,
  patienceMs: 10_000,
})
await journal.close()
process.stdout.write(`${tasks}\n`)
process.exit(0)
