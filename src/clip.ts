/** The library's second front door: which of some texts goes with a picture, by CLIP or SigLIP. */

import {
  comparePairs,
  compileClip,
  disposeClip,
  embedPictures,
  embedTexts,
  readClipFolder,
} from './generation/clip-model.ts'
import { findModel } from './generation/find-model.ts'
import { decodeImage, type ImageSource } from './image/decode.ts'
import { preprocess } from './image/preprocess.ts'
import type { LoadOptions } from './llava.ts'
import type { ClipConfig } from './model/clip-config.ts'

type Limits = {
  /** Cuts texts that are longer than the model reads, instead of refusing them. */
  readonly truncate?: boolean | undefined
  readonly signal?: AbortSignal | undefined
}

export type ClassifyOptions = Limits & {
  /** Paths, file URLs, the bytes of encoded pictures, or pixels. */
  readonly images: readonly ImageSource[]
  readonly labels: readonly string[]
  /** The text that is made of each label, with `{}` for the label: `This is a photo of {}.` unless told. */
  readonly template?: string | undefined
}

export type Classification = {
  readonly label: string
  /** What the model read. */
  readonly text: string
  /** CLIP: among the labels, all together 1. SigLIP: of this label by itself. */
  readonly probability: number
  /** Cosine of the angle between picture and text, −1 to 1. */
  readonly similarity: number
}

/** A loaded CLIP or SigLIP model. Free it with `dispose` or `await using`. */
export type Clip = {
  readonly config: ClipConfig
  /** Zero-shot classification: for each picture, how well each label goes with it, in the order of the labels. */
  classify(options: ClassifyOptions): Promise<Classification[][]>
  /** The cosine of each picture (first index) with each text (second index). */
  similarity(options: Limits & { images: readonly ImageSource[]; texts: readonly string[] }): Promise<number[][]>
  /** Embeddings [E] of length 1. */
  embedImages(images: readonly ImageSource[], options?: Pick<Limits, 'signal'>): Promise<Float32Array[]>
  /** Embeddings [E] of length 1. */
  embedTexts(texts: readonly string[], options?: Limits): Promise<Float32Array[]>
  /** Frees the model after what is still running. Safe to repeat. */
  dispose(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/** The text that transformers' zero-shot pipeline makes of a label. */
export const defaultTemplate = 'This is a photo of {}.'

export const Clip = {
  /**
   * Loads a CLIPModel or SiglipModel: a Hugging Face folder, or ORG/NAME that was pulled.
   * Of the options it knows `threads`, `device` and `signal`; the weights stay float32.
   * @throws Error when there is no such folder or a file of it is missing, SyntaxError, TypeError or RangeError when one is corrupt; always one
   *   sentence that names it. `signal.reason` when the signal fires
   */
  async load(nameOrFolder: string, { threads, device, signal }: LoadOptions = {}): Promise<Clip> {
    signal?.throwIfAborted()
    const { tokenizer, imageProcessor, ...parts } = await readClipFolder(await findModel(nameOrFolder), { signal })
    const model = await compileClip(parts, { threads, device, signal })
    const { config } = model
    const images = async (sources: readonly ImageSource[], { signal }: Pick<Limits, 'signal'> = {}) => {
      const pictures: Float32Array[] = []
      for (const source of sources) {
        const picture = await decodeImage(source, signal === undefined ? {} : { signal })
        pictures.push(preprocess(picture, imageProcessor).data)
      }
      return embedPictures(model, pictures, { signal })
    }
    const texts = (given: readonly string[], options: Limits = {}) =>
      embedTexts(model, given, { ...options, tokenizer })
    const compare = async (options: Limits & { images: readonly ImageSource[]; texts: readonly string[] }) =>
      comparePairs(model, {
        texts: await texts(options.texts, options), // before the pictures: a text that is too long is told at once
        pictures: await images(options.images, options),
      })
    let disposal: Promise<void> | undefined
    const dispose = () => {
      disposal ??= disposeClip(model)
      return disposal
    }
    return {
      config,
      async classify({ labels, template = defaultTemplate, ...options }) {
        const worded = labels.map((label) => wordLabel(label, template))
        const { cosines, logits } = await compare({ ...options, texts: worded })
        const similarities = inRows(cosines, labels.length)
        return inRows(logits, labels.length).map((row, image) => {
          const probabilities = probabilitiesOf(row, config)
          return labels.map((label, i) => ({
            label,
            text: worded[i] ?? '',
            probability: probabilities[i] ?? 0,
            similarity: similarities[image]?.[i] ?? 0,
          }))
        })
      },
      similarity: async (options) => inRows((await compare(options)).cosines, options.texts.length),
      embedImages: images,
      embedTexts: texts,
      dispose,
      [Symbol.asyncDispose]: dispose,
    }
  },
}

/** @throws RangeError for a template without a place for the label */
export function wordLabel(label: string, template: string): string {
  if (template.includes('{}')) return template.replaceAll('{}', () => label)
  throw new RangeError(
    `Cannot use the template ${JSON.stringify(template)}: found no {}, expected it in the place of the label`,
  )
}

/** What the logits of one picture mean: CLIP was trained to choose among texts, SigLIP to judge each pair. */
export function probabilitiesOf(logits: readonly number[], { kind }: Pick<ClipConfig, 'kind'>): number[] {
  if (kind === 'siglip') return logits.map((logit) => 1 / (1 + Math.exp(-logit)))
  const largest = Math.max(...logits)
  const weights = logits.map((logit) => Math.exp(logit - largest))
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  return weights.map((weight) => weight / total)
}

function inRows(values: Float32Array, width: number): number[][] {
  const count = width === 0 ? 0 : values.length / width
  return Array.from({ length: count }, (_, row) => [...values.slice(row * width, (row + 1) * width)])
}
