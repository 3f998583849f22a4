/** `llava generate` as people meet it, with an endpoint and with bad input. */

import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import {
  type Behaviour,
  type ChatServer,
  type ReceivedRequest,
  startChatServer,
} from '../src/instruction-data/chat-server.fixture.ts'
import { writeHorseRows } from './horse-rows.ts'
import { runHere } from './run-here.ts'

let folder = ''
let server: ChatServer | undefined
const at = (...names: string[]) => join(folder, ...names)

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llava-generate-test-'))
  await writeHorseRows(at('rows.jsonl'))
})
afterEach(async () => {
  await server?.close()
  server = undefined
  vi.unstubAllEnvs()
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const rows = () => ['--captions', at('rows.jsonl')]
const description =
  'A man rides a horse along the beach. The horse is in the middle of the picture, and the man sits upright in the saddle.'
const talk =
  'Question:\nWhat is the man doing?\n===\nAnswer:\nHe rides a horse.\n===\nQuestion:\nIs there a dog?\n===\nAnswer:\nNo, there is no dog.'
const answers = ({ body }: ReceivedRequest): Behaviour => ({
  do: 'answer',
  text: JSON.stringify(body).includes('Describe the picture') ? description : talk,
})

async function generateWith(
  behave: (request: ReceivedRequest, times: number) => Behaviour,
  out: string,
  ...words: string[]
) {
  await server?.close()
  server = await startChatServer(behave)
  return runHere(
    'generate',
    ...rows(),
    '--teacher',
    'openai:m',
    '--base-url',
    server.baseURL,
    '--out',
    at(out),
    '--types',
    'conversation=1,detailed-description=1',
    ...words,
  )
}

const linesOf = async (...names: string[]) =>
  (await readFile(at(...names), 'utf8'))
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))

describe('generate with an endpoint', () => {
  test('makes rows of the responses, and the second time asks nothing', async () => {
    const first = await generateWith(answers, 'endpoint')
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(first.stdout).toContain('8 rows in ')
    expect(server?.requests.length).toBe(8)
    const made = await readFile(at('endpoint', 'data', 'llava.json'), 'utf8')
    const address = server!.baseURL
    await server?.close()
    server = undefined
    await rm(at('endpoint', 'data'), { recursive: true })
    const again = await runHere(
      'generate',
      ...rows(),
      '--teacher',
      'openai:m',
      '--base-url',
      address,
      '--out',
      at('endpoint'),
      '--types',
      'conversation=1,detailed-description=1',
    )
    expect(again.code).toBe(0)
    expect(await readFile(at('endpoint', 'data', 'llava.json'), 'utf8')).toBe(made)
    const [row] = await linesOf('endpoint', 'data', 'llava.jsonl')
    expect(row).toMatchObject({
      image: expect.stringMatching(/^\d\.jpg$/),
      teacher: 'openai:m',
      prompts: expect.stringMatching(/^[0-9a-f]{12}$/),
      verdicts: [],
    })
    expect(JSON.stringify(row.conversations).match(/<image>/g)?.length).toBe(1)
  })

  test('tags what validators find, and leaves it out with --strict, having asked again', async () => {
    const invents = (): Behaviour => ({
      do: 'answer',
      text: 'Question:\nWhat is there?\n===\nAnswer:\nA zebra and a horse.',
    })
    const words = ['--types', 'conversation=1']
    const tagged = await generateWith(invents, 'tagged', ...words)
    expect(tagged.stdout).toContain('  objects               0.0 % of 8 pass in conversation')
    const [row] = await linesOf('tagged', 'data', 'llava.jsonl')
    expect(row.verdicts).toEqual([{ validator: 'objects', problem: 'neither captions nor boxes have: zebra' }])
    const cites = (): Behaviour => ({
      do: 'answer',
      text: 'Question:\nWhat is there?\n===\nAnswer:\nThe captions mention a horse.',
    })
    await generateWith(cites, 'cites', ...words)
    expect((await linesOf('cites', 'data', 'llava.jsonl'))[0].verdicts).toEqual([
      { validator: 'cites-source', problem: 'it speaks of what the teacher was told: "captions"' },
    ])
    const strict = await generateWith(cites, 'strict', ...words, '--strict', '--validation-retries', '2')
    expect(strict.stdout).toContain('0 rows in ')
    expect(server?.requests.length).toBe(24)
    expect((await linesOf('strict', 'data', 'rejects.jsonl'))[0]).toMatchObject({
      reason: 'cites-source: it speaks of what the teacher was told: "captions"',
      round: 2,
    })
  })

  test('a dry run prints prompts and costs, sends nothing and leaves nothing', async () => {
    const { code, stdout } = await generateWith(answers, 'dry', '--dry-run', '--price', '1,2')
    expect(code).toBe(0)
    expect(server?.requests).toEqual([])
    expect(stdout).toContain('--- system\nYou help to write')
    expect(stdout).toMatch(/all +8 requests, about [\d.]+ k tokens in and [\d.]+ k out, about \$0\.\d\d/)
    expect(stdout).toMatch(/\nAt most \$0\.0\d+ without retries, if every response had 1024 tokens\n$/)
    await expect(readdir(at('dry'))).rejects.toThrow('ENOENT')
    const poor = await generateWith(answers, 'dry', '--dry-run', '--price', '1,2', '--max-usd', '0.01')
    expect(poor.stdout).toContain('--max-usd 0.01 ends the run where it might cost more')
  })

  test('takes own prompts, and knows rows that were made with others by their version', async () => {
    await cp('prompts', at('prompts'), { recursive: true })
    await rm(at('prompts', 'complex-reasoning'), { recursive: true })
    await writeFile(at('prompts', 'conversation', 'system.txt'), 'Talk about the picture.')
    await generateWith(answers, 'own-prompts', '--prompts', at('prompts'))
    const bodies = server!.requests.map(({ body }) => JSON.stringify(body))
    expect(bodies.some((body) => body.includes('"Talk about the picture."'))).toBe(true)
    const changed = await generateWith(answers, 'own-prompts')
    expect(changed.stderr).toMatch(
      /^llava: Cannot use --out .*: it holds a run with other settings, now base-url .*, prompts [0-9a-f,]+ \(was [0-9a-f,]+\); expected the same ones or another folder\n$/,
    )
    expect(changed.code).toBe(1)
  })
})

describe('bad input', () => {
  test.each<[string, Behaviour, RegExp]>([
    [
      'a wrong key',
      { do: 'status', status: 401, message: 'bad key' },
      /^llava: Cannot ask openai:m: the endpoint refused the key \(HTTP 401: bad key\), expected a valid one in OPENAI_API_KEY\n$/,
    ],
    [
      'an unknown model',
      { do: 'status', status: 404, message: 'no model m' },
      /^llava: Cannot ask openai:m: the endpoint does not know the model m or has no chat completions \(HTTP 404: no model m\)\n$/,
    ],
  ])('%s is one sentence', async (name, behaviour, sentence) => {
    const { code, stderr, stdout } = await generateWith(() => behaviour, name.replaceAll(' ', '-'))
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(sentence)
  })

  test('a budget that is reached is one sentence, and what was answered is kept', async () => {
    const { code, stderr } = await generateWith(
      answers,
      'budget',
      '--price',
      '100,1000',
      '--max-usd',
      '2',
      '--concurrency',
      '1',
    )
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /^llava: Cannot ask further: the budget is reached, \$\d\.\d+ are spent and the next request may cost \$1\.\d+\n$/,
    )
    const kept = (await linesOf('budget', 'answers.jsonl')).filter(({ event }) => event === 'answer').length
    expect(kept).toBeGreaterThan(0)
    expect(kept).toBe(server?.requests.length)
  })

  test.each<[string, string[], RegExp]>([
    ['no key', ['--teacher', 'openai:m'], /Cannot ask openai:m: found no OPENAI_API_KEY in the environment/],
    [
      'another teacher',
      ['--teacher', 'gpt'],
      /Cannot use --teacher gpt: expected rules, or openai: and the name of a model/,
    ],
    [
      'another type',
      ['--teacher', 'rules', '--types', 'chat=1'],
      /Cannot use --types chat=1: found "chat=1", expected each of conversation, /,
    ],
    [
      'a shard beyond the last',
      ['--teacher', 'rules', '--shard', '4/3'],
      /Cannot use --shard 4\/3: expected PART\/PARTS/,
    ],
    ['money without a price', ['--teacher', 'rules', '--max-usd', '3'], /Cannot use --max-usd without --price/],
    ['a strange price', ['--teacher', 'rules', '--price', 'cheap'], /Cannot use --price cheap: expected dollars/],
    ['a missing file', ['--teacher', 'rules', '--captions', 'none.jsonl'], /Cannot read none.jsonl: no such file/],
    [
      'no prompts',
      ['--teacher', 'rules', '--prompts', 'recipes'],
      /Cannot read prompts in recipes: found none of the folders conversation, /,
    ],
    [
      'an address that is none',
      ['--teacher', 'openai:m', '--base-url', 'localhost'],
      /Cannot use --base-url localhost: expected an address such as/,
    ],
  ])('%s', async (_, words, sentence) => {
    vi.stubEnv('OPENAI_API_KEY', '')
    vi.stubEnv('OPENAI_BASE_URL', '')
    const out = at(`bad-${Math.random()}`)
    const { code, stderr } = await runHere('generate', ...rows(), '--out', out, ...words)
    expect(code).toBe(1)
    expect(stderr).toMatch(sentence)
    expect(stderr.trimEnd().split('\n').length).toBe(1)
  })

  test('pictures that cannot be used are left out, each with a sentence', async () => {
    await mkdir(at('few'))
    await cp('fixtures/pictures/picturebook.png', at('few', '0.jpg'))
    await writeFile(at('few', '1.jpg'), '<html>not found</html>')
    const { code, stderr } = await runHere(
      'generate',
      ...rows(),
      '--images',
      at('few'),
      '--teacher',
      'rules',
      '--out',
      at('left-out'),
    )
    expect(code).toBe(0)
    expect(stderr).toMatch(
      /^7 pictures are left out \(.*skipped.jsonl\), the first: Cannot use picture 1: .*1.jpg holds an HTML page, expected a picture\n/,
    )
    expect((await linesOf('left-out', 'skipped.jsonl')).map(({ problem }) => problem)[1]).toMatch(
      /^Cannot use picture 2: cannot read .*2.jpg: no such file$/,
    )
    await mkdir(at('no-pictures'))
    const none = await runHere(
      'generate',
      ...rows(),
      '--images',
      at('no-pictures'),
      '--teacher',
      'rules',
      '--out',
      at('none-left'),
    )
    expect(none.stderr).toMatch(
      /^llava: Cannot generate from .*rows.jsonl: none of 8 pictures can be used, the first because: Cannot use picture 0: /,
    )
  })
})
