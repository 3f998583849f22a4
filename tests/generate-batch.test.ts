/** `llava generate --batch` against a server that keeps batches, also when the command dies between two steps. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { answerOf } from '../src/instruction-data/chat-server.fixture.ts'
import { runHere } from './run-here.ts'

type Batch = { id: string; input: string; metadata: Record<string, string>; looks: number }
let folder = ''
let server: Server
let baseURL = ''
const files = new Map<string, string>()
const batches: Batch[] = []
let status = 'completed' // of batches in the end

/** Answers every request but those about picture 3, which it refuses. A batch has ended at the second look. */
function resultsOf(input: string): string {
  const lines = (files.get(input) ?? '')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const results = lines.map(({ custom_id, body }) => {
    const bad = JSON.stringify(body).includes('horse 3')
    const completion = {
      id: 'c',
      model: 'm-1',
      choices: [{ index: 0, finish_reason: 'stop', message: { content: answerOf } }],
      usage: { prompt_tokens: 10, completion_tokens: 5 },
    }
    return { custom_id, response: { status_code: bad ? 500 : 200, body: bad ? {} : completion } }
  })
  return results.map((result) => `${JSON.stringify(result)}\n`).join('')
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'generate-batch-'))
  server = createServer(async (request, response) => {
    const pieces: Buffer[] = []
    for await (const piece of request) pieces.push(piece)
    const body = Buffer.concat(pieces).toString('utf8')
    const send = (value: unknown) =>
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    const path = request.url?.split('?')[0] ?? ''
    const shown = ({ id, input, metadata, looks }: Batch) => ({
      id,
      metadata,
      status: looks > 1 ? status : 'in_progress',
      request_counts: { completed: 1, failed: 0, total: 8 },
      ...(looks > 1 && status === 'completed' && { output_file_id: `out-${input}` }),
    })
    if (path === '/v1/files') {
      const id = `file-${files.size + 1}`
      files.set(id, body.split('\r\n').find((line) => line.startsWith('{"custom_id"')) ?? '')
      send({ id })
    } else if (path.endsWith('/content')) {
      response
        .writeHead(200, { 'content-type': 'application/octet-stream' })
        .end(resultsOf(path.split('/')[3]?.replace('out-', '') ?? ''))
    } else if (path === '/v1/batches' && request.method === 'POST') {
      const { input_file_id, metadata } = JSON.parse(body)
      batches.push({ id: `batch-${batches.length + 1}`, input: input_file_id, metadata, looks: 0 })
      send(shown(batches.at(-1)!))
    } else if (path === '/v1/batches') send({ object: 'list', data: batches.map(shown), has_more: false })
    else {
      const batch = batches.find(({ id }) => path.endsWith(`/${id}`))!
      batch.looks += 1
      send(shown(batch))
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  baseURL = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`
  const rows = Array.from(
    { length: 8 },
    (_, id) => `${JSON.stringify({ id, image: `${id}.jpg`, captions: [`A man rides horse ${id}.`] })}\n`,
  )
  await writeFile(join(folder, 'rows.jsonl'), rows.join(''))
})
afterAll(async () => {
  server.closeAllConnections()
  server.close()
  await rm(folder, { recursive: true, force: true })
})

function generate(...words: string[]) {
  return runHere(
    'generate',
    '--captions',
    join(folder, 'rows.jsonl'),
    '--teacher',
    'openai:m',
    '--base-url',
    baseURL,
    '--types',
    'conversation=1',
    '--out',
    join(folder, 'out'),
    '--poll',
    '0.01',
    ...words,
  )
}

test('submits, waits, collects; a batch whose id was lost is found again, and only what failed is asked anew', async () => {
  const first = await generate('--batch')
  expect(first).toMatchObject({
    code: 0,
    stderr: 'Submitted 8 requests as batch batch-1\nBatch batch-1: 7 answers, 1 failed\n',
  })
  expect(first.stdout).toContain('conversation               7 rows of 8, 0 rejected, 1 unanswered')

  const path = join(folder, 'out', 'batches', 'batches.json')
  const state = JSON.parse(await readFile(path, 'utf8'))
  const { id: _, ...lost } = state[0]
  await writeFile(path, JSON.stringify([{ ...lost, collected: false }])) // as if killed right after submitting
  const again = await generate('--batch')
  expect(again.stderr).toContain('Batch batch-1: 0 answers, 1 failed')
  expect(batches.length).toBe(1)

  const rest = await generate('--batch')
  expect(rest.stderr).toContain('Submitted 1 requests as batch batch-2')
  expect(files.get('file-2')?.trim().split('\n').length).toBe(1)
})

test('asks for no more at once than the budget allows, goes on with what is left, and stops before it is exceeded', async () => {
  const bodies = (from: number) => [...files.values()].slice(from).map((text) => text.trim().split('\n').length)
  const budget = ['--batch', '--out', join(folder, 'budget'), '--price', '100,100', '--max-tokens', '2000']
  const [filesBefore, batchesBefore] = [files.size, batches.length]
  const little = await generate(...budget, '--max-usd', '0.1')
  expect(little).toMatchObject({ code: 1, stdout: '' })
  expect(little.stderr).toMatch(
    /^llava: Cannot ask further: the budget is reached, \$0.0000 are spent and the next request may cost \$0\.\d+\n$/,
  )
  expect(batches.length).toBe(batchesBefore)

  // A request may cost about 33 cents and costs 0.15: three fit at first, and later three more.
  const enough = await generate(...budget, '--max-usd', '1.2')
  expect(enough.code).toBe(0)
  expect(bodies(filesBefore)).toEqual([3, 3, 2])
  expect(enough.stderr).toMatch(
    /^Submitted 3 requests as batch batch-\d+, for \$0\.98\d+ at most\nBatch batch-\d+: 3 answers, 0 failed, \$0\.0045\nSubmitted 3 /,
  )
  const manifest = JSON.parse(await readFile(join(folder, 'budget', 'data', 'manifest.json'), 'utf8'))
  expect(manifest.teacher).toMatchObject({ usage: { input: 70, output: 35 }, usd: 0.0105 })
})

test('a smaller budget holds for batches that a killed run left to be submitted', async () => {
  const path = join(folder, 'budget', 'batches', 'batches.json')
  const [{ id: _, ...batch }] = JSON.parse(await readFile(path, 'utf8'))
  await writeFile(path, JSON.stringify([{ ...batch, mark: 'never submitted', collected: false }]))
  const before = batches.length
  const words = ['--batch', '--out', join(folder, 'budget'), '--price', '100,100', '--max-tokens', '2000']
  expect((await generate(...words, '--max-usd', '0.5')).stderr).toMatch(
    /^llava: Cannot submit 2 requests: they may cost \$0\.65\d+, and \$0\.48\d+ are left of --max-usd\n$/,
  )
  expect(batches.length).toBe(before)
})

test('a batch that ends without answers is said once, and asked for anew', async () => {
  status = 'failed'
  const words = ['--batch', '--out', join(folder, 'failing')]
  const failing = await generate(...words)
  expect(failing).toMatchObject({ code: 1, stdout: '' })
  expect(failing.stderr).toMatch(
    /llava: Cannot collect batch batch-\d+: it ended as failed without answers; what is missing is asked for anew by the next run\n$/,
  )
  status = 'completed'
  expect((await generate(...words)).stderr).toMatch(
    /^Submitted 8 requests as batch .*\nBatch .*: 7 answers, 1 failed\n$/,
  )
})

test('does not go with rules', async () => {
  expect((await generate('--batch', '--teacher', 'rules')).stderr).toBe(
    'llava: Cannot use --batch with --teacher rules\n',
  )
})
