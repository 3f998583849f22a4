/** The program as people meet it: what it prints, how it ends, what it leaves behind. */

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { closeSafetensors, openSafetensors } from '../src/checkpoint/safetensors.ts'
import { writeOneFile } from './one-file.ts'
import { runHere } from './run-here.ts'
import { writeTinyModel } from './tiny-model.ts'
import { writeTinyRecipe } from './tiny-recipe.ts'

const folder = mkdtempSync(join(tmpdir(), 'llava-cli-'))
const model = join(folder, 'model')
const picture = fileURLToPath(new URL('../fixtures/image/plain.jpg', import.meta.url))
const question = 'What is it?'
const slow = 300_000

let program = ''
beforeAll(async () => {
  await writeTinyModel(model)
  program = await writeOneFile(fileURLToPath(new URL('../src/cli/main.ts', import.meta.url)), join(folder, 'program'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Starts the program as a process of its own. */
function start(words: readonly string[], { input }: { input?: string | Buffer } = {}) {
  const child = spawn(process.execPath, [program, ...words], {
    env: { ...process.env, NO_COLOR: '1' },
  })
  if (input !== undefined) child.stdin.end(input)
  const said = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text) => (said.stdout += text))
  child.stderr.setEncoding('utf8').on('data', (text) => (said.stderr += text))
  const ended = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => resolve({ code, ...said }))
  })
  return { child, ended }
}

/** Resolves when the program has printed something that matches. */
function printed(child: ChildProcessWithoutNullStreams, pattern: RegExp): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = ''
    child.stdout.on('data', (part) => {
      text += part
      if (pattern.test(text)) resolve()
    })
    child.on('close', (code) => reject(new Error(`It ended with code ${code} and without ${pattern}: ${text}`)))
  })
}

describe('ask', { timeout: slow }, () => {
  test('prints the answer and nothing else; the same with --json in one object', async () => {
    const words = ['ask', picture, question, '--model', model, '--max-tokens', '8']
    const streamed = await start(words).ended
    expect(streamed).toMatchObject({ code: 0, stderr: '' })
    const { code, stdout, stderr } = await runHere(...words, '--json')
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout.endsWith('}\n')).toBe(true)
    const result = JSON.parse(stdout)
    expect(Object.keys(result)).toEqual(['answer', 'usage', 'timings', 'finish_reason', 'model', 'precision', 'device'])
    expect(result.usage).toEqual({ prompt_tokens: expect.any(Number), image_tokens: 4, completion_tokens: 8 })
    expect(Object.keys(result.timings)).toEqual(['load_ms', 'image_ms', 'prompt_ms', 'decode_ms'])
    for (const time of Object.values(result.timings)) expect(time).toBeGreaterThan(0)
    expect(result).toMatchObject({ finish_reason: 'length', model, precision: 'f32', device: 'cpu' })
    expect(streamed.stdout).toBe(`${result.answer}\n`)
  })

  test('takes several pictures, one from standard input, or none', async () => {
    const words = ['ask', '-', picture, question, '--model', model, '--max-tokens', '1', '--json']
    const { code, stdout } = await start(words, { input: readFileSync(picture) }).ended
    expect(code).toBe(0)
    expect(JSON.parse(stdout).usage.image_tokens).toBe(8)
    const without = await runHere('ask', question, '--model', model, '--max-tokens', '1', '--json')
    expect(JSON.parse(without.stdout).usage.image_tokens).toBe(0)
  })

  test('draws as it is told', async () => {
    const draw = async (...options: string[]) => {
      const words = ['ask', picture, question, '--model', model, '--max-tokens', '8', '--temperature', '2', ...options]
      return (await runHere(...words)).stdout
    }
    const first = await draw('--seed', '1')
    expect(await draw('--seed', '1')).toBe(first)
    expect(await draw('--seed', '2')).not.toBe(first)
    expect(await draw('--seed', '1', '--top-k', '1')).toBe(await draw('--seed', '2', '--top-p', '1e-9'))
  })

  test('ends quietly when nobody reads the answer', async () => {
    const { child, ended } = start(['ask', picture, question, '--model', model])
    child.stdout.destroy()
    expect(await ended).toMatchObject({ code: 0, stderr: '' })
  })
})

test('bad input in a process of its own is one sentence too; the stack is for --debug', { timeout: slow }, async () => {
  const quiet = await start(['ask', 'none.png', question]).ended
  expect(quiet).toEqual({ code: 1, stdout: '', stderr: 'llava: Cannot read none.png: no such file\n' })
  expect((await runHere('ask', 'none.png', question, '--debug')).stderr).toMatch(/\n {4}at /)
})

describe('chat', { timeout: slow }, () => {
  test('answers the lines of a pipe in turn and says with its code that one failed', async () => {
    const input = `${question}\n\n/image ${picture}\n${question}\n/image none.png\n/clear\n${question}\n/quit\nnever read\n`
    const { code, stdout, stderr } = await start(['chat', picture, '--model', model, '--max-tokens', '4'], { input })
      .ended
    expect(stderr).toBe('llava: Cannot read none.png: no such file\n')
    expect(stdout.split('\n').filter((line) => line !== '').length).toBeGreaterThanOrEqual(3)
    expect(stdout).not.toContain('> ')
    expect(code).toBe(1)
  })

  test('ends at the end of its input, and with code 130 at Ctrl-C', async () => {
    expect(await start(['chat', '--model', model], { input: '/help' }).ended).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('/image PATH'),
      stderr: '',
    })
    const { child, ended } = start(['chat', '--model', model])
    child.stdin.write('/help\n')
    await printed(child, /quit/)
    child.kill('SIGINT')
    expect((await ended).code).toBe(130)
  })
})

describe('train', { timeout: slow }, () => {
  test('stops at Ctrl-C with a checkpoint and goes on from there', async () => {
    const steps = 1_000_000
    const words = [
      'train',
      writeTinyRecipe(folder, { model, steps }),
      '--out',
      join(folder, 'long-run'),
      '--threads',
      '1',
    ]
    const { child, ended } = start(words)
    await printed(child, /step 2\/1000000/)
    child.kill('SIGINT')
    const stopped = await ended
    expect(stopped.code).toBe(130)
    expect(stopped.stdout).toMatch(/^Training tiny \(stage feature-alignment\), 1000000 steps/)
    expect(stopped.stdout).toMatch(/\nstep 1\/1000000 · loss [\d.]+ · [\d.]+ pictures\/s · .+ left\n/)
    expect(stopped.stderr).toMatch(/^Stopped after step \d+ of 1000000\. Go on with: llava train .* --resume\n$/)
    const step = Number(/step (\d+)/.exec(stopped.stderr)?.[1])
    const left = readdirSync(join(folder, 'long-run'))
    expect(left).toContain(`checkpoint-${String(step).padStart(8, '0')}`)
    expect(left).not.toContain('model')

    const again = await runHere(...words)
    expect(again).toMatchObject({ code: 1, stderr: expect.stringContaining('expected --resume to go on') })

    const resumed = start([...words, '--resume', '--json'])
    await printed(resumed.child, /"type":"step"/)
    resumed.child.kill('SIGTERM')
    const { code, stdout } = await resumed.ended
    expect(code).toBe(143)
    const events = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(events[0]).toMatchObject({ type: 'start', step, steps })
    expect(events[1]).toMatchObject({ type: 'step', step: step + 1 })
    expect(events.slice(-2).map(({ type }) => type)).toEqual(['checkpoint', 'end'])
  })

  test('exports a model that answers, again when resumed at its end', async () => {
    const out = join(folder, 'run')
    const words = ['train', writeTinyRecipe(folder, { model, steps: 3 }), '--out', out]
    const first = await runHere(...words)
    expect(first).toMatchObject({ code: 0, stderr: '' })
    expect(first.stdout).toContain('\nstep 3/3 · loss')
    const exported = join(out, 'model')
    expect(first.stdout).toContain(`The model is in ${exported}.`)
    const answer = await runHere('ask', picture, question, '--model', exported, '--json')
    expect(answer).toMatchObject({ code: 0, stderr: '' })
    const resumed = await runHere(...words, '--resume', '--quiet', '--dtype', 'BF16')
    expect(resumed).toEqual({ code: 0, stdout: '', stderr: '' })
    expect(JSON.parse(readFileSync(join(exported, 'config.json'), 'utf8')).torch_dtype).toBe('bfloat16')
  })
})

test('a model is converted once, listed and cleared', { timeout: slow }, async () => {
  vi.stubEnv('LLAVA_CACHE', join(folder, 'cache'))
  try {
    const words = ['ask', picture, question, '--model', model, '--max-tokens', '3', '--precision', 'int4']
    const first = await runHere(...words)
    expect(first).toMatchObject({ code: 0, stderr: 'precision int4: as asked, 1 MB of weights\n' })
    expect(await runHere(...words)).toEqual(first)
    expect(JSON.parse((await runHere(...words, '--json')).stdout).precision).toBe('int4')
    const listed = await runHere('cache')
    expect(listed.stdout).toMatch(
      /^precision +size +last used +model\nint4 +1 MB +\S+ \S+ +.*model\n1 converted model, 1 MB, in /,
    )
    expect(JSON.parse((await runHere('cache', 'list', '--json')).stdout).models).toMatchObject([
      { precision: 'int4', model },
    ])
    const pictures = join(folder, 'cache/pictures', 'a'.repeat(32))
    mkdirSync(pictures, { recursive: true })
    writeFileSync(join(pictures, `${'b'.repeat(64)}.safetensors`), Buffer.alloc(2_000_000))
    expect((await runHere('cache')).stdout).toMatch(/\nvisual tokens of 1 picture, 2 MB, in .*pictures\n$/)
    expect(JSON.parse((await runHere('cache', '--json')).stdout).pictures).toMatchObject({ count: 1, bytes: 2e6 })
    expect((await runHere('cache', 'clear')).stdout).toMatch(
      /^Deleted 1 converted model, 1 MB, from .*\nDeleted visual tokens of 1 picture, 2 MB, from .*\n$/,
    )
    expect((await runHere('cache')).stdout).toMatch(/^No converted models in /)
    expect((await runHere(...words.slice(0, -1), 'int5')).stderr).toMatch(
      /Cannot use --precision int5: expected f32, f16, int8/,
    )
    expect((await runHere('cache', 'empty')).code).toBe(1)
  } finally {
    vi.unstubAllEnvs()
  }
})

test.runIf(process.platform === 'linux')('a machine without a GPU is told so', { timeout: slow }, async () => {
  vi.stubEnv('VK_ICD_FILENAMES', join(folder, 'none.json')) // no driver, wherever this runs
  vi.stubEnv('VK_DRIVER_FILES', join(folder, 'none.json'))
  for (const words of [
    ['ask', question, '--model', model],
    ['clip', picture, 'cat', 'dog', '--model', fileURLToPath(new URL('../fixtures/parity/clip', import.meta.url))],
  ]) {
    const { code, stdout, stderr } = await runHere(...words, '--device', 'webgpu')
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(/^llava: Cannot create session on device webgpu: found no GPU, expected one [^\n]*\n$/)
  }
  vi.unstubAllEnvs()
  const coded = await runHere('ask', question, '--model', model, '--device', 'webgpu', '--kv-cache', 'int8')
  expect(coded.stderr).toBe(
    'llava: Cannot keep the KV cache in int8 on device webgpu: it is float32 there, expected --kv-cache float32\n',
  )
  const other = await runHere('ask', question, '--model', model, '--device', 'cuda')
  expect(other.stderr).toBe('llava: Cannot use --device cuda: expected cpu, webgpu\n')
})

test('trace writes what it lists', { timeout: slow }, async () => {
  const out = join(folder, 'trace.safetensors')
  const { code, stdout, stderr } = await runHere('trace', picture, question, '--model', model, '--out', out)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const file = await openSafetensors(out)
  const listed = stdout
    .split('\n')
    .slice(1, -2)
    .map((line) => line.split(/\s{2,}/, 2))
  expect(new Map(listed.map(([name, shape]) => [name, shape]))).toEqual(
    new Map([...file.tensors].map(([name, { shape }]) => [name, `[${shape.join(', ')}]`])),
  )
  expect(listed.map(([name]) => name)).toEqual(expect.arrayContaining(['pixels', 'visualTokens', 'logits']))
  await closeSafetensors(file)
})

test('--version and --help print and succeed', { timeout: slow }, async () => {
  expect(await runHere('--version')).toMatchObject({
    code: 0,
    stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/),
    stderr: '',
  })
  for (const command of [[], ['ask'], ['chat'], ['train'], ['trace'], ['start']]) {
    const help = await runHere(...command, '--help')
    expect(help).toMatchObject({ code: 0, stdout: expect.stringMatching(/^Usage: llava/), stderr: '' })
  }
})
