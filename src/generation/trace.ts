/** Every intermediate of one prompt by name, for comparison with other implementations stage by stage. */

import { disposeTensor } from '../runtime/resident-tensor.ts'
import { disposeSession, run } from '../runtime/session.ts'
import { type CompiledModel, compileGraph, type RunLimits } from './compiled-model.ts'
import { expectFits } from './context.ts'
import { encodePicture } from './encode-picture.ts'
import { joined } from './joined.ts'
import type { EncodedPicture } from './language-inputs.ts'
import { countVisualTokens, type Prompt } from './prompt.ts'
import { type Values, wholeGraph, wholeInputs } from './uncached.ts'

/**
 * Runs the whole prompt once, without a cache. By name:
 * `ids` [1, L] as numbers, `pixels` [J, 3, S, S] of all views of all pictures in order, `patchFeatures` [J, P, C] of the layer that the config
 * selects, `visualTokens` [M, D] of all pictures,
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
  const { pictures } = prompt
  const values = new Map<string, Values>()
  values.set('ids', { shape: [1, prompt.ids.length], data: Float32Array.from(prompt.ids) })

  const encoded: (EncodedPicture & { patchFeatures: Float32Array })[] = []
  for (const picture of pictures) {
    const { visualTokens, patchFeatures } = await encodePicture(model, picture, { signal, features: true })
    encoded.push({ ...picture, visualTokens, patchFeatures: patchFeatures ?? new Float32Array() })
  }
  if (pictures.length > 0) {
    const S = vision.imageSide
    const J = pictures.reduce((sum, { views }) => sum + views, 0)
    values.set('pixels', { shape: [J, 3, S, S], data: joined(pictures.map(({ pixels }) => pixels)) })
    const features = joined(encoded.map(({ patchFeatures }) => patchFeatures))
    values.set('patchFeatures', { shape: [J, P, vision.width], data: features })
    const tokens = joined(encoded.map(({ visualTokens }) => visualTokens))
    values.set('visualTokens', { shape: [countVisualTokens(pictures), language.width], data: tokens })
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
