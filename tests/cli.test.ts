/** The program as people meet it: what it prints, how it ends, what it leaves behind. Bad input goes through the same door in this process. */

import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { crc32, deflateSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { closeSafetensors, openSafetensors } from '../src/checkpoint/safetensors.ts'
import { writeOneFile } from './one-file.ts'
import { runHere } from './run-here.ts'
import { writeTinyModel } from './tiny-model.ts'

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

describe('bad input is one sentence and code 1', { timeout: slow }, () => {
  const file = (name: string, content: string | Buffer) => {
    writeFileSync(join(folder, name), content)
    return join(folder, name)
  }
  const askAbout = (image: string) => ['ask', image, question, '--model', model]
  const askOf = (name: string, damage: (copy: string) => void) => {
    const copy = join(folder, name)
    cpSync(model, copy, { recursive: true })
    damage(copy)
    return ['ask', question, '--model', copy]
  }
  const options = (...words: string[]) => ['ask', question, '--model', model, ...words]
  const changeHeader = (copy: string, change: (text: string) => string) => {
    const path = join(copy, 'model.safetensors')
    writeFileSync(path, change(readFileSync(path, 'latin1')), 'latin1')
  }
  const changeTemplate = (copy: string, source: string) => {
    writeFileSync(join(copy, 'chat_template.jinja'), source)
    const path = join(copy, 'tokenizer_config.json')
    const { llava_template: _, ...rest } = JSON.parse(readFileSync(path, 'utf8'))
    writeFileSync(path, JSON.stringify(rest))
  }
  type Config = Record<string, unknown> & { text_config: Record<string, unknown> }
  const changeConfig = (copy: string, change: (config: Config) => void) => {
    const config = JSON.parse(readFileSync(join(copy, 'config.json'), 'utf8'))
    change(config)
    writeFileSync(join(copy, 'config.json'), JSON.stringify(config))
  }

  test.each<[string, () => string[], RegExp]>([
    ['a missing picture', () => askAbout(join(folder, 'none.png')), /Cannot read .*none\.png: no such file/],
    ['a folder as picture', () => askAbout(folder), /found a directory, expected a picture file/],
    ['text as picture', () => askAbout(file('text.png', 'hello')), /found text, expected one of jpeg/],
    ['an empty file', () => askAbout(file('empty.png', '')), /found 0 bytes, expected a picture/],
    ['a truncated PNG', () => askAbout(file('cut.png', png(64, 64).subarray(0, -60))), /truncated or damaged/],
    ['a PNG of 30 000 × 30 000', () => askAbout(file('huge.png', png(30_000, 30_000))), /found 30000x30000 pixels/],
    ['an SVG', () => askAbout(file('bomb.svg', '<svg xmlns="http://www.w3.org/2000/svg"/>')), /found an SVG drawing/],
    ['an address', () => askAbout('https://example.org/cat.png'), /found a URL, expected a file or bytes/],
    ['no question', () => ['ask'], /the question is empty/],
    ['an empty question', () => ['ask', picture, '  '], /the question is empty/],
    ['a picture in the place of the question', () => ['ask', question, picture], /in the place of the question/],
    [
      'an unknown model',
      () => ['ask', question, '--model', 'no-such'],
      /no-such: there is no such folder.*picturebook/,
    ],
    ['an unknown option', () => options('--modle', 'x'), /unknown option '--modle'/],
    ['an unknown command', () => ['aks'], /unknown command 'aks' \(Did you mean ask\?\)/],
    ['--max-tokens 0', () => options('--max-tokens', '0'), /--max-tokens 0: expected a whole number from 1 up/],
    ['--max-tokens abc', () => options('--max-tokens', 'abc'), /--max-tokens abc: expected a whole number/],
    ['--temperature -1', () => options('--temperature', '-1'), /--temperature -1: expected a number from 0 up/],
    ['--top-p 0', () => options('--top-p', '0'), /--top-p 0: expected a number above 0/],
    ['--threads 0', () => options('--threads', '0'), /--threads 0: expected a whole number from 1 up/],
    [
      'a prompt beyond the context',
      () => ['ask', 'why '.repeat(600), '--model', model],
      /the prompt has \d+ tokens.*1024/,
    ],
    ['no config', () => askOf('no-config', (copy) => rmSync(join(copy, 'config.json'))), /config\.json/],
    ['no weights', () => askOf('no-weights', (copy) => rmSync(join(copy, 'model.safetensors'))), /model\.safetensors/],
    ['no tokenizer', () => askOf('no-words', (copy) => rmSync(join(copy, 'tokenizer.json'))), /tokenizer\.json/],
    [
      'broken JSON',
      () => askOf('bad-json', (copy) => writeFileSync(join(copy, 'config.json'), '{"a": ')),
      /config\.json/,
    ],
    [
      'cut weights',
      () => askOf('cut', (copy) => truncateSync(join(copy, 'model.safetensors'), 5000)),
      /model\.safetensors/,
    ],
    [
      'an unknown model_type',
      () => askOf('gpt', (copy) => changeConfig(copy, (config) => (config.text_config.model_type = 'gpt9'))),
      /gpt9/,
    ],
    [
      'a model of another family',
      () => askOf('qwen', (copy) => changeConfig(copy, (config) => (config.model_type = 'qwen2_vl'))),
      /model_type is "qwen2_vl", expected "llava" or "llava_next" or "llava_onevision"/,
    ],
    [
      'a config that contradicts the tensors',
      () => askOf('deeper', (copy) => changeConfig(copy, (config) => (config.text_config.num_hidden_layers = 4))),
      /its weights: .*the tensors do not fit the config: 9 missing \(languageModel\.blocks\.3/,
    ],
    [
      'tensors of another shape',
      () => askOf('wider', (copy) => changeConfig(copy, (config) => (config.text_config.intermediate_size = 64))),
      /misshaped \(languageModel\.blocks\.0\.mlp\.gate\.weight \[48, 32\] instead of \[64, 32\]/,
    ],
    [
      'an unknown number format',
      () => askOf('fp4', (copy) => changeHeader(copy, (text) => text.replace('"F32"', '"F4" '))),
      /tensor ".*" in the header of .*dtype: .*F32/,
    ],
    [
      'weights that are whole numbers',
      () => askOf('int', (copy) => changeHeader(copy, (text) => text.replace('"F32"', '"I32"'))),
      /tensor ".*" is I32, expected F64, F32, F16 or BF16/,
    ],
    [
      'a missing shard',
      () =>
        askOf('shards', (copy) => {
          rmSync(join(copy, 'model.safetensors'))
          const weight_map = { 'language_model.model.norm.weight': 'model-00001-of-00002.safetensors' }
          writeFileSync(join(copy, 'model.safetensors.index.json'), JSON.stringify({ weight_map }))
        }),
      /names model-00001-of-00002\.safetensors, which is missing; the download may be incomplete/,
    ],
    [
      'pickled weights',
      () => askOf('pickle', (copy) => renameSync(join(copy, 'model.safetensors'), join(copy, 'pytorch_model.bin'))),
      /found only pytorch_model\.bin, a pickle .*convert it in this folder with python -c ".*save_file/,
    ],
    [
      'GGUF in the place of safetensors',
      () => askOf('gguf', (copy) => writeFileSync(join(copy, 'model.safetensors'), 'GGUF\x03\0\0\0 and more')),
      /found a GGUF file of llama\.cpp's, expected safetensors/,
    ],
    [
      'a folder with a GGUF file',
      () => askOf('ggufs', (copy) => renameSync(join(copy, 'model.safetensors'), join(copy, 'model-q4_0.gguf'))),
      /found only model-q4_0\.gguf, a GGUF file of llama\.cpp's, expected model\.safetensors/,
    ],
    [
      'a GGUF file as model',
      () => ['ask', question, '--model', file('model.gguf', 'GGUF')],
      /model\.gguf: it is a file for llama\.cpp, expected a folder with config\.json and safetensors/,
    ],
    [
      'a tokenizer without the image token',
      () => askOf('no-image', (copy) => changeConfig(copy, (config) => (config.image_token_index = 299))),
      /tokenizer\.json has no added token 299, expected the image token that config\.json names/,
    ],
    [
      'tiles that only the config knows of',
      () =>
        askOf('tiles', (copy) =>
          changeConfig(copy, (config) =>
            Object.assign(config, { model_type: 'llava_next', image_grid_pinpoints: [[8, 16]] }),
          ),
        ),
      /preprocessor_config\.json cuts tiles for the resolutions none, expected 16x8 as in config\.json/,
    ],
    [
      'a chat template that loops',
      () =>
        askOf('loop', (copy) =>
          changeTemplate(copy, '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}'),
        ),
      /Cannot render the chat template: it has not ended after 2 seconds/,
    ],
    [
      'a chat template that reaches for the prototype',
      () =>
        askOf('reach', (copy) =>
          changeTemplate(copy, '{{ messages.constructor.constructor("return process")().exit(3) }}'),
        ),
      /Cannot render the chat template: /,
    ],
    [
      'a chat template that does not parse',
      () => askOf('syntax', (copy) => changeTemplate(copy, '{% for %}')),
      /chat_template\.jinja: cannot parse the chat template/,
    ],
    ['a trace without a place', () => ['trace', picture, question, '--model', model], /required option '--out <file>'/],
    [
      'a trace into no folder',
      () => ['trace', picture, question, '--model', model, '--out', join(folder, 'no', 'x')],
      /Cannot use --out .*: there is no folder/,
    ],
    ['no recipe', () => ['train', join(folder, 'none.yaml')], /Cannot read recipe .*none\.yaml: no such file/],
    ['a recipe of nonsense', () => ['train', file('bad.yaml', 'name: x')], /Cannot use recipe .*bad\.yaml: stage/],
    [
      'a run below a file',
      () => ['train', recipe({ steps: 1 }), '--out', join(picture, 'x')],
      /Cannot use --out .*is a file/,
    ],
    [
      'an export over other things',
      () => ['train', recipe({ steps: 1 }), '--out', join(folder, 'no-run'), '--export', folder],
      /Cannot use --export .*: found .* in it, expected a new folder/,
    ],
    ['a chat about no picture', () => ['chat', join(folder, 'none.png')], /no such file/],
  ])('%s', async (_, words, sentence) => {
    const given = words()
    const before = readdirSync(folder).sort()
    const { code, stdout, stderr } = await runHere(...given)
    expect(stderr).toMatch(/^llava: [^\n]+[^\n.]\n$/)
    expect(stderr).toMatch(sentence)
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(readdirSync(folder).sort()).toEqual(before)
  })

  test('in a process of its own; the stack is for --debug', async () => {
    const quiet = await start(['ask', 'none.png', question]).ended
    expect(quiet).toEqual({ code: 1, stdout: '', stderr: 'llava: Cannot read none.png: no such file\n' })
    expect((await runHere('ask', 'none.png', question, '--debug')).stderr).toMatch(/\n {4}at /)
  })
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
    const words = ['train', recipe({ steps }), '--out', join(folder, 'long-run'), '--threads', '1']
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
    const words = ['train', recipe({ steps: 3 }), '--out', out]
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

/** A recipe for the tiny model on rows about one picture. */
function recipe({ steps }: { steps: number }): string {
  const rows = Array.from({ length: 8 }, (_, id) => ({
    id,
    image: 'plain.jpg',
    conversations: [
      { from: 'human', value: `<image>\n${question}` },
      { from: 'gpt', value: `A house ${id}.` },
    ],
  }))
  writeFileSync(join(folder, 'rows.json'), JSON.stringify(rows))
  const path = join(folder, `tiny-${steps}.yaml`)
  const data = { llava: { file: join(folder, 'rows.json'), images: dirname(picture) } }
  const given = { name: 'tiny', stage: 'feature-alignment', model, rates: { projector: 1e-3 }, data, length: 192 }
  writeFileSync(path, JSON.stringify({ ...given, batch: 1, steps, logEvery: 1, checkpointEvery: 100 })) // JSON is YAML
  return path
}

/** A grey PNG whose header says what it likes; only small ones have all their rows. */
function png(width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data])
    const frame = Buffer.alloc(8)
    frame.writeUInt32BE(data.length, 0)
    frame.writeUInt32BE(crc32(body), 4)
    return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)])
  }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header.set([8, 0, 0, 0, 0], 8)
  const rows = Uint8Array.from({ length: Math.min(height, 100) * (width + 1) }, (_, i) =>
    i % (width + 1) === 0 ? 0 : i % 251,
  )
  const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1')
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', deflateSync(rows)),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

describe('clip', { timeout: slow }, () => {
  const folderOf = (kind: string) => fileURLToPath(new URL(`../fixtures/parity/${kind}`, import.meta.url))

  test('shows the labels of each picture, the best first', async () => {
    const words = ['clip', picture, picture, 'cat', 'dog', '--model', folderOf('clip'), '--threads', '1']
    const { code, stdout, stderr } = await runHere(...words)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const lines = stdout.split('\n')
    expect(lines.filter((line) => line === picture)).toHaveLength(2)
    const shares = lines.flatMap((line) => /(\d+\.\d) %/.exec(line)?.[1] ?? []).map(Number)
    expect(shares).toHaveLength(4)
    expect(shares[0]).toBeGreaterThanOrEqual(shares[1]!)
    expect(shares[0]! + shares[1]!).toBeCloseTo(100, 0)
  })

  test.each(['clip', 'siglip'])('prints one object with --json: %s', async (kind) => {
    const { code, stdout } = await runHere('clip', picture, 'cat', 'dog', '--model', folderOf(kind), '--json')
    expect(code).toBe(0)
    const { pictures, model } = JSON.parse(stdout)
    expect(model).toBe(folderOf(kind))
    expect(pictures).toEqual([
      {
        image: picture,
        labels: ['cat', 'dog'].map((label) => ({
          label,
          text: `This is a photo of ${label}.`,
          probability: expect.any(Number),
          similarity: expect.any(Number),
        })),
      },
    ])
  })

  test.each([
    ['no label', [picture], 'found no label after the picture'],
    ['no picture of that name', ['missing.png', 'cat'], 'Cannot read missing.png: no such file'],
    ['an empty label', [picture, 'cat', ' '], 'a label is empty'],
    ['one label for CLIP', [picture, 'cat'], 'found one label, expected two or more'],
    ['a template without a place', [picture, 'cat', 'dog', '--template', 'photo'], 'found no {}'],
    ['a text that is too long', [picture, 'cat', 'dog '.repeat(40)], 'tokens, expected at most 24'],
  ])('refuses %s', async (_, words, reason) => {
    const { code, stdout, stderr } = await runHere('clip', ...words, '--model', folderOf('clip'))
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr).toMatch(/^llava: Cannot .*[^.]\n$/)
    expect(stderr).toContain(reason)
  })

  test('compares one text as it is with --similarity, and cuts long ones on request', async () => {
    const words = [
      'clip',
      picture,
      'dog '.repeat(40),
      '--similarity',
      '--truncate',
      '--json',
      '--model',
      folderOf('clip'),
    ]
    const { code, stdout } = await runHere(...words)
    expect(code).toBe(0)
    const [{ labels }] = JSON.parse(stdout).pictures
    expect(labels).toEqual([{ label: 'dog '.repeat(40), similarity: expect.any(Number) }])
  })
})
