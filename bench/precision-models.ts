/** The models on which precisions are compared, with the sequences that they read. */

import { fileURLToPath } from 'node:url'
import type { Weights } from '../src/checkpoint/load.ts'
import { decode } from '../src/conversation/text-stream.ts'
import { tokenizeConversation } from '../src/conversation/tokenize.ts'
import { readModelFolder } from '../src/generation/model-folder.ts'
import { makePrompt, type Prompt, preparePicture } from '../src/generation/prompt.ts'
import { preprocess } from '../src/image/preprocess.ts'
import type { LlavaConfig } from '../src/model/config.ts'
import { picturebookSource } from '../src/picturebook/source.ts'
import { randomWeights } from './random-weights.ts'
import { llava7B } from './shapes.ts'

/** A prompt, and the tokens that follow it. */
export type Sequence = {
  readonly prompt: Prompt
  readonly answer: readonly number[]
  /** Whether tokens answer the question rightly; not there for random text. */
  readonly isRight?: (tokens: readonly number[]) => boolean
}

export type PrecisionModel = {
  readonly name: string
  readonly about: string
  readonly config: LlavaConfig
  readonly weights: Weights
  readonly stopTokens: readonly number[]
  readonly sequences: readonly Sequence[]
}

/** The embedded model on questions about scenes that it has not learned, with their true answers. */
export async function picturebookModel(scenes: number): Promise<PrecisionModel> {
  const folder = await readModelFolder(fileURLToPath(new URL('../checkpoints/picturebook', import.meta.url)))
  const { config, template, tokenizer, imageProcessor, stopTokens } = folder
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
    const picture = await sample.pictures[0]?.pixels()
    if (picture === undefined) throw new Error('A scene has no picture')
    const pictures = [preparePicture(preprocess(picture, imageProcessor), config)]
    const settings = { template, tokenizer, imageToken: config.imageToken }
    const whole = makePrompt(tokenizeConversation(sample.turns, settings), { pictures, config })
    const asked = tokenizeConversation(sample.turns.slice(0, -1), { ...settings, generationPrompt: true })
    const prompt = makePrompt(asked, { pictures, config })
    sequences.push({
      prompt,
      answer: [...whole.ids.subarray(prompt.ids.length)],
      isRight: (tokens) =>
        sample.score?.(
          0,
          decode(
            tokenizer,
            tokens.filter((id) => !stopTokens.includes(id)),
          ),
        ) ?? false,
    })
  }
  const about = `the embedded model, ${scenes} questions about unseen scenes, ${positionsOf(sequences)} positions of the true answers.`
  return { name: 'picturebook', about, config, weights: folder.weights, stopTokens, sequences }
}

/** Random weights with the spectra and outliers of trained ones (random-weights.ts), on random text. */
export function randomModel(count: number): PrecisionModel {
  const config = llava7B({
    language: {
      depth: 8,
      width: 512,
      heads: 8,
      keyValueHeads: 8,
      headSize: 64,
      mlpWidth: 1408,
      vocabulary: 2048,
      context: 256,
    },
    vision: { imageSide: 28, width: 64, depth: 2, heads: 1, mlpWidth: 128 },
    imageToken: 2047,
  })
  const sequences = Array.from({ length: count }, (_, index) => {
    const words = Array.from({ length: 64 }, (_, i) => 5 + ((index * 7919 + i * 104_729 + i * i * 31) % 2000))
    return { prompt: { ids: Int32Array.from(words.slice(0, 32)), pictures: [] }, answer: words.slice(32) }
  })
  const about = `8 LLaMA blocks of width 512 with random weights that have the spectra and outliers of trained ones, ${positionsOf(sequences)} positions of random text.`
  return { name: 'random', about, config, weights: randomWeights(config), stopTokens: [2], sequences }
}

function positionsOf(sequences: readonly Sequence[]): number {
  return sequences.reduce((sum, { answer }) => sum + answer.length, 0)
}
