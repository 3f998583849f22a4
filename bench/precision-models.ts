/** The models on which precisions are compared, with the sequences that they read. */

import { fileURLToPath } from 'node:url'
import { expectedTensors } from '../src/checkpoint/layouts.ts'
import type { Weights } from '../src/checkpoint/load.ts'
import { tokenizeConversation } from '../src/conversation/tokenize.ts'
import { readModelFolder } from '../src/generation/model-folder.ts'
import { makePrompt, type Prompt, preparePicture } from '../src/generation/prompt.ts'
import { preprocess } from '../src/image/preprocess.ts'
import type { LlavaConfig } from '../src/model/config.ts'
import { picturebookSource } from '../src/picturebook/source.ts'
import { llava7B } from './shapes.ts'

/** A prompt, and the tokens that follow it. */
export type Sequence = { readonly prompt: Prompt; readonly answer: readonly number[] }

export type PrecisionModel = {
  readonly name: string
  readonly about: string
  readonly config: LlavaConfig
  readonly weights: Weights
  readonly sequences: readonly Sequence[]
}

/** The embedded model on questions about scenes that it has not learned, with their true answers. */
export async function picturebookModel(scenes: number): Promise<PrecisionModel> {
  const folder = await readModelFolder(fileURLToPath(new URL('../checkpoints/picturebook', import.meta.url)))
  const { config, template, tokenizer, imageProcessor } = folder
  const source = await picturebookSource({
    side: config.vision.imageSide,
    patch: config.vision.patch,
    objects: [1, 4],
    turns: 1,
    split: 'iid',
    seed: 77,
  })
  const sequences: Sequence[] = []
  for (let index = 0; index < scenes; index++) {
    const sample = await source.sample(index)
    const [picture, whole] = [
      await sample.pictures[0]?.pixels(),
      tokenizeConversation(sample.turns, { template, tokenizer, imageToken: config.imageToken }),
    ]
    if (picture === undefined) throw new Error('A scene has no picture')
    const pictures = [preparePicture(preprocess(picture, imageProcessor), config)]
    const { ids } = makePrompt(whole, { pictures, config })
    const asked = makePrompt(
      tokenizeConversation(sample.turns.slice(0, -1), {
        template,
        tokenizer,
        imageToken: config.imageToken,
        generationPrompt: true,
      }),
      { pictures, config },
    )
    sequences.push({ prompt: asked, answer: [...ids.subarray(asked.ids.length)] })
  }
  const positions = sequences.reduce((sum, { answer }) => sum + answer.length, 0)
  const about = `the embedded model, ${scenes} questions about unseen scenes, ${positions} positions of the true answers.`
  return { name: 'picturebook', about, config, weights: folder.weights, sequences }
}

/**
 * Random weights as trained ones are distributed: heavier tails than normal, some input channels far larger than the others, and norm weights that
 * raise a few channels of the activations by an order of magnitude (LLM.int8(), Dettmers et al. 2022 §4: about 0.1 % of the features).
 */
export function randomModel(count: number): PrecisionModel {
  const config = llava7B({
    language: { depth: 8, width: 768, heads: 6, keyValueHeads: 6, mlpWidth: 2048, vocabulary: 4096, context: 512 },
    vision: { imageSide: 28, width: 64, depth: 2, heads: 1, mlpWidth: 128 },
    imageToken: 4095,
  })
  const random = normals(1)
  const weights: Weights = new Map(
    [...expectedTensors(config)].map(([name, shape]) => [name, { shape, data: tensorOf(name, shape, random) }]),
  )
  const sequences = Array.from({ length: count }, (_, index) => {
    const words = Array.from({ length: 96 }, (_, i) => 5 + ((index * 7919 + i * 104729) % 4000))
    return { prompt: { ids: Int32Array.from(words.slice(0, 48)), pictures: [] }, answer: words.slice(48) }
  })
  const about = `8 LLaMA blocks of width 768 with random weights and outlier channels, ${count * 48} positions of random text.`
  return { name: 'random', about, config, weights, sequences }
}

function tensorOf(name: string, shape: readonly number[], random: () => number): Float32Array {
  const data = new Float32Array(shape.reduce((product, size) => product * size, 1))
  if (shape.length === 1) {
    const isNorm = /norm\d?\.weight$/i.test(name)
    // One channel in 250 stands out by a factor of 8 to 16.
    for (let i = 0; i < data.length; i++)
      data[i] = isNorm ? (i % 250 === 17 ? 8 + (i % 9) : 0.4 + 0.05 * random()) : 0.02 * random()
    return data
  }
  const width = data.length / (shape[0] ?? 1)
  const channels = Float32Array.from({ length: width }, () => Math.exp(0.4 * random()))
  // The head of a trained model is sure of itself: logits spread over several nats.
  const size = (name.endsWith('head.weight') ? 4 : name.endsWith('tokenEmbedding.weight') ? 8 : 1) / Math.sqrt(width)
  for (let i = 0; i < data.length; i++) {
    const tail = random() > 3 ? 4 : 1
    data[i] = size * tail * random() * (channels[i % width] ?? 1)
  }
  return data
}

/** Normally distributed numbers (Box–Muller over a linear congruential generator). */
function normals(seed: number): () => number {
  let state = seed >>> 0
  const uniform = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return (state + 1) / 4_294_967_297
  }
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())
}
