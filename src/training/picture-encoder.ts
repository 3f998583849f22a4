/** The frozen vision encoder of a lesson: pictures pass it outside of the training graph. */

import { createHash } from 'node:crypto'
import type { LlavaConfig } from '../model/config.ts'
import { patchFeatures } from '../model/vision-encoder.ts'
import { parameters } from '../model/weights.ts'
import { type Compute, operatorsOf } from '../runtime/device.ts'
import { disposeTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run } from '../runtime/session.ts'
import { input, writeOnnx } from '../tensor/index.ts'
import { stacked } from './batches.ts'

export type PictureEncoder = {
  /** Pixels [3, S, S] of any number of pictures → patch features [P, C] of each. */
  readonly encode: (pictures: readonly Float32Array[]) => Promise<Float32Array[]>
  /** Changes with every weight and setting that features depend on. */
  readonly fingerprint: () => string
  readonly dispose: () => Promise<void>
}

type EncoderOptions = Compute & {
  startingValue: (weight: { name: string; shape: readonly number[] }) => Float32Array
  /** Pictures that are encoded at once. */
  batch: number
}

export async function createPictureEncoder(
  config: LlavaConfig,
  { startingValue, batch, device, threads }: EncoderOptions,
): Promise<PictureEncoder> {
  const side = config.vision.imageSide
  const pixels = input('pixels', 'float32', [batch, 3, side, side])
  const graph = writeOnnx(
    { features: patchFeatures(config, parameters, pixels) },
    {
      parameters: 'initializers',
      name: 'vision encoder',
      operators: operatorsOf(device),
    },
  )
  const initializers = Object.fromEntries(
    graph.parameters.map(({ name, shape }) => {
      const sizes = shape.map(Number)
      return [name, residentTensor('float32', sizes, { data: startingValue({ name, shape: sizes }) })]
    }),
  )
  const session = await createSession(graph.model, { device, threads, initializers })
  const encodeBatch = async (pictures: readonly Float32Array[]) => {
    const given = stacked(pictures, { shape: [3, side, side], count: batch }) // [batch, 3, S, S]
    const { features } = await run(session, { pixels: given }).finally(() => disposeTensor(given))
    if (features === undefined) throw new Error('The vision encoder returned no features')
    const data = features.data as Float32Array // [batch, P, C]
    const size = data.length / batch
    const results = pictures.map((_, index) => data.slice(index * size, (index + 1) * size))
    disposeTensor(features)
    return results
  }
  return {
    encode: async (pictures) => {
      const results: Float32Array[] = []
      for (let at = 0; at < pictures.length; at += batch) {
        results.push(...(await encodeBatch(pictures.slice(at, at + batch))))
      }
      return results
    },
    fingerprint: () => {
      const { vision, featureLayer, featureSelect } = config
      const hash = createHash('sha256').update(JSON.stringify({ vision, featureLayer, featureSelect }))
      for (const [name, { shape, data }] of Object.entries(initializers)) {
        hash.update(JSON.stringify([name, shape])).update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength))
      }
      return hash.digest('hex')
    },
    dispose: () => disposeSession(session),
  }
}
