/** An export for transformers.js, called in onnxruntime-web as transformers.js 4 calls it, gives the answer that we give. */

import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { env, InferenceSession, Tensor } from 'onnxruntime-web'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { exportForTransformersJs } from '../src/generation/export-transformers-js.ts'
import { greedy } from '../src/generation/sampling.ts'
import { askHere, picturebook } from './ask-here.ts'
import { tinyConfig, tinySiglipConfig, writeTinyModel } from './tiny-model.ts'

const root = mkdtempSync(join(tmpdir(), 'llava-transformers-js-'))
const folder = join(root, 'exported')

env.wasm.numThreads = 1 // its worker threads wait by spinning

beforeAll(() => exportForTransformersJs(folder, { from: picturebook }))
afterAll(() => rmSync(root, { recursive: true }))

const json = (name: string, of = folder) => JSON.parse(readFileSync(join(of, name), 'utf8'))

/** As its `session.js` does: the graph, and the files that config.json counts. */
function open(name: string): Promise<InferenceSession> {
  const count: number = json('config.json')['transformers.js_config'].use_external_data_format[`${name}.onnx`]
  const files = Array.from({ length: count }, (_, i) => `${name}.onnx_data${i === 0 ? '' : `_${i}`}`)
  const externalData = files.map((path) => ({ path, data: readFileSync(join(folder, 'onnx', path)) }))
  return InferenceSession.create(readFileSync(join(folder, 'onnx', `${name}.onnx`)), { externalData })
}

const int64 = (values: ArrayLike<number>, shape: number[]) =>
  new Tensor('int64', BigInt64Array.from(values, BigInt), shape)

test('a picture and a question through its three sessions answer as here', { timeout: 300_000 }, async () => {
  const { prompt, expected } = await askHere('How many ducks are there?')
  const [encoder, embedder, decoder] = [
    await open('vision_encoder'),
    await open('embed_tokens'),
    await open('decoder_model_merged'),
  ]
  const { image_size: S } = json('config.json').vision_config
  const pixels = new Tensor('float32', prompt.pictures[0]!.pixels, [1, 3, S, S])
  const { image_features } = await encoder.run({ pixel_values: pixels })
  const embed = async (ids: ArrayLike<number>) =>
    (await embedder.run({ input_ids: int64(ids, [1, ids.length]) })).inputs_embeds as Tensor

  const embeddings = await embed(prompt.ids)
  const width = embeddings.dims[2]!
  const merged = Float32Array.from(embeddings.data as Float32Array)
  const features = image_features!.data as Float32Array
  const places = [...prompt.ids.keys()].filter((i) => prompt.ids[i] === json('config.json').image_token_index)
  expect(places).toHaveLength(features.length / width)
  for (const [i, place] of places.entries()) merged.set(features.subarray(i * width, (i + 1) * width), place * width)

  const empty = decoder.inputNames.filter((name) => name.startsWith('past_key_values.'))
  const { num_key_value_heads: heads, head_dim: size } = json('config.json').text_config
  let cache: Record<string, Tensor> = Object.fromEntries(
    empty.map((name) => [name, new Tensor('float32', [], [1, heads, 0, size])]),
  )
  let inputs: Tensor = new Tensor('float32', merged, embeddings.dims)
  const tokens: number[] = []
  while (tokens.length < expected.length) {
    const total = prompt.ids.length + tokens.length
    const outputs = await decoder.run({
      inputs_embeds: inputs,
      attention_mask: int64(new Uint8Array(total).fill(1), [1, total]),
      num_logits_to_keep: new Tensor('int64', BigInt64Array.of(1n), []),
      ...cache,
    })
    expect(outputs.logits!.dims.slice(0, 2)).toEqual([1, 1])
    tokens.push(greedy(outputs.logits!.data as Float32Array))
    cache = Object.fromEntries(
      empty.map((name) => [name, outputs[name.replace('past_key_values', 'present')] as Tensor]),
    )
    inputs = await embed([tokens.at(-1)!])
  }
  expect(tokens).toEqual(expected)
})

test('its processor finds the template, and counts the visual tokens that there are', async () => {
  expect(json('tokenizer_config.json').chat_template).toContain('ASSISTANT')
  const { patch_size, num_additional_image_tokens, image_token, processor_class } = json('processor_config.json')
  const { image_size } = json('config.json').vision_config
  expect((image_size / patch_size) ** 2 + num_additional_image_tokens).toBe(json('config.json').image_seq_length)
  expect([image_token, processor_class]).toEqual(['<image>', 'LlavaProcessor'])
})

test('SigLIP with Qwen2 and a tied head: every graph has its own weights; an export is replaced, a model is not', async () => {
  const [model, out] = [join(root, 'siglip'), join(root, 'siglip-exported')]
  await writeTinyModel(model, { config: tinySiglipConfig() })
  await exportForTransformersJs(out, { from: model })
  await exportForTransformersJs(out, { from: model })
  for (const name of ['vision_encoder', 'embed_tokens', 'decoder_model_merged'])
    expect(existsSync(join(out, 'onnx', `${name}.onnx_data`))).toBe(true)
  expect(json('config.json', out)).toMatchObject({ model_type: 'llava', text_config: { model_type: 'qwen2' } })
  await expect(exportForTransformersJs(model, { from: picturebook })).rejects.toThrow('Cannot write folder')
  expect(readdirSync(root).sort()).toEqual(['exported', 'siglip', 'siglip-exported'])
})

test('a model that looks at tiles is refused, and nothing is written', async () => {
  const model = join(root, 'tiled')
  const tiles = { resolutions: [{ width: 16, height: 8 }], unpadding: 'rounded' as const }
  await writeTinyModel(model, { config: tinyConfig({ tiles }) })
  await expect(exportForTransformersJs(join(root, 'refused'), { from: model })).rejects.toThrow(
    /^Cannot export for transformers.js: the model looks at pictures in tiles, expected one view per picture$/,
  )
  expect(readdirSync(root)).not.toContain('refused')
})
