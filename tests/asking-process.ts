/** A process of its own that asks a server for many answers, for tests that kill it: `asking-process.ts JOURNAL ADDRESS COUNT`, begins when told on standard input. */

import { openJournal } from '../src/instruction-data/answer-journal.ts'
import { askAll } from '../src/instruction-data/ask-all.ts'
import { asking, manyTasks, paced } from '../src/instruction-data/asking.fixture.ts'
import { openAiTeacher } from '../src/instruction-data/openai-teacher.ts'

const [path = '', baseURL = '', count = ''] = process.argv.slice(2)

await new Promise((resolve) => process.stdin.once('data', resolve))
const journal = await openJournal(path)
const { tasks } = await askAll(manyTasks(Number(count)), {
  teacher: openAiTeacher({ model: 'm', apiKey: 'k', baseURL, timeoutMs: 10_000 }),
  journal,
  ...asking,
  ...paced({ first: 8, most: 8, usd: 1 }),
  patienceMs: 10_000,
})
await journal.close()
process.stdout.write(`${tasks}\n`)
process.exit(0)
