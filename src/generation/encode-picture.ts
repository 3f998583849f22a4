/** From a picture's pixels to its visual tokens: its views through the vision encoder and the projector, then arranged as one sequence. */

import type { Arrangement } from '../model/arrangement.ts'
import type { LlavaConfig } from '../model/config.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { run, type Session } from '../runtime/session.ts'
import type { CompiledModel, RunLimits } from './compiled-model.ts'
import { joined } from './joined.ts'
import { take } from './language-calls.ts'
import type { PreparedPicture } from './prompt.ts'

/** Views that the vision encoder sees at once, which bounds the memory that a picture of many tiles takes. */
const viewsAtOnce = 4

/** Visual tokens [M, D] of a picture from its pixels [J, 3, S, S]; on request its patch features [J, P, C] too. */
export async function encodePicture(
  { config, sessions }: CompiledModel,
  { pixels, views, arrangement }: Pick<PreparedPicture, 'pixels' | 'views' | 'arrangement'>,
  { signal, features = false }: RunLimits & { features?: boolean } = {},
): Promise<{ visualTokens: Float32Array; patchFeatures: Float32Array | undefined }> {
  const fetch = features ? ['visualTokens', 'patchFeatures'] : ['visualTokens']
  const encoded: { tokens: Float32Array; features: Float32Array | undefined }[] = []
  for (let first = 0; first < views; first += viewsAtOnce) {
    const result = await encodeViews(sessions.encode, {
      config,
      pixels,
      first,
      count: Math.min(viewsAtOnce, views - first),
      fetch,
      signal,
    })
    encoded.push({
      tokens: take(result, 'visualTokens'),
      features: features ? take(result, 'patchFeatures') : undefined,
    })
  }
  const tokens = joined(encoded.map((part) => part.tokens)) // [J, P, D]
  return {
    visualTokens:
      arrangement === undefined
        ? tokens
        : await arrangeTokens({ config, sessions }, { tokens, views, arrangement, signal }),
    patchFeatures: features ? joined(encoded.map((part) => part.features ?? new Float32Array())) : undefined,
  }
}

async function encodeViews(
  session: Session,
  {
    config,
    pixels,
    first,
    count,
    fetch,
    signal,
  }: { config: LlavaConfig; pixels: Float32Array; first: number; count: number; fetch: string[] } & RunLimits,
): Promise<Readonly<Record<string, ResidentTensor>>> {
  const { imageSide: S } = config.vision
  const data = pixels.slice(first * 3 * S * S, (first + count) * 3 * S * S)
  const given = residentTensor('float32', [count, 3, S, S], { data })
  try {
    return await run(session, { pixels: given }, { fetch, signal })
  } finally {
    disposeTensor(given)
  }
}

/** Visual tokens [M, D] of a picture from those of its views [J, P, D]. */
async function arrangeTokens(
  { config, sessions }: Pick<CompiledModel, 'config' | 'sessions'>,
  { tokens, views, arrangement, signal }: { tokens: Float32Array; views: number; arrangement: Arrangement } & RunLimits,
): Promise<Float32Array> {
  if (sessions.arrange === undefined) throw new Error('Cannot arrange visual tokens: the model has no tiles')
  const inputs = {
    tokens: residentTensor('float32', [views, config.visualTokens, config.language.width], { data: tokens }),
    ...arrangementInputs(arrangement),
  }
  try {
    return take(await run(sessions.arrange, inputs, { fetch: ['visualTokens'], signal }), 'visualTokens')
  } finally {
    Object.values(inputs).forEach(disposeTensor)
  }
}

/** An arrangement as `arrange` wants to be told it. */
function arrangementInputs({ length: M, sources, shares }: Arrangement): Record<'sources' | 'shares', ResidentTensor> {
  const K = sources.length / M
  return {
    sources: residentTensor('int64', [K, M], { data: BigInt64Array.from(sources, BigInt) }),
    shares: residentTensor('float32', [K, M, 1], { data: shares }),
  }
}
