/** Bad input goes through the door of the program, in this process: one sentence, code 1, and nothing left behind. */

import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { crc32, deflateSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { runHere } from './run-here.ts'
import { writeTinyModel } from './tiny-model.ts'
import { writeTinyRecipe } from './tiny-recipe.ts'

const folder = mkdtempSync(join(tmpdir(), 'llava-bad-input-'))
const model = join(folder, 'model')
const picture = fileURLToPath(new URL('../fixtures/image/plain.jpg', import.meta.url))
const question = 'What is it?'
const slow = 300_000

beforeAll(() => writeTinyModel(model))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

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
    ['a folder as picture', () => askAbout(folder), /it is a folder, expected a picture file/],
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
    [
      'an unknown option',
      () => options('--modle', 'x'),
      /Cannot use --modle: there is no such option, did you mean --model\?/,
    ],
    ['an unknown command', () => ['aks'], /Cannot run aks: there is no such command, did you mean ask\?/],
    ['--max-tokens 0', () => options('--max-tokens', '0'), /--max-tokens 0: expected a whole number from 1 up/],
    ['--max-tokens abc', () => options('--max-tokens', 'abc'), /--max-tokens abc: expected a whole number/],
    ['--temperature -1', () => options('--temperature', '-1'), /--temperature -1: expected a number from 0 up/],
    ['--top-p 0', () => options('--top-p', '0'), /--top-p 0: expected a number above 0/],
    ['--threads 0', () => options('--threads', '0'), /--threads 0: expected a whole number from 1 to 1024/],
    ['--threads 100000', () => options('--threads', '100000'), /expected a whole number from 1 to 1024/],
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
      /tensor ".*" in the header of .*dtype is "F4", expected .*"F32"/,
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
    [
      'a trace without a place',
      () => ['trace', picture, question, '--model', model],
      /the option --out <file> is missing/,
    ],
    [
      'a trace into no folder',
      () => ['trace', picture, question, '--model', model, '--out', join(folder, 'no', 'x')],
      /Cannot use --out .*: there is no folder/,
    ],
    ['no recipe', () => ['train', join(folder, 'none.yaml')], /Cannot read .*none\.yaml: no such file/],
    ['a recipe of nonsense', () => ['train', file('bad.yaml', 'name: x')], /Cannot use recipe .*bad\.yaml: stage/],
    [
      'a run below a file',
      () => ['train', writeTinyRecipe(folder, { model, steps: 1 }), '--out', join(picture, 'x')],
      /Cannot use --out .*is a file/,
    ],
    [
      'an export over other things',
      () => [
        'train',
        writeTinyRecipe(folder, { model, steps: 1 }),
        '--out',
        join(folder, 'no-run'),
        '--export',
        folder,
      ],
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
})

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

test('a command that only has commands shows them when none is named', async () => {
  const { code, stdout, stderr } = await runHere('data')
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^Usage: llava data /)
  expect(stderr).toMatch(/\n {2}check <file> /)
  expect(stderr).not.toContain('llava: ')
})
