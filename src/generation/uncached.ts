/**
 * The naive twin of cached generation: the whole sequence is computed again for every token, with a causal mask and
 * no cache. Slow and obvious; tests hold the fast path against it, and `trace` looks inside it.
 */

import type { LlavaConfig } from '../model/config.ts'
import { languageModel, logits } from '../model/language-model.ts'
import { mergedSequence } from '../model/llava.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { disposeSession, run } from '../runtime/session.ts'
import { causalMask, input, type Tensor } from '../tensor/index.ts'
import { type CompiledModel, compileGraph, type RunLimits, weightSource } from './compiled-model.ts'
import { encodePicture } from './encode-picture.ts'
import { type EncodedPicture, sequenceInputs } from './language-inputs.ts'
import type { Prompt } from './prompt.ts'
import { greedy } from './sampling.ts'

/** Float32 values with their shape. */
export type Values = { readonly shape: readonly number[]; readonly data: Float32Array }

/** Graph of a whole sequence: ids [1, L] and visual tokens → merged embeddings, hidden states by layer, logits [1, L, V]. */
export function wholeGraph(model: Pick<CompiledModel, 'config' | 'precision' | 'device'>): Record<string, Tensor> {
  const { config } = model
  const { language } = config
  const weights = weightSource(model, 'prompt')
  const ids = input('ids', 'int64', [1, 'L'])
  const pictures = {
    tokens: input('visualTokens', 'float32', ['M', language.width]),
    places: input('places', 'int64', ['M']),
  }
  const embeddings = mergedSequence(config, weights, { ids, pictures }) // [1, L, D]
  const positions = input('positions', 'int64', [1, 'L'])
  const context = { kind: 'whole', positions, mask: input('mask', 'float32', ['L', 'L']) } as const
  const { hidden, hiddenStates } = languageModel(language, weights, { embeddings, context })
  const named = hiddenStates.map((state, layer) => [`hiddenStates.${layer}`, state] as const)
  return {
    mergedEmbeddings: embeddings,
    ...Object.fromEntries(named),
    logits: logits(language, weights, hidden), // [1, L, V]
  }
}

/** Inputs of `wholeGraph` for a prompt whose pictures have been encoded; the caller disposes of them. */
export function wholeInputs(
  config: LlavaConfig,
  sequence: { ids: Int32Array; pictures: readonly EncodedPicture[] },
): Record<string, ResidentTensor> {
  const L = sequence.ids.length
  const mask = causalMask(L)
  return {
    ...sequenceInputs(config, sequence),
    positions: residentTensor('int64', [1, L], { data: BigInt64Array.from({ length: L }, (_, i) => BigInt(i)) }),
    mask: residentTensor('float32', [L, L], { data: mask }),
  }
}

/** Greedy tokens after a prompt, each with the logits [V] it was chosen from. */
export async function generateUncached(
  model: CompiledModel,
  prompt: Prompt,
  { maxTokens, signal }: RunLimits & { maxTokens: number },
): Promise<{ token: number; logits: Float32Array }[]> {
  const { logits } = wholeGraph(model)
  if (logits === undefined) throw new Error('The graph of a whole sequence has no logits')
  const session = await compileGraph({ logits }, { name: 'whole', ...model })
  const pictures = await Promise.all(
    prompt.pictures.map(async (picture) => ({
      ...picture,
      visualTokens: (await encodePicture(model, picture, { signal })).visualTokens,
    })),
  )
  const chosen: { token: number; logits: Float32Array }[] = []
  try {
    for (let ids = prompt.ids; chosen.length < maxTokens; ) {
      const inputs = wholeInputs(model.config, { ids, pictures })
      const { logits } = await run(session, inputs, { signal })
      const { vocabulary: V } = model.config.language
      const last = Float32Array.from(logits?.data as Float32Array).slice(-V)
      const token = greedy(last)
      chosen.push({ token, logits: last })
      ids = Int32Array.from([...ids, token])
      for (const tensor of [...Object.values(inputs), logits]) if (tensor !== undefined) disposeTensor(tensor)
    }
    return chosen
  } finally {
    await disposeSession(session)
  }
}
