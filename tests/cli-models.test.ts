/** Models that come and go through the program: `llava pull`, `llava info`, `llava export`, and --model ORG/NAME. */

import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { answerStatus, commit, type HubServer, startHub } from '../src/checkpoint/hub-server.fixture.ts'
import { loadConfig, loadWeights } from '../src/checkpoint/load.ts'
import { runHere } from './run-here.ts'
import { writeTinyModel } from './tiny-model.ts'

const root = mkdtempSync(join(tmpdir(), 'llava-models-'))
const model = join(root, 'model')
const picture = fileURLToPath(new URL('../fixtures/image/plain.jpg', import.meta.url))
const at = (name: string) => join(root, name)

beforeAll(() => writeTinyModel(model))
afterAll(() => rmSync(root, { recursive: true }))

describe('pull', () => {
  let hub: HubServer
  beforeAll(async () => {
    hub = await startHub('tiny/llava')
    for (const file of readdirSync(model)) hub.files.set(file, readFileSync(join(model, file)))
  })
  afterAll(() => hub.close())
  afterEach(() => vi.unstubAllEnvs())
  const useHub = () => {
    for (const [key, value] of Object.entries({
      HF_ENDPOINT: hub.endpoint,
      HF_HUB_CACHE: at('cache'),
      HF_HOME: root,
    })) {
      vi.stubEnv(key, value)
    }
  }

  test('fetches a model, which then answers by its name, and is described and exported by it', async () => {
    useHub()
    const before = await runHere('ask', picture, 'What is it?', '--model', 'tiny/llava')
    expect(before).toMatchObject({ code: 1, stdout: '' })
    expect(before.stderr).toMatch(
      /no such model in the cache, expected one, or fetch it with llava pull tiny\/llava\n$/,
    )

    const pulled = await runHere('pull', 'tiny/llava')
    expect(pulled.code).toBe(0)
    expect(pulled.stdout).toMatch(/^Fetched .*B; the model is in .*snapshots\/0123456789abcdef/)
    expect(pulled.stderr).toContain('fetching model.safetensors\n')
    expect((await runHere('pull', 'tiny/llava')).stdout).toMatch(/^Nothing new; the model is in /)
    const { stdout } = await runHere('pull', 'tiny/llava', '--json')
    expect(JSON.parse(stdout)).toMatchObject({ model: 'tiny/llava', commit, fetched: 0 })

    const ask = (name: string) => runHere('ask', picture, 'What is it?', '--model', name, '--max-tokens', '4')
    expect((await ask('tiny/llava')).stdout).toBe((await ask(model)).stdout)
    expect((await runHere('info', 'tiny/llava')).stdout).toContain('snapshots')
    expect((await runHere('info', 'tiny/llava@v1')).stderr).toMatch(/llava pull tiny\/llava --revision v1\n$/)
    expect((await runHere('pull', 'tiny/llava', '--revision', 'v1')).stdout).toMatch(/--model tiny\/llava@v1\n$/)
    expect((await runHere('info', 'tiny/llava@v1')).code).toBe(0)
    const exported = await runHere('export', 'tiny/llava', '--to', 'hf', '--out', at('from-cache'), '--quiet')
    expect(exported).toEqual({ code: 0, stdout: '', stderr: '' })
  })

  test('fails in one sentence', async () => {
    useHub()
    hub.next.set('config.json', [answerStatus(403)])
    rmSync(at('cache'), { recursive: true, force: true })
    const { code, stdout, stderr } = await runHere('pull', 'tiny/llava')
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
    expect(stderr.split('\n').at(-2)).toMatch(
      /^llava: Cannot download config.json of tiny\/llava: the server answered that this/,
    )
    expect((await runHere('pull', 'nonsense')).stderr).toMatch(/^llava: Cannot pull "nonsense": expected ORG\/NAME/)
    vi.stubEnv('HF_HUB_OFFLINE', '1')
    expect((await runHere('pull', 'tiny/llava')).stderr).toMatch(/offline mode is on/)
  })
})

describe('info', () => {
  test('says what there is, for people and for programs, by the numbers of the model', async () => {
    const { stdout } = await runHere('info', model, '--context', '100', '--tensors')
    expect(stdout).toContain('CLIP, 8 px in 2 × 2 patches of 4, 3 blocks (the first 2 are used), width 16, 2 heads')
    expect(stdout).toContain('2 layers with GELU, 16 → 32 → 32')
    expect(stdout).toMatch(/cache of 100 tokens +153\.6 kB +153\.6 kB/) // 2 · 3 blocks · 4 heads · 16 · 100 · 4 bytes
    expect(stdout).toContain('\nlanguageModel.head.weight  [320, 32]\n')

    const json = JSON.parse((await runHere('info', model, '--json')).stdout)
    const weights = await loadWeights(model, await loadConfig(model))
    const total = [...weights.values()].reduce((sum, { data }) => sum + data.length, 0)
    const parts = Object.values<{ parameters: number }>(json.parts)
    expect(parts.reduce((sum, { parameters }) => sum + parameters, 0)).toBe(total)
    expect(json.memory.weightBytes.f32).toBe(4 * total)
    expect(json).toMatchObject({
      layout: 'hugging-face',
      template: 'picturebook',
      stored: { F32: { tensors: weights.size } },
    })
    expect(json.memory.context).toBe(1024)
  })

  test('tells where the template comes from', async () => {
    const copy = at('copy')
    cpSync(model, copy, { recursive: true })
    const line = async () => /^template +(.+)$/m.exec((await runHere('info', copy)).stdout)?.[1]
    const config = JSON.parse(readFileSync(join(copy, 'tokenizer_config.json'), 'utf8'))
    expect(await line()).toBe('picturebook, named in tokenizer_config.json')
    writeFileSync(join(copy, 'tokenizer_config.json'), JSON.stringify({ ...config, llava_template: undefined }))
    expect(await line()).toBe('vicuna_v1, because the folder names none')
    writeFileSync(join(copy, 'chat_template.json'), '{"chat_template":"{{ messages }}"}')
    expect(await line()).toBe('Jinja in chat_template.json')
    writeFileSync(join(copy, 'chat_template.jinja'), '{{ messages }}')
    expect(await line()).toBe('Jinja in chat_template.jinja')
  })

  test('refuses what it cannot describe', async () => {
    expect((await runHere('info', at('none'))).stderr).toMatch(
      /^llava: Cannot describe the model .*there is no such folder/,
    )
    writeFileSync(at('x.gguf'), 'GGUF')
    expect((await runHere('info', at('x.gguf'))).stderr).toMatch(
      /it is a file for llama.cpp, expected a folder with config.json/,
    )
    expect((await runHere('info', model, '--context', '9999')).stderr).toMatch(
      /expected at most 1024 as in config.json\n$/,
    )
  })
})

describe('export', () => {
  test('to hf: the same model in another format and under other names', async () => {
    const out = at('bf16')
    const { code, stdout } = await runHere(
      'export',
      model,
      '--to',
      'hf',
      '--out',
      out,
      '--dtype',
      'bf16',
      '--names',
      'new',
    )
    expect(code).toBe(0)
    expect(stdout).toBe(`The model is in ${out}. Ask it: llava ask PICTURE QUESTION --model ${out}\n`)
    const json = JSON.parse((await runHere('info', out, '--json')).stdout)
    expect(json.layout).toBe('hugging-face-2025')
    expect(Object.keys(json.stored)).toEqual(['BF16'])
    expect((await runHere('ask', 'Is it?', '--model', out, '--max-tokens', '2')).code).toBe(0)
  })

  test('to gguf, onnx and transformers.js: the files that it names are there', async () => {
    const words = ['--to', 'gguf', '--out', at('gguf'), '--dtype', 'q8_0', '--encoder-dtype', 'F16', '--json']
    const { files } = JSON.parse((await runHere('export', model, ...words)).stdout)
    expect(files).toEqual([join(at('gguf'), 'model-q8_0.gguf'), join(at('gguf'), 'mmproj-model-f16.gguf')])
    expect(readdirSync(at('gguf'))).toHaveLength(2)
    expect((await runHere('export', model, '--to', 'onnx', '--out', at('onnx'))).stdout).toMatch(/^The graphs are in /)
    expect(readdirSync(at('onnx'))).toContain('llava.json')
    const { stdout } = await runHere('export', model, '--to', 'transformers.js', '--out', at('for-js'))
    expect(stdout).toMatch(/from_pretrained\("for-js"\)/)
    expect(readdirSync(at('for-js'))).toContain('onnx')
  })

  test.each<[string, string[], RegExp]>([
    [
      'a dtype of another format',
      ['--to', 'hf', '--dtype', 'Q4_0'],
      /Cannot use --dtype Q4_0: expected F32, F16, BF16/,
    ],
    ['half of ONNX', ['--to', 'onnx', '--dtype', 'F16'], /Cannot use --dtype F16: expected F32/],
    ['names for GGUF', ['--to', 'gguf', '--names', 'new'], /Cannot use --names with --to gguf: expected --to hf/],
    ['an encoder for hf', ['--to', 'hf', '--encoder-dtype', 'F16'], /Cannot use --encoder-dtype with --to hf/],
    ['another format', ['--to', 'pickle'], /Cannot use --to pickle: expected hf, gguf, onnx/],
  ])('refuses %s', async (_, words, message) => {
    const { code, stderr } = await runHere('export', model, ...words, '--out', at('refused'))
    expect(code).toBe(1)
    expect(stderr).toMatch(message)
    expect(readdirSync(root)).not.toContain('refused')
  })

  test('never replaces the model itself or a folder of other things', async () => {
    mkdirSync(at('things'))
    writeFileSync(join(at('things'), 'notes.txt'), 'mine')
    for (const to of ['hf', 'gguf', 'onnx', 'transformers.js']) {
      expect((await runHere('export', model, '--to', to, '--out', at('things'))).code).toBe(1)
      expect((await runHere('export', model, '--to', to, '--out', model)).stderr).toMatch(/it is the model itself/)
    }
    expect(readdirSync(at('things'))).toEqual(['notes.txt'])
  })
})
