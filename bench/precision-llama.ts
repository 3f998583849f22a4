/**
 * What llama.cpp says on the same sequences, from GGUF files with the weights of our export, asked through llama-server one position at a time.
 *
 * llama.cpp v0.5.0 computes CLIP encoders wrongly (fixtures/llama-cpp), so pictures come in as we encode them, beside Q8_0 with weights rounded by its rule:
 * their visual tokens are further rows of the token embedding, which llama.cpp takes as tokens like others. The rows of the head for them are zeros and
 * are left out of the distribution.
 */

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { languageMetadata, languageTensors } from '../src/checkpoint/gguf-language.ts'
import type { GgufDtype } from '../src/checkpoint/gguf-numbers.ts'
import { writeGguf } from '../src/checkpoint/gguf-writer.ts'
import { compileModel, disposeModel } from '../src/generation/compiled-model.ts'
import { encodePicture } from '../src/generation/encode-picture.ts'
import { joined } from '../src/generation/joined.ts'
import { port, untilReady } from './llama-cpp.ts'
import type { PrecisionModel, Sequence } from './precision-models.ts'
import { asQ8, inBlocks, q4, q8 } from './precision-peer.ts'

/** The folder of llama.cpp's programs, or why there is none. */
export function llamaServer(): { program: string } | { absent: string } {
  const bin = process.env.LLAMA_CPP_BIN
  if (bin === undefined) return { absent: 'LLAMA_CPP_BIN names no folder' }
  const program = join(bin, 'llama-server')
  return existsSync(program) ? { program } : { absent: `${bin} has no llama-server` }
}

/** Log-probabilities [V] before each token of the answers, the true tokens given. */
export async function askLlama(
  program: string,
  model: PrecisionModel,
  { dtype }: { dtype: GgufDtype },
): Promise<Float32Array[]> {
  const folder = await mkdtemp(join(process.env.LLAVA_BENCH_FOLDER ?? tmpdir(), 'llava-bench-'))
  const path = join(folder, 'model.gguf')
  try {
    const { sequences, vocabulary } = await writeModel(path, model, dtype)
    const longest = Math.max(...sequences.map(({ ids, answer }) => ids.length + answer.length))
    const cache = ['-c', `${Math.max(256, longest + 8)}`, '-ctk', 'f32', '-ctv', 'f32', '-fa', 'off']
    const words = ['-m', path, '-t', '1', '-np', '1', ...cache, '--port', `${port}`, '--no-webui', '--no-warmup']
    const server = spawn(program, words, { stdio: 'ignore' })
    try {
      await untilReady(server)
      const all: Float32Array[] = []
      for (const { ids, answer } of sequences) {
        for (let read = 0; read < answer.length; read++) {
          all.push(
            await distribution([...ids, ...answer.slice(0, read)], {
              vocabulary,
              own: model.config.language.vocabulary,
            }),
          )
        }
      }
      return all
    } finally {
      server.kill()
    }
  } finally {
    await rm(folder, { recursive: true })
  }
}

type Probabilities = { completion_probabilities: { top_logprobs: { id: number; logprob: number }[] }[] }

/** What follows `prompt`: the first `own` of the `vocabulary`. */
async function distribution(
  prompt: readonly number[],
  { vocabulary, own }: { vocabulary: number; own: number },
): Promise<Float32Array> {
  const body = JSON.stringify({ prompt, n_predict: 1, n_probs: vocabulary, temperature: -1, cache_prompt: true })
  const response = await fetch(`http://127.0.0.1:${port}/completion`, { method: 'POST', body })
  if (!response.ok) throw new Error(`llama-server answered ${response.status}: ${await response.text()}`)
  const { completion_probabilities: [first] = [] } = (await response.json()) as Probabilities
  const logits = new Float32Array(own).fill(Number.NaN)
  for (const { id, logprob } of first?.top_logprobs ?? []) if (id < own) logits[id] = logprob
  if (logits.some(Number.isNaN)) throw new Error('llama-server left out some of the vocabulary')
  return logits
}

/** The sequences as ids of the enlarged vocabulary. */
async function writeModel(path: string, model: PrecisionModel, dtype: GgufDtype) {
  const { config, weights } = model
  const { language, imageToken } = config
  const { visualTokens, sequences } = await withVisualTokens(
    dtype === 'Q8_0' ? { ...model, weights: asQ8(weights) } : model,
  )
  const further = Math.max(1, visualTokens.length / language.width) // the last one ends texts, so there has to be one
  const enlarged = { ...language, vocabulary: language.vocabulary + further, tiedHead: false }
  const round = dtype === 'Q8_0' ? q8 : dtype === 'Q4_0' ? q4 : undefined
  const dataOf = (name: string) => {
    const data = weights.get(name)?.data
    if (data === undefined) throw new Error(`There is no weight ${name}`)
    return data
  }
  const special: Readonly<Record<string, () => Float32Array>> = {
    // Kept in float32 with the text's rows rounded beforehand: those of the pictures are no weights.
    'languageModel.tokenEmbedding.weight': () => {
      const own = dataOf('languageModel.tokenEmbedding.weight')
      return joined([
        round === undefined ? own : inBlocks(own, round),
        enlargedBy(visualTokens, further * language.width),
      ])
    },
    'languageModel.head.weight': () => {
      const name = language.tiedHead ? 'languageModel.tokenEmbedding.weight' : 'languageModel.head.weight'
      return joined([dataOf(name), new Float32Array(further * language.width)])
    },
  }
  const names = new Set([...weights.keys(), 'languageModel.head.weight'])
  const shapes = new Map(
    [...names].map((name) => [
      name,
      name in special ? [enlarged.vocabulary, language.width] : (weights.get(name)?.shape ?? []),
    ]),
  )
  const read = async (name: string) => special[name]?.() ?? dataOf(name)
  const tensors = languageTensors(enlarged, { weights: { shapes, read, close: async () => {} }, dtype })
  const words = Array.from({ length: enlarged.vocabulary }, (_, i) => `▁w${i}`)
  await writeGguf(path, {
    metadata: {
      ...languageMetadata(enlarged, { name: 'bench', dtype }),
      'tokenizer.ggml.model': { string: 'llama' },
      'tokenizer.ggml.tokens': { strings: words },
      'tokenizer.ggml.scores': { float32s: words.map((_, i) => -i) },
      'tokenizer.ggml.token_type': { int32s: words.map(() => 1) },
      'tokenizer.ggml.bos_token_id': { uint32: enlarged.vocabulary - 1 },
      'tokenizer.ggml.eos_token_id': { uint32: enlarged.vocabulary - 1 },
    },
    tensors: tensors.map((tensor) => (tensor.name === 'token_embd.weight' ? { ...tensor, dtype: 'F32' } : tensor)),
  })
  return {
    sequences: sequences.map((sequence) => renamed(sequence, { imageToken, vocabulary: language.vocabulary })),
    vocabulary: enlarged.vocabulary,
  }
}

type Numbered = Sequence & { readonly firstVisual: number }

/** Placeholders become the ids of their visual tokens. */
function renamed(
  { prompt, answer, firstVisual }: Numbered,
  { imageToken, vocabulary }: { imageToken: number; vocabulary: number },
): { ids: number[]; answer: readonly number[] } {
  let visual = vocabulary + firstVisual
  const ids = [...prompt.ids].map((id) => (prompt.pictures.length > 0 && id === imageToken ? visual++ : id))
  return { ids, answer }
}

/** Visual tokens [M, D] of all pictures, and with each sequence the first of its own. */
async function withVisualTokens({ config, weights, sequences }: PrecisionModel) {
  const model = await compileModel({ config, weights }, { threads: 1 })
  const parts: Float32Array[] = []
  const numbered: Numbered[] = []
  let count = 0
  for (const sequence of sequences) {
    numbered.push({ ...sequence, firstVisual: count })
    for (const picture of sequence.prompt.pictures) {
      const { visualTokens } = await encodePicture(model, picture)
      parts.push(visualTokens)
      count += visualTokens.length / config.language.width
    }
  }
  await disposeModel(model)
  return { visualTokens: joined(parts), sequences: numbered }
}

function enlargedBy(values: Float32Array, length: number): Float32Array {
  const result = new Float32Array(length)
  result.set(values)
  return result
}
