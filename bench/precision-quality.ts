/** What a model says, position by position, and how far that is from what the same model says in float32. */

import { compileModel, disposeModel } from '../src/generation/compiled-model.ts'
import {
  closeContext,
  type GenerationContext,
  openContext,
  readPrompt,
  readToken,
  rewind,
} from '../src/generation/context.ts'
import type { CacheType } from '../src/generation/kv-cache.ts'
import type { Precision } from '../src/generation/precision.ts'
import { greedy } from '../src/generation/sampling.ts'
import type { PrecisionModel, Sequence } from './precision-models.ts'

/** Logits [V] before each token of the answers, the true tokens given, and how many questions were answered rightly. */
export type Said = { readonly logits: readonly Float32Array[]; readonly right: number; readonly asked: number }

export type Quality = {
  /** Mean Kullback–Leibler divergence of the next-token distribution from that of float32, nats. */
  readonly divergence: number
  /** Standard error of that mean: most positions cost nothing and a few cost most. */
  readonly uncertainty: number
  /** Share of positions where the likeliest token is the same. */
  readonly agreement: number
  readonly right: number
  readonly asked: number
}

const longestAnswer = 60

/** Prompts are read at once and answers token by token, as in use. */
export async function ask(
  { config, weights, sequences, stopTokens }: Pick<PrecisionModel, 'config' | 'weights' | 'sequences' | 'stopTokens'>,
  { precision, cacheType = 'float32' }: { precision: Precision; cacheType?: CacheType },
): Promise<Said> {
  const model = await compileModel({ config, weights }, { precision, cacheType, threads: 1 })
  const logits: Float32Array[] = []
  let [right, asked] = [0, 0]
  for (const sequence of sequences) {
    const context = openContext(model)
    const { prompt, answer, isRight } = sequence
    const found = [(await readPrompt(context, prompt)).logits]
    for (const token of answer.slice(0, -1)) found.push(await readToken(context, token))
    logits.push(...found)
    if (isRight !== undefined) {
      asked++
      if (isRight(await ownAnswer(context, { found, sequence, stopTokens }))) right++
    }
    closeContext(context)
  }
  await disposeModel(model)
  return { logits, right, asked }
}

/** The greedy answer: the true one as far as each of its tokens is the likeliest, then on alone. */
async function ownAnswer(
  context: GenerationContext,
  {
    found,
    sequence,
    stopTokens,
  }: { found: readonly Float32Array[]; sequence: Sequence; stopTokens: readonly number[] },
): Promise<number[]> {
  const { prompt, answer } = sequence
  const chosen = found.map((logits) => greedy(logits))
  const different = chosen.findIndex((token, i) => token !== answer[i])
  if (different < 0) return [...answer]
  const tokens = chosen.slice(0, different + 1)
  rewind(context, prompt.ids.length + different)
  for (let last = tokens.at(-1); last !== undefined && !stopTokens.includes(last) && tokens.length < longestAnswer; ) {
    last = greedy(await readToken(context, last))
    tokens.push(last)
  }
  return tokens
}

export function compare(
  exact: readonly Float32Array[],
  found: readonly Float32Array[],
): Pick<Quality, 'divergence' | 'uncertainty' | 'agreement'> {
  const count = exact.length
  const divergences = exact.map((logits, position) => divergenceOf(logits, found[position] ?? new Float32Array()))
  const same = exact.filter((logits, position) => greedy(logits) === greedy(found[position] ?? new Float32Array()))
  const mean = divergences.reduce((sum, value) => sum + value, 0) / count
  const variance = divergences.reduce((sum, value) => sum + (value - mean) ** 2, 0) / count
  return { divergence: mean, uncertainty: Math.sqrt(variance / count), agreement: same.length / count }
}

function divergenceOf(exact: Float32Array, found: Float32Array): number {
  const [p, q] = [logSoftmax(exact), logSoftmax(found)]
  return p.reduce((sum, value, i) => sum + Math.exp(value) * (value - (q[i] ?? Number.NaN)), 0)
}

function logSoftmax(logits: Float32Array): Float64Array {
  const most = logits.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const sum = logits.reduce((total, value) => total + Math.exp(value - most), 0)
  return Float64Array.from(logits, (value) => value - most - Math.log(sum))
}
