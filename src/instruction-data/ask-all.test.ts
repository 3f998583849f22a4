import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { openJournal } from './answer-journal.ts'
import { type AskOptions, askAll } from './ask-all.ts'
import { asking, manyTasks, paced, prompts, settings } from './asking.fixture.ts'
import { isUsable, readAndJudge } from './assemble.ts'
import {
  answerOf,
  type Behaviour,
  type ChatServer,
  type ReceivedRequest,
  startChatServer,
} from './chat-server.fixture.ts'
import { openAiTeacher } from './openai-teacher.ts'
import { adaptiveConcurrency, createBudget } from './pace.ts'
import type { Task } from './requests.ts'

let folder = ''
let server: ChatServer | undefined
let runs = 0
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'ask-all-'))
})
afterEach(async () => {
  await server?.close()
  server = undefined
})
afterAll(() => rm(folder, { recursive: true, force: true }))

type Changes = Partial<AskOptions> & { count?: number; timeoutMs?: number; path?: string; maxUsd?: number }

async function ask(behave: (request: ReceivedRequest, times: number) => Behaviour, changes: Changes = {}) {
  server ??= await startChatServer(behave)
  const {
    count = 6,
    timeoutMs = 2000,
    path = join(folder, `${++runs}.jsonl`),
    maxUsd = Number.POSITIVE_INFINITY,
  } = changes
  const teacher = openAiTeacher({ model: 'm', apiKey: 'k', baseURL: server.baseURL, timeoutMs })
  const journal = await openJournal(path)
  try {
    const result = await askAll(manyTasks(count), {
      teacher,
      journal,
      ...asking,
      ...paced({ first: 4, most: 8, usd: maxUsd }),
      price: { input: 10, output: 100 },
      validationRetries: 1,
      usable: (task, answer) => isUsable(readAndJudge(task, { answer, validators: [] }), { strict: false }),
      firstDelayMs: 1,
      ...changes,
    })
    return { result, path, answers: journal.answers(), spent: journal.spent(), lost: journal.lost() }
  } finally {
    await journal.close()
  }
}

const once =
  (trouble: Behaviour) =>
  (_: ReceivedRequest, times: number): Behaviour =>
    times === 0 ? trouble : { do: 'answer' }
const events = async (path: string) =>
  (await readFile(path, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

describe('askAll', () => {
  test('asks in the words of the prompt, once for each picture', async () => {
    const { result, answers, spent } = await ask(() => ({ do: 'answer' }))
    expect(result).toMatchObject({ tasks: 6, answered: 6, known: 0, dropped: 0, retries: 0 })
    expect(result.usd).toBeCloseTo(6 * (1000 * 10 + 100 * 100) * 1e-6)
    expect({ answers, spent }).toEqual({ answers: 6, spent: { input: 6000, output: 600 } })
    const [first] = server!.requests.toSorted((one, other) =>
      JSON.stringify(one.body).localeCompare(JSON.stringify(other.body)),
    )
    expect(first?.body).toEqual({
      model: 'm',
      temperature: 0.5,
      max_tokens: 200,
      seed: 1,
      n: 1,
      messages: [
        { role: 'system', content: 'Write about the picture.' },
        { role: 'user', content: 'Picture 0 shows a man on a horse.' },
      ],
    })
  })

  test.each<[string, Behaviour]>([
    ['429 without Retry-After', { do: 'status', status: 429 }],
    ['429 with Retry-After', { do: 'status', status: 429, headers: { 'retry-after': '0' } }],
    ['500', { do: 'status', status: 500 }],
    ['a closed connection', { do: 'refuse-connection' }],
    ['a cut answer', { do: 'cut' }],
    ['an answer that is no JSON', { do: 'body', body: '{"id": "x", "choi' }],
    ['an HTML page', { do: 'body', body: '<html>', type: 'text/html' }],
    ['JSON that is no completion', { do: 'body', body: '{"hello": 1}' }],
    ['an empty object', { do: 'body', body: '', type: 'application/json' }],
    ['two choices', { do: 'choices', count: 2 }],
    ['no choices', { do: 'choices', count: 0 }],
  ])('asks again after %s', async (_, trouble) => {
    const { result } = await ask(once(trouble))
    expect(result).toMatchObject({ tasks: 6, answered: 6, dropped: 0, retries: 6 })
    expect(server?.requests.length).toBe(12)
  })

  test.each<[string, Behaviour]>([
    ['hangs', { do: 'hang' }],
    ['hangs in the middle of the answer', { do: 'hang-in-body' }],
    ['is too slow', { do: 'answer', afterMs: 5000 }],
  ])('asks again when the endpoint %s', async (_, trouble) => {
    const { result } = await ask(once(trouble), { timeoutMs: 1000, count: 3 })
    expect(result).toMatchObject({ tasks: 3, answered: 3, retries: 3 })
  })

  test('waits for a slow answer within its time limit', async () => {
    const { result } = await ask(() => ({ do: 'answer', afterMs: 700 }), { count: 2 })
    expect(result).toMatchObject({ answered: 2, retries: 0 })
  })

  test('waits as long as it is asked to, with all requests', async () => {
    const begun = Date.now()
    await ask(
      (_, times) =>
        times === 0 ? { do: 'status', status: 429, headers: { 'retry-after-ms': '400' } } : { do: 'answer' },
      { count: 3, concurrency: adaptiveConcurrency({ first: 1, most: 1 }) },
    )
    expect(server!.requests[1]!.at - begun).toBeGreaterThanOrEqual(380)
  })

  test("waits for the endpoint's own limits instead of being refused", async () => {
    const limit = (remaining: string, reset: string): Behaviour => ({
      do: 'status',
      status: 500,
      headers: {
        'x-ratelimit-limit-requests': '2',
        'x-ratelimit-remaining-requests': remaining,
        'x-ratelimit-reset-requests': reset,
      },
    })
    await ask((_, times) => (times === 0 ? limit('0', '800ms') : { do: 'answer' }), {
      count: 1,
      concurrency: adaptiveConcurrency({ first: 1, most: 1 }),
    })
    const [first, second] = server?.requests ?? []
    expect(second!.at - first!.at).toBeGreaterThanOrEqual(350) // one of two in 800 ms
  })

  test('counts what an unusable answer cost', async () => {
    const { spent, result } = await ask(once({ do: 'choices', count: 2 }), { count: 1 })
    expect(spent).toEqual({ input: 2000, output: 200 })
    expect(result.usd).toBeCloseTo(0.04)
  })

  test('asks anew for an unusable response, as often as allowed', async () => {
    const { result, answers } = await ask(() => ({ do: 'answer', text: 'I would rather not.' }), {
      count: 2,
      validationRetries: 2,
    })
    expect(result).toMatchObject({ tasks: 2, answered: 6 })
    expect(answers).toBe(6)
    expect(new Set(server?.requests.map(({ key }) => key)).size).toBe(6)
  })

  test('gives up a refused request, and does not ask it again in the next run', async () => {
    const filter: Behaviour = {
      do: 'status',
      status: 400,
      code: 'content_filter',
      message: 'The response was filtered',
    }
    const { path, result } = await ask(({ body }) =>
      JSON.stringify(body).includes('Picture 2') ? filter : { do: 'answer' },
    )
    expect(result).toMatchObject({
      tasks: 6,
      answered: 5,
      dropped: 1,
      lastDropped: 'HTTP 400: The response was filtered',
    })
    const again = await ask(() => ({ do: 'answer' }), { path })
    expect(again.result).toMatchObject({ tasks: 6, known: 5, answered: 0, dropped: 1 })
    expect(server?.requests.length).toBe(6)
  })

  test('a filtered answer is given up as well', async () => {
    const { result } = await ask(() => ({ do: 'answer', finish: 'content_filter' }), { count: 2 })
    expect(result).toMatchObject({ answered: 0, dropped: 2, lastDropped: 'the content filter stopped the answer' })
  })

  test('gives up a request that alone fails, and tries it again in the next run', async () => {
    const bad = ({ body }: ReceivedRequest): Behaviour =>
      JSON.stringify(body).includes('Picture 1 ') ? { do: 'status', status: 500 } : { do: 'answer' }
    const { path, result } = await ask(bad)
    expect(result).toMatchObject({ tasks: 6, answered: 5, dropped: 1 })
    await server?.close()
    server = undefined
    const again = await ask(() => ({ do: 'answer' }), { path })
    expect(again.result).toMatchObject({ known: 5, answered: 1, dropped: 0 })
  })

  test.each<[string, Behaviour, string]>([
    [
      'a wrong key',
      { do: 'status', status: 401, message: 'Incorrect API key' },
      'Cannot ask openai:m: the endpoint refused the key (HTTP 401: Incorrect API key), expected a valid one in OPENAI_API_KEY',
    ],
    [
      'an unknown model',
      { do: 'status', status: 404, message: 'no such model' },
      'Cannot ask openai:m: the endpoint does not know the model m or has no chat completions (HTTP 404: no such model)',
    ],
    [
      'an empty account',
      { do: 'status', status: 429, code: 'insufficient_quota', message: 'no credit' },
      'Cannot ask openai:m: the account has no money left (HTTP 429: no credit)',
    ],
  ])('ends at once with %s', async (_, trouble, sentence) => {
    await expect(ask(() => trouble, { count: 100 })).rejects.toThrow(sentence)
    expect(server!.requests.length).toBeLessThanOrEqual(8)
  })

  test('ends when every request is refused', async () => {
    await expect(
      ask(() => ({ do: 'status', status: 400, message: 'unknown parameter' }), { count: 500 }),
    ).rejects.toThrow(/the last 20 requests were all refused, the latest with HTTP 400: unknown parameter/)
    expect(server!.requests.length).toBeLessThan(40)
  })

  test('ends when nothing succeeds for too long', async () => {
    await expect(ask(() => ({ do: 'status', status: 503 }), { count: 50, patienceMs: 300 })).rejects.toThrow(
      /^Cannot ask openai:m: nothing succeeded for \d+ s, the latest attempt ended with HTTP 503/,
    )
  })

  test('an outage is not counted against the requests that it meets', async () => {
    const until = Date.now() + 400
    const { result } = await ask(() => (Date.now() < until ? { do: 'refuse-connection' } : { do: 'answer' }), {
      count: 12,
      transportRetries: 2,
    })
    expect(result).toMatchObject({ answered: 12, dropped: 0 })
  })

  test('never spends more than allowed, and keeps what was answered', async () => {
    const path = join(folder, 'budget.jsonl')
    await expect(ask(() => ({ do: 'answer' }), { count: 50, maxUsd: 0.1, path })).rejects.toThrow(
      /^Cannot ask further: the budget is reached, \$0\.\d+ are spent and the next request may cost \$0\.\d+$/,
    )
    const kept = (await events(path)).filter(({ event }) => event === 'answer').length
    expect(kept).toBe(server?.requests.length)
    expect(kept * 0.02).toBeLessThanOrEqual(0.1)
    expect(kept).toBeGreaterThanOrEqual(3)
  })

  test('ends properly when it is interrupted: what was sent is waited for and kept', async () => {
    const controller = new AbortController()
    const { result, answers } = await ask(
      () => {
        controller.abort()
        return { do: 'answer', afterMs: 200 }
      },
      { count: 100, signal: controller.signal },
    )
    expect(answers).toBe(server?.requests.length)
    expect(result.answered).toBe(answers)
    expect(answers).toBeLessThanOrEqual(8)
  })

  test('asks for fewer at once when the endpoint is overloaded', async () => {
    const concurrency = adaptiveConcurrency({ first: 8, most: 8 })
    await ask((_, times) => (times === 0 ? { do: 'status', status: 429 } : { do: 'answer' }), { count: 8, concurrency })
    expect(concurrency.limit()).toBeLessThan(8)
  })

  test('two pictures of the same captions share one answer', async () => {
    async function* twins(): AsyncGenerator<Task> {
      for (const id of ['a', 'b'])
        yield {
          picture: { id, image: `${id}.jpg`, captions: ['A cat.'], boxes: [] },
          type: 'conversation',
          promptVersion: 'v',
        }
    }
    server = await startChatServer(() => ({ do: 'answer', afterMs: 50 }))
    const journal = await openJournal(join(folder, 'twins.jsonl'))
    const teacher = openAiTeacher({ model: 'm', apiKey: 'k', baseURL: server.baseURL, timeoutMs: 2000 })
    const concurrency = adaptiveConcurrency({ first: 4, most: 4 })
    const options = {
      teacher,
      journal,
      prompts,
      settings,
      price: { input: 0, output: 0 },
      concurrency,
      budget: createBudget({ spent: 0, most: 1 }),
      transportRetries: 0,
      validationRetries: 0,
      usable: () => true,
      patienceMs: 1000,
    }
    expect(await askAll(twins(), options)).toMatchObject({ tasks: 2, answered: 1 })
    await journal.close()
  })
})

test('answerOf is a response that can be read', () => {
  const task: Task = {
    picture: { id: '1', image: 'a', captions: ['A'], boxes: [] },
    type: 'conversation',
    promptVersion: 'v',
  }
  expect(readAndJudge(task, { answer: { text: answerOf, finish: 'stop' }, validators: [] })).toMatchObject({
    exchanges: [{ question: 'What is the man doing?' }],
  })
})
