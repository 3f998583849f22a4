import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseVisionEncoder } from '../model/clip-config.ts'
import { countVisualTokens, type LlavaConfig, toHuggingFaceConfig } from '../model/config.ts'
import { readStrictJson } from './json.ts'
import { expectedTensors, toForeign } from './layouts.ts'
import { loadPart } from './load-part.ts'
import { writeSafetensors } from './safetensors-writer.ts'
import { tinyClip, tinySiglip } from './tiny-config.fixture.ts'

const published = (kind: string) => fileURLToPath(new URL(`../../fixtures/parity/${kind}`, import.meta.url))
let base = ''
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'load-part-'))
})
afterAll(() => rm(base, { recursive: true, force: true }))

/** A LLaVA around the encoder of a published folder. */
async function around(kind: 'clip' | 'siglip'): Promise<LlavaConfig> {
  const vision = parseVisionEncoder(await readStrictJson(join(published(kind), 'config.json')))
  const config = { ...(kind === 'clip' ? tinyClip : tinySiglip), vision }
  return { ...config, visualTokens: countVisualTokens(config) }
}

describe('a vision encoder from a folder of its own', () => {
  test.each(['clip', 'siglip'] as const)('%s', async (kind) => {
    const config = await around(kind)
    const weights = await loadPart(published(kind), { part: 'visionEncoder', config, model: 'm' })
    const names = [...expectedTensors(config).keys()].filter((name) => name.startsWith('visionEncoder.'))
    expect([...weights.keys()].sort()).toEqual(names.sort())
  })

  test('of the class CLIPVisionModel, whose config is the section alone', async () => {
    const config = await around('clip')
    const folder = join(base, 'alone')
    await mkdir(folder)
    const { vision_config } = toHuggingFaceConfig(config)
    await writeFile(join(folder, 'config.json'), JSON.stringify(vision_config))
    const all = await loadPart(published('clip'), { part: 'visionEncoder', config, model: 'm' })
    const stored = [...all].map(
      ([name, tensor]) => [toForeign(name, 'hugging-face').replace('vision_tower.', ''), tensor] as const,
    )
    await writeSafetensors(join(folder, 'model.safetensors'), stored)
    const weights = await loadPart(folder, { part: 'visionEncoder', config, model: 'm' })
    for (const [name, { data }] of all) expect(weights.get(name)!.data, name).toEqual(data)
  })

  test('of other sizes, or with other settings that no shape shows, is refused in a sentence', async () => {
    const config = await around('clip')
    const other = { ...config, vision: { ...config.vision, heads: 2, activation: 'gelu' as const } }
    await expect(
      loadPart(published('clip'), { part: 'visionEncoder', config: other, model: 'my-model' }),
    ).rejects.toThrow(
      /^Cannot start visionEncoder from .*clip: found heads 4, activation "quick_gelu", expected heads 2, activation "gelu" as in my-model$/,
    )
    await expect(loadPart(published('siglip'), { part: 'visionEncoder', config, model: 'm' })).rejects.toThrow(
      /found kind "siglip", imageSide 30, width 24, .*, expected kind "clip", imageSide 28, width 32/,
    )
    await expect(loadPart(published('clip'), { part: 'languageModel', config, model: 'm' })).rejects.toThrow(
      /^Cannot start languageModel from .*clip: found model_type clip, of which only the visionEncoder can be taken$/,
    )
  })
})

describe('a language model from a folder of its own', () => {
  /** Writes one as transformers does: the config is what LLaVA has for a section, the names are without a prefix. */
  async function writeAlone(name: string, config: LlavaConfig): Promise<string> {
    const folder = join(base, name)
    await mkdir(folder)
    await writeFile(join(folder, 'config.json'), JSON.stringify(toHuggingFaceConfig(config).text_config))
    const own = [...expectedTensors(config)].filter(([tensor]) => tensor.startsWith('languageModel.'))
    const stored = own.map(([tensor, shape], number) => {
      const size = shape.reduce((product, dim) => product * dim, 1)
      return [
        toForeign(tensor, 'original'),
        { shape, data: Float32Array.from({ length: size }, (_, i) => Math.sin(i + number)) },
      ] as const
    })
    await writeSafetensors(join(folder, 'model.safetensors'), stored)
    return folder
  }

  test.each([
    ['LLaMA', tinyClip],
    ['Qwen2, with biases and a tied head', tinySiglip],
  ])('gives all its tensors: %s', async (name, config) => {
    const folder = await writeAlone(name, config)
    const weights = await loadPart(folder, { part: 'languageModel', config, model: 'm' })
    const names = [...expectedTensors(config).keys()].filter((tensor) => tensor.startsWith('languageModel.'))
    expect([...weights.keys()].sort()).toEqual(names.sort())
  })

  test('that does not know the tokens which the model adds: their rows are the mean of all others', async () => {
    const small = { ...tinyClip, imageToken: 0, language: { ...tinyClip.language, vocabulary: 17 } }
    const folder = await writeAlone('smaller', small)
    const weights = await loadPart(folder, { part: 'languageModel', config: tinyClip, model: 'm' })
    for (const name of ['languageModel.tokenEmbedding.weight', 'languageModel.head.weight']) {
      const { shape, data } = weights.get(name)!
      expect(shape).toEqual([20, 12])
      const column = (row: number) => data[row * 12 + 5]!
      const mean = Array.from({ length: 17 }, (_, row) => column(row)).reduce((sum, value) => sum + value, 0) / 17
      for (const row of [17, 18, 19]) expect(column(row)).toBeCloseTo(mean, 6)
    }
  })

  test('with more tokens or of other sizes is refused in a sentence', async () => {
    const large = { ...tinyClip, language: { ...tinyClip.language, vocabulary: 21 } }
    const folder = await writeAlone('larger', large)
    await expect(loadPart(folder, { part: 'languageModel', config: tinyClip, model: 'my-model' })).rejects.toThrow(
      /^Cannot start languageModel from .*larger: found vocabulary 21, expected vocabulary 20 as in my-model$/,
    )
    const other = { ...large, language: { ...large.language, ropeTheta: 1e6, mlpWidth: 32 } }
    await expect(loadPart(folder, { part: 'languageModel', config: other, model: 'm' })).rejects.toThrow(
      /found mlpWidth 24, ropeTheta 10000, expected mlpWidth 32, ropeTheta 1000000 as in m$/,
    )
  })
})
