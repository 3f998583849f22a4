/** Every intermediate of one prompt by name, for comparison with other implementations stage by stage. */

import { disposeTensor } from '../runtime/resident-tensor.ts'
import { disposeSession, run } from '../runtime/session.ts'
import { type CompiledModel, compileGraph, encodePicture, type RunLimits } from './compiled-model.ts'
import { expectFits } from './context.ts'
import type { Prompt } from './prompt.ts'
import { type Values, wholeGraph, wholeInputs } from './uncached.ts'

/**
 * Runs the whole prompt once, without a cache. By name:
 * `ids` [1, L] as numbers, `pixels` [I, 3, S, S], `patchFeatures` [I, P, C] of the layer that the config selects, `visualTokens` [I, P, D],
 * `mergedEmbeddings` [1, L, D], `hiddenStates.0` (what enters the first block) to `hiddenStates.<depth>` [1, L, D], `logits` [1, L, V].
 * Without pictures the first three of pictures are left out.
 *
 * @throws RangeError when the prompt does not fit into the context, `signal.reason` when the signal fires
 */
export async function trace(
  model: CompiledModel,
  prompt: Prompt,
  { signal }: RunLimits = {},
): Promise<Map<string, Values>> {
  expectFits(prompt, model)
  const { vision, language, visualTokens: P } = model.config
  const I = prompt.pictures.length
  const values = new Map<string, Values>()
  values.set('ids', { shape: [1, prompt.ids.length], data: Float32Array.from(prompt.ids) })

  const encoded: { start: number; visualTokens: Float32Array; patchFeatures: Float32Array }[] = []
  for (const { start, pixels } of prompt.pictures) {
    const { visualTokens, patchFeatures } = await encodePicture(model, pixels, { signal, features: true })
    encoded.push({ start, visualTokens, patchFeatures: patchFeatures ?? new Float32Array() })
  }
  if (I > 0) {
    const S = vision.imageSide
    values.set('pixels', { shape: [I, 3, S, S], data: joined(prompt.pictures.map(({ pixels }) => pixels)) })
    const features = joined(encoded.map(({ patchFeatures }) => patchFeatures))
    values.set('patchFeatures', { shape: [I, P, vision.width], data: features })
    const tokens = joined(encoded.map(({ visualTokens }) => visualTokens))
    values.set('visualTokens', { shape: [I, P, language.width], data: tokens })
  }

  const session = await compileGraph(wholeGraph(model), { name: 'trace', ...model })
  const inputs = wholeInputs(model.config, { ids: prompt.ids, pictures: encoded })
  try {
    const outputs = await run(session, inputs, { signal })
    for (const [name, tensor] of Object.entries(outputs)) {
      if (tensor.data instanceof Float32Array) values.set(name, { shape: tensor.shape, data: tensor.data })
      disposeTensor(tensor)
    }
    return values
  } finally {
    Object.values(inputs).forEach(disposeTensor)
    await disposeSession(session)
  }
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(parts.reduce((length, part) => length + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}
