/** GGUF exports as llama.cpp reads them: fixtures/llama-cpp holds what it computed from files with the same bytes. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { GGMLQuantizationType, gguf } from '@huggingface/gguf'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { exportGguf } from '../src/checkpoint/export-gguf.ts'
import { loadWeights } from '../src/checkpoint/load.ts'
import { encodeText } from '../src/conversation/tokenizer.ts'
import { type CompiledModel, compileModel, disposeModel } from '../src/generation/compiled-model.ts'
import { closeContext, openContext, readPrompt } from '../src/generation/context.ts'
import { encodePicture } from '../src/generation/encode-picture.ts'
import { readTokenizer } from '../src/generation/model-folder.ts'
import type { PreparedPicture } from '../src/generation/prompt.ts'
import { generateUncached } from '../src/generation/uncached.ts'
import { pixels } from '../src/image/pixels.ts'
import { preprocess } from '../src/image/preprocess.ts'
import { readImageProcessorConfig } from '../src/image/processor-config.ts'
import type { LlavaConfig } from '../src/model/config.ts'
import {
  noisePicture,
  promptOf,
  referenceModels,
  sha256,
  tensorHashes,
  tokenizedTexts,
  writeReferenceModel,
  writeTokenizerModel,
} from './gguf-models.ts'
import { tinyConfig, tinySiglipConfig, writeTinyModel } from './tiny-model.ts'

/** llama.cpp looks GELU up in a table of float16 numbers and uses its tanh form; without GELU only sums are in another order. */
const tolerance = 3e-3

type Output = { visualTokens: number[]; logits: number[]; tokens: number[] }
type References = {
  outputs: Record<string, Output & { sha256: { model: string; mmproj: string }; wide?: Output }>
  tokenized: Record<'sentence-pieces' | 'byte-pairs', number[][]>
  quantized: Record<'F16' | 'Q8_0' | 'Q4_0', Record<string, string>>
}
const references: References = JSON.parse(
  readFileSync(new URL('../fixtures/llama-cpp/references.json', import.meta.url), 'utf8'),
)
const picturebook = fileURLToPath(new URL('../checkpoints/picturebook', import.meta.url))
const root = mkdtempSync(join(tmpdir(), 'llava-gguf-'))
afterAll(() => rmSync(root, { recursive: true }))

describe.each(Object.keys(referenceModels))('%s', (name) => {
  const reference = references.outputs[name]!
  const folder = join(root, name)

  test('is exported as the files that llama.cpp read, and answers as it did', async () => {
    const config = await writeReferenceModel(folder, name)
    const files = await exportGguf(join(root, `${name}-gguf`), { from: folder, dtype: 'F32' })
    const hashes = { model: sha256(readFileSync(files.model)), mmproj: sha256(readFileSync(files.mmproj)) }
    expect(hashes).toEqual(reference.sha256)

    const processor = readImageProcessorConfig(
      JSON.parse(readFileSync(join(folder, 'preprocessor_config.json'), 'utf8')),
    )
    const model = await compileModel({ config, weights: await loadWeights(folder, config) }, { threads: 1 })
    const side = config.vision.imageSide
    const small = preprocess(pixels(side, side, noisePicture(side)), processor)
    await expectSame(model, { picture: llamaCppPicture(config, { ...small, views: 1 }), reference })
    if (reference.wide !== undefined) {
      const wide = preprocess(pixels(2 * side, side, noisePicture(2 * side, side)), processor)
      expect(wide.views).toBe(3)
      await expectSame(model, { picture: llamaCppPicture(config, wide), reference: reference.wide })
    }
    await disposeModel(model)
  })
})

/** Views in llama.cpp's order, tiles one after the other and then the whole picture; of a picture no larger than a tile it looks at the whole alone. */
function llamaCppPicture(
  config: LlavaConfig,
  { data, views: J }: { data: Float32Array; views: number },
): PreparedPicture {
  const { visualTokens: P, vision } = config
  const M = J * P
  const sources = Int32Array.from({ length: M }, (_, m) => (m + P) % M)
  return {
    pixels: data.slice(0, J * 3 * vision.imageSide ** 2),
    views: J,
    arrangement: J === 1 ? undefined : { length: M, sources, shares: new Float32Array(M).fill(1) },
    length: M,
    key: `${J} views`,
  }
}

/** Visual tokens, logits and answer of llama.cpp. */
async function expectSame(
  model: CompiledModel,
  { picture, reference }: { picture: PreparedPicture; reference: Output },
): Promise<void> {
  const { visualTokens } = await encodePicture(model, picture)
  expect(relativeDifference(visualTokens, reference.visualTokens)).toBeLessThan(tolerance)
  const ids = Int32Array.from(promptOf(model.config, { views: picture.views }))
  const prompt = { ids, pictures: [{ ...picture, start: 5 }] }
  const context = openContext(model)
  const { logits } = await readPrompt(context, prompt)
  closeContext(context)
  expect(relativeDifference(logits, reference.logits)).toBeLessThan(tolerance)
  const answer = await generateUncached(model, prompt, { maxTokens: reference.tokens.length })
  expect(answer.map(({ token }) => token)).toEqual(reference.tokens)
}

describe.each(['sentence-pieces', 'byte-pairs'] as const)('a tokenizer of %s', (kind) => {
  const folder = join(root, kind)
  beforeAll(() => writeTokenizerModel(folder, kind))

  test('gives the ids that llama.cpp gives with the exported one', async () => {
    const { tokenizer } = await readTokenizer(folder)
    const ids = tokenizedTexts.map((text) => encodeText(tokenizer, text, { bos: true }))
    expect(ids).toEqual(references.tokenized[kind])
  })
})

test.each([
  'F16',
  'Q8_0',
  'Q4_0',
] as const)('blocks in %s are those of llama-quantize, byte for byte', async (dtype) => {
  const { model } = await exportGguf(join(root, `bytes-${dtype}`), { from: join(root, 'byte-pairs'), dtype })
  expect(await tensorHashes(model)).toEqual(references.quantized[dtype])
})

test('the embedded model in Q4_0: what a reader of GGUF finds', async () => {
  const out = join(root, 'picturebook-gguf')
  const progress: number[] = []
  const files = await exportGguf(out, {
    from: picturebook,
    dtype: 'Q4_0',
    onProgress: ({ done, total }) => progress.push(done / total),
  })
  expect(readdirSync(out).sort()).toEqual(['mmproj-picturebook-f16.gguf', 'picturebook-q4_0.gguf'])
  expect(progress.at(-1)).toBe(1)
  const model = await gguf(files.model, { allowLocalFile: true })
  expect(model.metadata).toMatchObject({
    'general.architecture': 'llama',
    'general.file_type': 2,
    'tokenizer.ggml.model': 'gpt2',
    'tokenizer.ggml.pre': 'gpt-2',
    'tokenizer.ggml.bos_token_id': 1,
    'tokenizer.ggml.eos_token_id': 2,
    'tokenizer.ggml.add_bos_token': true,
  })
  const metadata = model.metadata as Record<string, unknown>
  const template = String(metadata['tokenizer.chat_template'])
  expect(template).toContain('{% if true %}{{ part')
  expect(template).not.toContain('generation %}{{') // an extension of transformers
  expect((metadata['tokenizer.ggml.tokens'] as string[]).length).toBe(metadata['llama.vocab_size'])
  const dtypeOf = (name: string) => model.tensorInfos.find((tensor) => tensor.name === name)?.dtype
  expect(dtypeOf('blk.0.attn_q.weight')).toBe(GGMLQuantizationType.Q4_0)
  expect(dtypeOf('output.weight')).toBe(GGMLQuantizationType.Q8_0)
  expect(dtypeOf('output_norm.weight')).toBe(GGMLQuantizationType.F32)

  const { metadata: vision, tensorInfos } = await gguf(files.mmproj, { allowLocalFile: true })
  expect(vision).toMatchObject({
    'general.architecture': 'clip',
    'clip.projector_type': 'mlp',
    'clip.use_gelu': false,
    'clip.vision.feature_layer': [6],
    'clip.vision.image_mean': [0.48145466, 0.4578275, 0.40821073].map(Math.fround),
  })
  expect(tensorInfos.find(({ name }) => name === 'v.blk.0.ffn_down.weight')?.shape).toEqual([192n, 768n]) // it widens
  expect(tensorInfos.some(({ name }) => name.startsWith('v.post_ln'))).toBe(false)
})

test('models of tiles keep what tells them apart: resolutions, widths first, the newline, and no resolution that would have to be shrunk', async () => {
  for (const [name, pinpoints] of [
    ['clip-llama-tiles', [8, 16, 16, 8, 16, 16]],
    ['siglip-qwen2-tiles', [28, 56, 56, 28]],
  ] as const) {
    const [mmproj = ''] = readdirSync(join(root, `${name}-gguf`)).filter((file) => file.startsWith('mmproj'))
    const { metadata, tensorInfos } = await gguf(join(root, `${name}-gguf`, mmproj), { allowLocalFile: true })
    expect(metadata).toMatchObject({
      'clip.vision.image_grid_pinpoints': pinpoints,
      'clip.vision.mm_patch_merge_type': 'spatial_unpad',
    })
    expect(tensorInfos.find((tensor) => tensor.name === 'v.image_newline')?.dtype).toBe(GGMLQuantizationType.F32)
  }
})

test('another export is replaced, a folder of other things is not', async () => {
  await exportGguf(join(root, 'picturebook-gguf'), { from: picturebook, dtype: 'F16' })
  expect(readdirSync(join(root, 'picturebook-gguf'))).toContain('picturebook-f16.gguf')
  await expect(exportGguf(join(root, 'byte-pairs'), { from: picturebook, dtype: 'F16' })).rejects.toThrow(
    'Cannot write folder',
  )
  expect(readdirSync(root).filter((name) => name.startsWith('.'))).toEqual([])
})

test('what llama.cpp cannot compute is refused before anything is written', async () => {
  const refused: [LlavaConfig, RegExp][] = [
    [tinyConfig({ featureSelect: 'full' }), /^Cannot export to GGUF: the model feeds the class token/],
    [tinyConfig({ featureLayer: 0 }), /before the first block/],
    [tinySiglipConfig(), /4 heads of 16 are not the width 32, which llama.cpp expects of Qwen2/],
  ]
  for (const [index, [config, reason]] of refused.entries()) {
    const from = join(root, `refused-${index}`)
    await writeTinyModel(from, { config })
    await expect(exportGguf(join(root, 'never'), { from, dtype: 'F32' })).rejects.toThrow(reason)
  }
  expect(readdirSync(root)).not.toContain('never')
})

function relativeDifference(found: ArrayLike<number>, expected: readonly number[]): number {
  expect(found.length).toBe(expected.length)
  const largest = Math.max(...expected.map(Math.abs))
  return Math.max(...expected.map((value, i) => Math.abs(found[i]! - value))) / largest
}
