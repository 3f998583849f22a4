/**
 * A CLIP or SigLIP folder, read whole and ready to run: three compiled graphs over one set of weights.
 *
 *     pictures   pixels → unit picture embeddings
 *     texts      token ids → unit text embeddings
 *     compare    both → cosines and logits
 */

import type { Weights } from '../checkpoint/load.ts'
import { loadClipWeights } from '../checkpoint/load-clip.ts'
import { type ClipTokenizer, encodeClipTexts, loadClipTokenizer } from '../conversation/clip-tokenizer.ts'
import { type ImageProcessorConfig, readImageProcessorConfig } from '../image/processor-config.ts'
import { pictureEmbeddings, similarityLogits, unitLength } from '../model/clip.ts'
import { type ClipConfig, parseClipConfig } from '../model/clip-config.ts'
import { isCausal, readingPlaces, textEmbeddings } from '../model/text-encoder.ts'
import { parameters } from '../model/weights.ts'
import type { Compute } from '../runtime/device.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { disposeSession, run, type Session } from '../runtime/session.ts'
import { causalMask, input, matmul, type Tensor } from '../tensor/index.ts'
import { compileGraph, type RunLimits } from './compiled-model.ts'
import { take } from './language-calls.ts'
import { expectFolder, explain, readOptional, readPart } from './model-folder.ts'

export type ClipFolder = {
  readonly config: ClipConfig
  readonly weights: Weights
  readonly tokenizer: ClipTokenizer
  readonly imageProcessor: ImageProcessorConfig
}

/**
 * Reads config.json, model.safetensors (or its shards), tokenizer.json and preprocessor_config.json, and tokenizer_config.json where it is there.
 * @throws Error, SyntaxError, TypeError or RangeError, always one sentence that names the folder and the file
 */
export async function readClipFolder(folder: string, { signal }: RunLimits = {}): Promise<ClipFolder> {
  await expectFolder(folder)
  const config = await readPart(folder, 'config.json', parseClipConfig)
  const tokenizerConfig = await readOptional(folder, 'tokenizer_config.json', (json) => json)
  const tokenizer = await readPart(folder, 'tokenizer.json', (tokenizerJson) => {
    const files = { tokenizerJson, ...(tokenizerConfig !== undefined && { tokenizerConfig }) }
    return loadClipTokenizer(files, { kind: config.kind, context: config.text.context })
  })
  if (tokenizer.vocabularySize > config.text.vocabulary) {
    throw new RangeError(
      `Cannot load the model ${folder}: tokenizer.json has ids up to ${tokenizer.vocabularySize - 1}, expected at most ${config.text.vocabulary - 1} as in config.json`,
    )
  }
  const imageProcessor = await readPart(folder, 'preprocessor_config.json', readImageProcessorConfig)
  signal?.throwIfAborted()
  const weights = await loadClipWeights(folder, config).catch((error: unknown) =>
    explain(folder, { file: 'its weights', error }),
  )
  return { config, weights, tokenizer, imageProcessor }
}

export type ClipModel = {
  readonly config: ClipConfig
  readonly weights: ReadonlyMap<string, ResidentTensor<'float32'>>
  readonly sessions: { readonly pictures: Session; readonly texts: Session; readonly compare: Session }
}

/** Compiles a model. The weights are used where they are, not copied: leave them unchanged. */
export async function compileClip(
  { config, weights }: Pick<ClipFolder, 'config' | 'weights'>,
  { threads, device, signal }: RunLimits & Compute = {},
): Promise<ClipModel> {
  const resident = new Map(
    [...weights].map(([name, { shape, data }]) => [name, residentTensor('float32', shape, { data })]),
  )
  const sessions: Session[] = []
  try {
    for (const [name, outputs] of Object.entries(graphsOf(config))) {
      signal?.throwIfAborted()
      sessions.push(await compileGraph(outputs, { name, weights: resident, threads, device }))
    }
    const [pictures, texts, compare] = sessions
    if (pictures === undefined || texts === undefined || compare === undefined) throw new Error('A graph is missing')
    return { config, weights: resident, sessions: { pictures, texts, compare } }
  } catch (error) {
    for (const session of sessions) await disposeSession(session)
    for (const tensor of resident.values()) disposeTensor(tensor)
    throw error
  }
}

/** Frees a model after the runs that still use it. Safe to repeat. */
export async function disposeClip({ sessions, weights }: ClipModel): Promise<void> {
  await Promise.all(Object.values(sessions).map(disposeSession))
  for (const tensor of weights.values()) disposeTensor(tensor)
}

/** Pictures or texts that are read at once: more would need more memory, not less time. */
const together = { pictures: 8, texts: 64 }

/** Pixels [3, S, S] of pictures → their unit embeddings [E]. */
export async function embedPictures(
  { config, sessions }: ClipModel,
  pictures: readonly Float32Array[],
  { signal }: RunLimits = {},
): Promise<Float32Array[]> {
  const { imageSide: S } = config.vision
  return inGroups(pictures, together.pictures, async (group) => {
    const data = new Float32Array(group.length * 3 * S * S)
    group.forEach((pixels, index) => {
      if (pixels.length !== 3 * S * S) {
        throw new RangeError(
          `Cannot read a picture of ${pixels.length} values: expected ${3 * S * S} (3 x ${S} x ${S})`,
        )
      }
      data.set(pixels, index * pixels.length)
    })
    const given = { pixels: residentTensor('float32', [group.length, 3, S, S], { data }) }
    return split(take(await runOnce(sessions.pictures, given, { signal }), 'embeddings'), group.length)
  })
}

/** Texts → their unit embeddings [E]. Errors: those of `encodeClipTexts`. */
export async function embedTexts(
  { config, sessions }: ClipModel,
  texts: readonly string[],
  { tokenizer, truncate = false, signal }: RunLimits & { tokenizer: ClipTokenizer; truncate?: boolean | undefined },
): Promise<Float32Array[]> {
  return inGroups(texts, together.texts, async (group) => {
    const ids = encodeClipTexts(tokenizer, group, { truncate })
    const given = textInputs(config, ids)
    return split(take(await runOnce(sessions.texts, given, { signal }), 'embeddings'), group.length)
  })
}

/** Unit embeddings of pictures and texts → the cosine and the logit of each pair: [I·N] each, picture by picture. */
export async function comparePairs(
  { config, sessions }: ClipModel,
  embeddings: { pictures: readonly Float32Array[]; texts: readonly Float32Array[] },
): Promise<{ cosines: Float32Array; logits: Float32Array }> {
  const given = {
    pictures: stackedEmbeddings(embeddings.pictures, config.embeddingWidth),
    texts: stackedEmbeddings(embeddings.texts, config.embeddingWidth),
  }
  const found = await runOnce(sessions.compare, given)
  return { cosines: take(found, 'cosines'), logits: take(found, 'logits') }
}

/** What the text graph is given for texts of T ids each. */
export function textInputs(
  { text }: Pick<ClipConfig, 'text'>,
  ids: readonly (readonly number[])[],
): Record<string, ResidentTensor> {
  const [T, N] = [ids[0]?.length ?? 0, ids.length]
  return {
    ids: residentTensor('int64', [N, T], { data: BigInt64Array.from(ids.flat(), BigInt) }),
    positions: residentTensor('int64', [T], { data: BigInt64Array.from({ length: T }, (_, i) => BigInt(i)) }),
    places: residentTensor('int64', [N], { data: BigInt64Array.from(readingPlaces(text, ids), BigInt) }),
    ...(isCausal(text) && { mask: residentTensor('float32', [T, T], { data: causalMask(T) }) }),
  }
}

function graphsOf(config: ClipConfig): Record<keyof ClipModel['sessions'], Record<string, Tensor>> {
  const { vision, text, embeddingWidth: E } = config
  const S = vision.imageSide
  const pictures = pictureEmbeddings(config, parameters, input('pixels', 'float32', ['I', 3, S, S])) // [I, E]
  const texts = textEmbeddings(text, parameters, {
    ids: input('ids', 'int64', ['N', 'T']),
    positions: input('positions', 'int64', ['T']),
    places: input('places', 'int64', ['N']),
    mask: isCausal(text) ? input('mask', 'float32', ['T', 'T']) : undefined,
  }) // [N, E]
  const both = { pictures: input('pictures', 'float32', ['I', E]), texts: input('texts', 'float32', ['N', E]) }
  return {
    pictures: { embeddings: unitLength(pictures) },
    texts: { embeddings: unitLength(texts) },
    compare: {
      cosines: matmul(both.pictures, both.texts, { transposeB: true }), // [I, N]
      logits: similarityLogits(config, parameters, both),
    },
  }
}

async function runOnce(
  session: Session,
  given: Record<string, ResidentTensor>,
  { signal }: RunLimits = {},
): Promise<Record<string, ResidentTensor>> {
  return run(session, given, { signal }).finally(() => Object.values(given).forEach(disposeTensor))
}

function stackedEmbeddings(vectors: readonly Float32Array[], E: number): ResidentTensor {
  const data = new Float32Array(vectors.length * E)
  vectors.forEach((vector, index) => {
    data.set(vector, index * E)
  })
  return residentTensor('float32', [vectors.length, E], { data })
}

async function inGroups<T>(
  items: readonly T[],
  size: number,
  work: (group: readonly T[]) => Promise<Float32Array[]>,
): Promise<Float32Array[]> {
  const results: Float32Array[] = []
  for (let at = 0; at < items.length; at += size) results.push(...(await work(items.slice(at, at + size))))
  return results
}

function split(values: Float32Array, count: number): Float32Array[] {
  const size = values.length / count
  return Array.from({ length: count }, (_, index) => values.slice(index * size, (index + 1) * size))
}
