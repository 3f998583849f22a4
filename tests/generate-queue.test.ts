/** `llava generate --queue` and `llava worker` as people meet them: one makes a run, the others ask for it. */

import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { runProgram } from '../src/cli/program.ts'
import { type ChatServer, startChatServer } from '../src/instruction-data/chat-server.fixture.ts'
import { type RedisServer, redisProgram, startRedisServer } from '../src/instruction-data/redis-server.fixture.ts'
import { runHere } from './run-here.ts'

let folder = ''
let chat: ChatServer
const at = (...names: string[]) => join(folder, ...names)

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'generate-queue-'))
  chat = await startChatServer(() => ({ do: 'answer' }))
  const row = (id: number) => ({ id, image: `${id}.jpg`, captions: [`A man rides horse number ${id}.`], boxes: [] })
  const rows = Array.from({ length: 6 }, (_, id) => `${JSON.stringify(row(id))}\n`)
  await writeFile(at('rows.jsonl'), rows.join(''))
})
afterAll(async () => {
  await chat.close()
  await rm(folder, { recursive: true, force: true })
})

const generate = (out: string, ...words: string[]) => [
  'generate',
  '--captions',
  at('rows.jsonl'),
  '--teacher',
  'openai:m',
  '--types',
  'conversation=1',
  '--out',
  at(out),
  ...words,
]

/** Several programs in this process, at once, with all that they print. */
function runTogether(...lines: string[][]) {
  let said = ''
  const spies = (['stdout', 'stderr'] as const).map((name) =>
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      said += text
      return true
    }),
  )
  const codes = Promise.all(lines.map((words) => runProgram(words))).finally(() => {
    for (const spy of spies) spy.mockRestore()
  })
  return { codes, said: () => said }
}

describe.skipIf(redisProgram === undefined)('with a server', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedisServer('--requirepass', 'sesame')
  })
  afterAll(() => redis?.close())
  const address = () => redis.url().replace('//', '//:sesame@')

  test('a worker asks for the run, and both say what they do without the password', async () => {
    const endpoint = ['--base-url', chat.baseURL]
    const both = runTogether(generate('made', '--queue', address(), ...endpoint), [
      'worker',
      address(),
      '--until-done',
      '--json',
      ...endpoint,
    ])
    expect(await both.codes).toEqual([0, 0])
    const said = both.said()
    expect(said).toMatch(
      /Run [0-9a-f]{12} is on redis:\/\/127.0.0.1:\d+\/0; on each machine that is to ask: llava worker redis:/,
    )
    expect(said).toMatch(/Working for run [0-9a-f]{12} \(openai:m\)\n/)
    expect(said).toContain('{"answered":6,"failed":0,"handedBack":0}\n')
    expect(said).toContain('6 rows in ')
    expect(said).not.toContain('sesame')
    expect(chat.requests.length).toBe(6)
    expect(await readFile(at('made', 'answers.jsonl'), 'utf8')).not.toContain('sesame')
    expect(await readdir(at('made'))).not.toContain('queue.json')
  })

  test('a worker with another endpoint is refused, and a run that is with workers is not asked for from here', async () => {
    const interrupted = generate('other', '--queue', address(), '--base-url', 'http://127.0.0.1:9/v1')
    const running = runTogether(interrupted, ['worker', address(), '--until-done', '--base-url', chat.baseURL])
    const refusal =
      /Cannot work for run [0-9a-f]{12}: its endpoint is http:\/\/127.0.0.1:9\/v1, this worker has http:\/\/127.0.0.1:\d+\/v1; start it with --base-url http:\/\/127.0.0.1:9\/v1/
    await vi.waitFor(() => expect(running.said()).toMatch(refusal), 20_000)
    process.emit('SIGTERM', 'SIGTERM')
    expect(await running.codes).toEqual([143, 1])
    await writeFile(at('other', 'queue.json'), '{"run":"0123456789ab"}')
    const local = await runHere(...generate('other', '--base-url', 'http://127.0.0.1:9/v1'))
    expect(local.stderr).toMatch(/^llava: Cannot go on without --queue: requests of this run may be with workers; give/)
  })
})

test.each<[string, string[], RegExp]>([
  ['rules', ['--teacher', 'rules', '--queue', 'redis://h'], /Cannot use --queue with --teacher rules, which needs/],
  ['batches', ['--batch', '--queue', 'redis://h'], /Cannot use --queue with --batch\n/],
  [
    'another address',
    ['--queue', 'http://:secret@h'],
    /Cannot use the queue http:\/\/…@h: expected an address such as/,
  ],
  ['no address', ['--queue'], /Cannot use a queue: found no address, and no REDIS_URL in the environment/],
  ['a server that is not there', ['--queue', 'redis://127.0.0.1:9'], /Cannot use the queue redis:.*: connect ECONN/],
])('a queue is refused with %s', async (_, words, sentence) => {
  vi.stubEnv('REDIS_URL', '')
  const { code, stderr } = await runHere(...generate(`bad-${Math.random()}`), ...words)
  vi.unstubAllEnvs()
  expect(code).toBe(1)
  expect(stderr).toMatch(sentence)
  expect(stderr.trimEnd().split('\n').length).toBe(1)
})
