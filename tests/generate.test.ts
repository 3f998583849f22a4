/** `llava generate` as people meet it: with the offline teacher, with an endpoint, and with bad input. */

import { cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { readImageSize } from '../src/image/decode.ts'
import {
  type Behaviour,
  type ChatServer,
  type ReceivedRequest,
  startChatServer,
} from '../src/instruction-data/chat-server.fixture.ts'
import { readLlavaRows } from '../src/instruction-data/llava-json.ts'
import { runHere } from './run-here.ts'

let folder = ''
let server: ChatServer | undefined
const at = (...names: string[]) => join(folder, ...names)

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llava-generate-test-'))
  const made = await runHere('picturebook', '--count', '12', '--out', at('scenes'))
  expect(made.code).toBe(0)
  await writeFile(
    at('rows.jsonl'),
    Array.from(
      { length: 8 },
      (_, id) =>
        `${JSON.stringify({ id, image: `${id}.jpg`, captions: [`A man rides horse number ${id} along the beach.`], boxes: [{ category: 'horse', box: [0.1, 0.2, 0.6, 0.9] }] })}\n`,
    ).join(''),
  )
})
afterEach(async () => {
  await server?.close()
  server = undefined
  vi.unstubAllEnvs()
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const scenes = () => [
  '--captions',
  at('scenes', 'captions_train.json'),
  '--instances',
  at('scenes', 'instances_train.json'),
  '--images',
  at('scenes', 'images'),
]
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

describe('generate with rules', () => {
  test('answers picturebook scenes truly, and says where each row comes from', async () => {
    const { code, stdout, stderr } = await runHere(
      'generate',
      ...scenes(),
      '--teacher',
      'rules',
      '--picturebook',
      '--per-picture',
      '3',
      '--out',
      at('book'),
      '--json',
    )
    expect({ code, stderr: stderr.replace(/^\d+ requests were given up.*\n/, '') }).toEqual({ code: 0, stderr: '' })
    const { report } = JSON.parse(stdout)
    expect(report.conversation).toMatchObject({ tasks: 12, rows: 12, failed: {} })
    expect(report['detailed-description']).toMatchObject({ tasks: 12, rows: 12, failed: {} })
    const made = await readLlavaRows(at('book', 'data', 'llava.json'))
    expect(await readLlavaRows(at('book', 'data', 'llava.jsonl'))).toEqual(made)
    const provenance = await linesOf('book', 'data', 'provenance.jsonl')
    expect(provenance.map(({ id }) => id)).toEqual(made.map(({ id }) => id))
    expect(provenance[0]).toMatchObject({
      teacher: 'rules',
      seed: 0,
      verdicts: [],
      generator: expect.stringMatching(/^llava-ts /),
      licenses: expect.any(Array),
    })
    const manifest = JSON.parse(await readFile(at('book', 'data', 'manifest.json'), 'utf8'))
    expect(manifest).toMatchObject({ schema: 1, rows: made.length, teacher: { name: 'rules' }, strict: false })
  })

  test('answers from captions and boxes of any picture; the shards together are the whole', async () => {
    const whole = ['generate', ...rows(), '--teacher', 'rules', '--per-picture', '3']
    expect((await runHere(...whole, '--out', at('all'))).code).toBe(0)
    const ids: string[] = []
    for (const shard of ['1/3', '2/3', '3/3']) {
      const out = `shard-${shard.replace('/', '-')}`
      expect((await runHere(...whole, '--out', at(out), '--shard', shard)).code).toBe(0)
      ids.push(...(await linesOf(out, 'data', 'llava.jsonl')).map(({ id }) => id))
    }
    expect(ids.sort()).toEqual((await linesOf('all', 'data', 'llava.jsonl')).map(({ id }) => id).sort())
  })
})

describe('generate from what people have', () => {
  const all = ['--teacher', 'rules', '--per-picture', '3']
  const picture = 'fixtures/pictures/picturebook.png'

  test('a table with boxes in pixels, whose sizes are the files', async () => {
    await mkdir(at('photos'))
    await cp(picture, at('photos', 'a.png'))
    await writeFile(
      at('table.csv'),
      'Image;Caption;x;y;width;height;label\na.png;A cat, and ducks.;8;8;16;16;cat\nb.png;Gone.;;;;;\n',
    )
    const { code, stderr } = await runHere(
      'generate',
      '--captions',
      at('table.csv'),
      '--images',
      at('photos'),
      ...all,
      '--out',
      at('table'),
    )
    expect(code).toBe(0)
    expect(stderr).toContain(
      `Reading ${at('table.csv')}: a table with semicolons: pictures in "Image", captions in "Caption", boxes in "x", "y", "width", "height" with "label"\nOne picture is left out (`,
    )
    expect(stderr).toContain('b.png: no such file')
    const [{ boxes, captions }] = await linesOf('table', 'data', 'provenance.jsonl')
    expect(captions).toEqual(['A cat, and ducks.'])
    const { width } = await readImageSize(picture)
    expect(boxes).toEqual([
      { category: 'cat', box: [8, 8, 24, 24].map((value) => Math.round((1000 * value) / width) / 1000) },
    ])
  })

  test('a folder of captioned pictures, which are looked for there; other captions are another run', async () => {
    const words = ['generate', '--captions', at('album'), ...all, '--out', at('from-album')]
    await mkdir(at('album'))
    await cp(picture, at('album', 'a.png'))
    await writeFile(at('album', 'a.txt'), 'A cat.\nA cat sits near three ducks in the meadow.\n')
    await writeFile(at('album', 'b.png'), '')
    await writeFile(at('album', 'b.txt'), 'Broken.')
    const first = await runHere(...words)
    expect(first.code).toBe(0)
    expect(first.stderr).toContain('with captions beside them, such as a.png with a.txt\nOne picture is left out')
    expect(first.stderr).toContain('b.png holds nothing, expected a picture')
    const rows = await linesOf('from-album', 'data', 'llava.jsonl')
    expect(rows.map(({ image }) => image)).toContain('a.png')
    expect((await runHere(...words)).stderr).not.toContain('Reading')
    await writeFile(at('album', 'a.txt'), 'A dog.')
    expect((await runHere(...words)).stderr).toMatch(
      /^llava: Cannot use --out .*: it holds a run with other settings, now captions /,
    )
  })

  test('boxes given twice, and what nothing can be read from, are one sentence', async () => {
    const twice = await runHere(
      'generate',
      '--captions',
      at('table.csv'),
      '--instances',
      at('rows.jsonl'),
      ...all,
      '--out',
      at('none'),
    )
    expect(twice.stderr).toMatch(
      /^llava: Cannot use --instances: .*table.csv is a table with semicolons: .*, which has its own boxes; expected COCO captions\n$/,
    )
    const prose = await runHere('generate', '--captions', 'LICENSE', ...all, '--out', at('none'))
    expect(prose.stderr).toMatch(
      /^llava: Cannot read LICENSE: found the columns .*, expected in the first line a column for the picture, .*\n$/,
    )
    expect({ code: prose.code, stdout: prose.stdout }).toEqual({ code: 1, stdout: '' })
    await expect(readdir(at('none'))).rejects.toThrow('ENOENT')
  })
})

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
    await cp(at('scenes', 'images', '000000.png'), at('few', '0.jpg'))
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
    const none = await runHere(
      'generate',
      ...rows(),
      '--images',
      at('scenes'),
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
