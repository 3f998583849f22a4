/** CLIP and SigLIP as Hugging Face transformers computes them: tiny models and references made by fixtures/parity/make-clip-references.py. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { toFloat32 } from '../src/checkpoint/dtype.ts'
import { closeSafetensors, openSafetensors, readTensor } from '../src/checkpoint/safetensors.ts'
import { Clip, probabilitiesOf } from '../src/clip.ts'
import { encodeClipTexts } from '../src/conversation/clip-tokenizer.ts'
import {
  type ClipFolder,
  type ClipModel,
  comparePairs,
  compileClip,
  disposeClip,
  embedPictures,
  embedTexts,
  readClipFolder,
  textInputs,
} from '../src/generation/clip-model.ts'
import { compileGraph } from '../src/generation/compiled-model.ts'
import { pixels } from '../src/image/pixels.ts'
import { pictureEmbeddings } from '../src/model/clip.ts'
import type { ClipConfig } from '../src/model/clip-config.ts'
import { isCausal, textEmbeddings, textPositions } from '../src/model/text-encoder.ts'
import { parameters } from '../src/model/weights.ts'
import { disposeTensor, residentTensor } from '../src/runtime/resident-tensor.ts'
import { disposeSession, run } from '../src/runtime/session.ts'
import { causalMask, constant, input } from '../src/tensor/index.ts'
import { compute, modelsToTest } from './references.ts'

/** Largest difference relative to the largest value; sums in another order give up to 2e-6. */
const tolerance = 5e-5

type References = {
  texts: string[]
  ids: number[][]
  unpadded: { text: string; ids: number[] }[]
  truncated: { text: string; ids: number[] }
}

const fixtures = fileURLToPath(new URL('../fixtures/parity/', import.meta.url))

describe.each(modelsToTest(['clip', 'siglip'] as const))('%s equals transformers', (kind) => {
  const path = join(fixtures, kind)
  const { texts, ids, unpadded, truncated }: References = JSON.parse(
    readFileSync(join(path, 'references.json'), 'utf8'),
  )
  let folder: ClipFolder
  let model: ClipModel
  let expected: Map<string, { shape: readonly number[]; data: Float32Array }>

  beforeAll(async () => {
    folder = await readClipFolder(path)
    model = await compileClip(folder, compute)
    expected = await readAll(join(path, 'references.safetensors'))
  })
  afterAll(() => disposeClip(model))

  const close = (found: ArrayLike<number>, name: string) =>
    expect(relativeDifference(found, expected.get(name)!.data), name).toBeLessThanOrEqual(tolerance)
  const pictures = () => {
    const { data } = expected.get('pixels')!
    return [data.slice(0, data.length / 2), data.slice(data.length / 2)]
  }

  test.each(unpadded)('ids of $text', ({ text, ids }) => {
    const tokenizer = { ...folder.tokenizer, fills: false, context: 64 }
    expect(encodeClipTexts(tokenizer, [text])[0]).toEqual(ids)
  })

  test('texts are padded as the model was trained, refused when too long, and cut on request', () => {
    expect(encodeClipTexts(folder.tokenizer, texts)).toEqual(ids)
    expect(() => encodeClipTexts(folder.tokenizer, [truncated.text])).toThrow(
      /Cannot read the text "Ein Käfer.*: found \d+ tokens, expected at most 24/,
    )
    const short = { ...folder.tokenizer, context: 12 }
    expect(encodeClipTexts(short, [truncated.text], { truncate: true })[0]).toEqual(truncated.ids)
  })

  test('unit embeddings, cosines and logits', async () => {
    const found = {
      pictures: await embedPictures(model, pictures()),
      texts: await embedTexts(model, texts, { tokenizer: folder.tokenizer }),
    }
    close(
      found.pictures.flatMap((vector) => [...vector]),
      'pictureEmbeddings',
    )
    close(
      found.texts.flatMap((vector) => [...vector]),
      'textEmbeddings',
    )
    const { logits } = await comparePairs(model, found)
    close(logits, 'logits')
  })

  test('a text alone has the embedding that it has among others', async () => {
    const { tokenizer } = folder
    const [alone] = await embedTexts(model, [texts[0]!], { tokenizer })
    const [among] = await embedTexts(model, texts, { tokenizer })
    expect(relativeDifference(alone!, among!)).toBeLessThanOrEqual(tolerance)
  })

  test('features before they have length 1, by the graph of a training step, whose sizes are numbers', async () => {
    const { config, weights } = model
    const [N, T] = [ids.length, ids[0]!.length]
    const S = config.vision.imageSide
    const mask = isCausal(config.text) ? constant('float32', [T, T], causalMask(T)) : undefined
    const places = input('places', 'int64', [N])
    const outputs = {
      pictureFeatures: pictureEmbeddings(config, parameters, input('pixels', 'float32', [2, 3, S, S])),
      textFeatures: textEmbeddings(config.text, parameters, {
        ids: input('ids', 'int64', [N, T]),
        positions: textPositions(T),
        places,
        mask,
      }),
    }
    const session = await compileGraph(outputs, { name: 'parity', weights, ...compute })
    const { ids: tokens, places: read } = textInputs(config, ids)
    const given = {
      pixels: residentTensor('float32', [2, 3, S, S], { data: expected.get('pixels')!.data.slice() }),
      ids: tokens!,
      places: read!,
    }
    const found = await run(session, given)
    await disposeSession(session)
    for (const name of Object.keys(outputs)) close(found[name]!.data as Float32Array, name)
    for (const tensor of [...Object.values(given), ...Object.values(found)]) disposeTensor(tensor)
  })

  test('probabilities', () => {
    const logits = [...expected.get('logits')!.data]
    const rows = [logits.slice(0, texts.length), logits.slice(texts.length)]
    close(
      rows.flatMap((row) => probabilitiesOf(row, model.config)),
      'probabilities',
    )
  })

  test('classification through the library says the same as its parts', async () => {
    await using clip = await Clip.load(path, compute)
    const images = [1, 2].map((seed) =>
      pixels(
        40,
        30,
        Uint8Array.from({ length: 3600 }, (_, i) => (i * 37 * seed) % 251),
      ),
    )
    const labels = ['cat', 'two dogs', 'house']
    const found = await clip.classify({ images, labels, template: 'a {}!' })
    expect(found.map((row) => row.map(({ label, text }) => [label, text]))).toEqual(
      images.map(() => labels.map((label) => [label, `a ${label}!`])),
    )
    const similarities = await clip.similarity({ images, texts: labels.map((label) => `a ${label}!`) })
    expect(found.map((row) => row.map(({ similarity }) => similarity))).toEqual(similarities)
    const [scale, bias] = [Math.exp(1.7), kind === 'siglip' ? -2.5 : 0] // as the fixture was made
    found.forEach((row, image) => {
      const logits = similarities[image]!.map((cosine) => cosine * scale + bias)
      expect(
        relativeDifference(
          row.map(({ probability }) => probability),
          probabilitiesOf(logits, clip.config),
        ),
      ).toBeLessThan(1e-5)
    })
  })

  test('the references notice what is easily confused', async () => {
    const { config } = folder
    const confused: Record<string, ClipConfig> = {
      activation: { ...config, text: { ...config.text, activation: 'gelu' } },
      epsilon: { ...config, text: { ...config.text, normEpsilon: 1e-3 } },
      'where texts are read': { ...config, text: { ...config.text, readAt: kind === 'clip' ? 'last' : ids[0]![0]! } },
      heads: { ...config, text: { ...config.text, heads: 1 } },
    }
    for (const [what, changed] of Object.entries(confused)) {
      const other = await compileClip({ ...folder, config: changed }, compute)
      const found = await embedTexts(other, texts.slice(0, 1), { tokenizer: { ...folder.tokenizer, fills: true } })
      await disposeClip(other)
      const wanted = expected.get('textEmbeddings')!.data.slice(0, config.embeddingWidth)
      expect(relativeDifference(found[0]!, wanted), what).toBeGreaterThan(2 * tolerance)
    }
  })
})

async function readAll(path: string) {
  const file = await openSafetensors(path)
  const values = new Map<string, { shape: readonly number[]; data: Float32Array }>()
  for (const name of file.tensors.keys()) {
    const { dtype, shape, data } = await readTensor(file, name)
    values.set(name, { shape, data: toFloat32(dtype, data) })
  }
  await closeSafetensors(file)
  return values
}

function relativeDifference(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  expect(found.length).toBe(expected.length)
  const indices = Array.from(expected, (_, i) => i)
  const largest = Math.max(...indices.map((i) => Math.abs(expected[i]!)))
  return Math.max(...indices.map((i) => Math.abs(found[i]! - expected[i]!))) / largest
}
