import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { tinyConfig, writeTinyModel } from '../../tests/tiny-model.ts'
import { renderChatTemplate } from '../conversation/chat-template.ts'
import { segmentsToText } from '../conversation/render.ts'
import { userTurn } from '../conversation/turns.ts'
import { readModelFolder } from './model-folder.ts'

let root: string
let folder: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'model-folder-'))
  folder = join(root, 'model')
  await writeTinyModel(folder)
})
afterEach(() => rm(root, { recursive: true }))

const write = (file: string, content: unknown) =>
  writeFile(join(folder, file), typeof content === 'string' ? content : JSON.stringify(content))
const change = async (file: string, changes: Record<string, unknown>) =>
  write(file, { ...JSON.parse(await readFile(join(folder, file), 'utf8')), ...changes })

test('a whole folder is read', async () => {
  const model = await readModelFolder(folder)
  expect(model.config.visualTokens).toBe(4)
  expect(model.template).toMatchObject({ name: 'picturebook' })
  expect(model.imageProcessor.crop).toEqual({ width: 8, height: 8 })
  expect([model.stopTokens, model.stop]).toEqual([[2], []])
  expect(model.defaults.maxTokens).toBe(12)
  expect(model.weights.size).toBeGreaterThan(30)
})

test('without the optional files it falls back to vicuna_v1 and no defaults', async () => {
  for (const file of ['tokenizer_config.json', 'generation_config.json']) await rm(join(folder, file))
  const model = await readModelFolder(folder)
  expect(model.template).toMatchObject({ name: 'vicuna_v1' })
  expect(model.defaults).toEqual({})
})

test('a named template comes before chat_template.jinja, which comes before chat_template', async () => {
  const jinja = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
  await change('tokenizer_config.json', { chat_template: jinja })
  expect((await readModelFolder(folder)).template.style).toBe('two-separators')
  await change('tokenizer_config.json', { llava_template: undefined })
  expect((await readModelFolder(folder)).template.style).toBe('jinja')
  await change('tokenizer_config.json', { llava_template: 'llava_v0' })
  expect((await readModelFolder(folder)).stop).toEqual(['###'])
  await write('chat_template.jinja', jinja)
  expect((await readModelFolder(folder)).stop).toEqual(['###'])
  await change('tokenizer_config.json', { llava_template: undefined, chat_template: undefined })
  expect(await readModelFolder(folder)).toMatchObject({ template: { style: 'jinja' }, stop: [], stopTokens: [2] })
})

test('the template of the whole model comes before that of its tokenizer, which knows nothing of pictures', async () => {
  const tokenizers = "{% for message in messages %}words {{ message['content'] }}{% endfor %}"
  await change('tokenizer_config.json', { llava_template: undefined, chat_template: tokenizers })
  await write('chat_template.json', {
    chat_template: "{% for message in messages %}pictures {{ message['content'] }}{{ eos_token }}{% endfor %}",
  })
  const { template, tokenizer } = await readModelFolder(folder)
  if (template.style !== 'jinja') throw new Error('expected a template of the folder')
  expect(segmentsToText(renderChatTemplate(template, [userTurn('Q')], { tokenizer }))).toBe('pictures Q</s>')
})

test('without a template, one of the language model', async () => {
  const config = tinyConfig({ language: { kind: 'mistral' } })
  await rm(folder, { recursive: true })
  await writeTinyModel(folder, { config })
  await change('tokenizer_config.json', { llava_template: undefined })
  expect((await readModelFolder(folder)).template).toMatchObject({ name: 'mistral_instruct' })
})

test('defaults follow transformers: nothing is drawn unless do_sample says so', async () => {
  await write('generation_config.json', { temperature: 0.7, top_k: 0, top_p: 0.9, eos_token_id: [2, 7] })
  const greedy = await readModelFolder(folder)
  expect(greedy.defaults.temperature).toBeUndefined()
  expect(greedy.stopTokens).toEqual([2, 7])
  await change('generation_config.json', { do_sample: true })
  const { defaults } = await readModelFolder(folder)
  expect([defaults.temperature, defaults.topK, defaults.topP]).toEqual([0.7, undefined, 0.9])
})

describe('one sentence names what is wrong', () => {
  const failure = async () => {
    const error: Error = await readModelFolder(folder).then(
      () => expect.unreachable('the folder was read'),
      (reason) => reason,
    )
    expect(error.message).toContain(`Cannot load the model ${folder}: `)
    expect(error.message).not.toContain('\n')
    return error
  }

  test.each(['config.json', 'tokenizer.json', 'preprocessor_config.json'])('%s is missing', async (file) => {
    await rm(join(folder, file))
    expect((await failure()).message).toBe(`Cannot load the model ${folder}: ${file} is missing`)
  })

  test.each([
    'config.json',
    'tokenizer.json',
    'preprocessor_config.json',
    'tokenizer_config.json',
    'generation_config.json',
  ])('%s is no JSON', async (file) => {
    await write(file, '{"half": ')
    const error = await failure()
    expect(error).toBeInstanceOf(SyntaxError)
    expect(error.message).toContain(`${file} is not valid JSON`)
  })

  test('weights are missing or cut short', async () => {
    const file = join(folder, 'model.safetensors')
    const bytes = await readFile(file)
    await writeFile(file, bytes.subarray(0, bytes.length - 100))
    expect((await failure()).message).toContain('model.safetensors')
    await rm(file)
    expect((await failure()).message).toContain('model.safetensors')
  })

  test('the model is of another type', async () => {
    await change('config.json', { model_type: 'blip-2' })
    expect((await failure()).message).toContain('config.json: cannot read the model config: model_type is "blip-2"')
  })

  test('the tokenizer has more ids than the model', async () => {
    const { text_config } = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'))
    await change('config.json', { text_config: { ...text_config, vocab_size: 100 } })
    expect((await failure()).message).toMatch(/tokenizer.json has ids up to \d+, expected at most 99/)
  })

  test('the template is unknown or cannot be parsed', async () => {
    await change('tokenizer_config.json', { llava_template: 'alpaca' })
    expect((await failure()).message).toContain('tokenizer_config.json: cannot find the template alpaca')
    await change('tokenizer_config.json', { llava_template: 7 })
    expect((await failure()).message).toContain('tokenizer_config.json: llava_template is 7, expected a string')
    await change('tokenizer_config.json', { llava_template: undefined })
    await write('chat_template.jinja', '{% for %}')
    expect(await failure()).toBeInstanceOf(SyntaxError)
  })

  test('a generation default is out of range', async () => {
    await write('generation_config.json', { do_sample: true, top_p: 7 })
    const error = await failure()
    expect(error).toBeInstanceOf(RangeError)
    expect(error.message).toContain('generation_config.json: cannot generate: topP is 7')
    await write('generation_config.json', { max_new_tokens: 'many' })
    expect((await failure()).message).toContain('generation_config.json: max_new_tokens is "many", expected a number')
  })

  test('the folder is a file or not there', async () => {
    await expect(readModelFolder(join(folder, 'config.json'))).rejects.toThrow(/it is a file, expected a folder/)
    await expect(readModelFolder(join(root, 'other'))).rejects.toThrow(/there is no such folder/)
  })
})
