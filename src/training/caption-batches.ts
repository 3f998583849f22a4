/** From captions to the inputs of the contrastive lesson: texts of one length, which pairs are true, and what the captioner is to write. */

import { encodeText, type Tokenizer } from '../conversation/tokenizer.ts'
import type { Caption, Sample } from '../instruction-data/sample.ts'
import type { LlavaConfig } from '../model/config.ts'
import { readingPlaces } from '../model/text-encoder.ts'
import { type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import type { ContrastSettings } from './contrast-settings.ts'

/** Ids of a caption and of the false ones, each with start and end; what each false one changed. */
export type EncodedCaption = {
  readonly ids: readonly number[]
  readonly contrasts: readonly { readonly fact: string; readonly ids: readonly number[] }[]
}

/**
 * The caption of a sample, or its first answer, in tokens. False captions that are too long are left out.
 * @throws RangeError when the sample has no caption, or a longer one than T tokens
 */
export function encodeCaption(
  sample: Sample,
  { tokenizer, config, settings }: { tokenizer: Tokenizer; config: LlavaConfig; settings: ContrastSettings },
): EncodedCaption {
  const { text, contrasts } = captionOf(sample, settings.contrasts)
  const { bosToken, eosTokens } = config.language
  const surrounded = (text: string) => [
    ...(bosToken === undefined ? [] : [bosToken]),
    ...encodeText(tokenizer, text),
    ...eosTokens.slice(0, 1),
  ]
  const ids = surrounded(text)
  if (ids.length > settings.length) {
    throw new RangeError(
      `Cannot train on sample ${sample.id}: its caption has ${ids.length} tokens, expected at most ${settings.length}`,
    )
  }
  const encoded = contrasts.map((contrast) => ({ fact: contrast.fact, ids: surrounded(contrast.text) }))
  return { ids, contrasts: encoded.filter(({ ids }) => ids.length <= settings.length) }
}

function captionOf({ id, caption, turns }: Sample, contrasts: number): Caption {
  if (caption !== undefined) return caption(contrasts)
  const answer = turns.find(({ role }) => role === 'assistant')
  const text = answer?.content.flatMap((part) => (part.type === 'text' ? [part.text] : [])).join('') ?? ''
  if (text.trim() === '') throw new RangeError(`Cannot train on sample ${id}: it has neither caption nor answer`)
  return { text, contrasts: [] }
}

/**
 * Inputs of `contrastiveLoss` apart from the pixels. A caption that two pictures of the batch share is true of both; the place of a false caption that
 * is not there weighs nothing. `share` is what the weights of the captioner's targets sum to, and B times what those of a row of pairs do on average.
 */
export function captionInputs(
  captions: readonly EncodedCaption[],
  { config, settings, share }: { config: LlavaConfig; settings: ContrastSettings; share: number },
): Record<'texts' | 'textPlaces' | 'pairLabels' | 'pairWeights' | 'targets' | 'targetWeights', ResidentTensor> {
  const { contrasts: K, length: T, clip } = settings
  const B = captions.length
  const N = B * (1 + K)
  const end = config.language.eosTokens[0] ?? 0
  const pad = config.language.padToken ?? end
  const padded = (ids: readonly number[]) => [...ids, ...Array<number>(T - ids.length).fill(pad)]
  const missing = padded([end])
  const changed = captions.flatMap(({ contrasts }) => Array.from({ length: K }, (_, k) => contrasts[k]?.ids))
  const texts = [...captions.map(({ ids }) => ids), ...changed].map((ids) => (ids ? padded(ids) : missing)) // [N, T]
  const isThere = [...captions, ...changed].map((text) => text !== undefined)
  const keys = texts.map(String)
  const labels = new Float32Array(B * N).map((_, at) => (keys[at % N] === keys[Math.floor(at / N)] ? 1 : -1))
  const weights = new Float32Array(B * N).map((_, at) => (isThere[at % N] ? share / B : 0))

  const learned = captions.reduce((sum, { ids }) => sum + ids.length - 1, 0)
  const targets = new BigInt64Array(B * T)
  const targetWeights = new Float32Array(B * T)
  captions.forEach(({ ids }, b) => {
    for (let t = 0; t + 1 < ids.length; t++) {
      targets[b * T + t] = BigInt(ids[t + 1] ?? 0)
      targetWeights[b * T + t] = share / learned
    }
  })
  const integers = (values: readonly number[]) => BigInt64Array.from(values, BigInt)
  return {
    texts: residentTensor('int64', [N, T], { data: integers(texts.flat()) }),
    textPlaces: residentTensor('int64', [N], { data: integers(readingPlaces(clip.text, texts)) }),
    pairLabels: residentTensor('float32', [B, N], { data: labels }),
    pairWeights: residentTensor('float32', [B, N], { data: weights }),
    targets: residentTensor('int64', [B * T], { data: targets }),
    targetWeights: residentTensor('float32', [B * T], { data: targetWeights }),
  }
}
