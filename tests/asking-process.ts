/** A process of its own that asks a server for many answers, for tests that kill it: `asking-process.ts JOURNAL ADDRESS COUNT`, begins when told on standard input. */

import { openJournal } from '../src/instruction-data/answer-journal.ts'
import { askAll } from '../src/instruction-data/ask-all.ts'
import { manyTasks, prompts, settings } from '../src/instruction-data/asking.fixture.ts'
import { openAiTeacher } from '../src/instruction-data/openai-teacher.ts'
import { adaptiveConcurrency, createBudget } from '../src/instruction-data/pace.ts'

const [path = '', baseURL = '', count = ''] = process.argv.slice(2)

await new Promise((resolve) => process.stdin.once('data', resolve))
const journal = await openJournal(path)
const { tasks } = await askAll(manyTasks(Number(count)), {
  teacher: openAiTeacher({ model: 'm', apiKey: 'k', baseURL, timeoutMs: 10_000 }),
  journal,
  prompts,
  settings,
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
