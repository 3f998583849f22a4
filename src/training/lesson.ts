/** What a recipe means once its files are open: the objective, the starting weights, the samples and how they are encoded. */

import { hashOf } from '../checkpoint/array-file.ts'
import { expectedTensors } from '../checkpoint/layouts.ts'
import { loadConfig, loadImageProcessor, type Weights } from '../checkpoint/load.ts'
import type { LoraAdapter } from '../checkpoint/lora.ts'
import { findTemplate } from '../conversation/templates.ts'
import { encodeText, type Tokenizer } from '../conversation/tokenizer.ts'
import { readTokenizer } from '../generation/model-folder.ts'
import type { ImageProcessorConfig } from '../image/preprocess.ts'
import type { SampleSource } from '../instruction-data/sample.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { WeightSource } from '../model/weights.ts'
import type { Compute } from '../runtime/device.ts'
import type { ResidentTensor } from '../runtime/resident-tensor.ts'
import { type AdapterDropout, planDropout } from './adapter-dropout.ts'
import { type Batch, disposeBatch, makeBatch } from './batch-maker.ts'
import type { Encoding } from './batches.ts'
import { type ContrastSettings, contrastSettings } from './contrast-settings.ts'
import { type FeatureCache, openFeatureCache } from './feature-cache.ts'
import { objectiveOf } from './lesson-objective.ts'
import { adaptedLayers, learnedAdapter, learningPart } from './lora.ts'
import type { Objective } from './objectives.ts'
import { viewsPerRow } from './packing.ts'
import { createPictureEncoder } from './picture-encoder.ts'
import { mostViews } from './picture-plan.ts'
import type { Recipe } from './recipe.ts'
import { openSource } from './sources.ts'
import { type Stage, stages } from './stages.ts'
import { type StartingValue, startingValues } from './start.ts'

export type Lesson = {
  readonly recipe: Recipe
  readonly stage: Stage
  readonly config: LlavaConfig
  readonly processor: ImageProcessorConfig
  readonly source: SampleSource
  /** Undefined when the lesson has no conversations. */
  readonly encoding: Encoding | undefined
  /** Undefined when the lesson has no captions. */
  readonly captions: { readonly tokenizer: Tokenizer; readonly settings: ContrastSettings } | undefined
  /** Tokens that stand for a picture, or for a view of it: P, or fewer words. */
  readonly pictureTokens: number
  /** Whether rows may have any number of pictures and views, or are packed: then each position looks up its embedding. */
  readonly gathers: boolean
  /** Views that a batch of the graph has room for: one a row unless it gathers. */
  readonly viewSlots: number
  /** Token ids of the source's label names: the words of a picture written in words. */
  readonly wordIds: readonly number[]
  /** What is dropped on the way into adapters while learning. */
  readonly dropout: AdapterDropout | undefined
  /** For batches of the recipe's length, unless told of a shorter one. */
  readonly objective: (weights: WeightSource, options?: { length?: number }) => Objective
  readonly groupOf: (name: string) => string | undefined
  readonly startingValue: StartingValue
  /** Pixels [3, S, S] of any number of pictures → patch features [P, C] of each, by the frozen encoder. */
  readonly encodePictures: (pictures: readonly Float32Array[]) => Promise<Float32Array[]>
  /** Features that were computed before, if the recipe keeps them. */
  readonly featureCache: FeatureCache | undefined
  readonly validationBatches: () => Promise<readonly Batch[]>
  /** All weights of the model: those of the run, and what it started from for parts that its graph does not hold. */
  readonly wholeModel: (weights: ReadonlyMap<string, ResidentTensor<'float32'>>) => Weights
  /** What the run learned, apart from what it started from; undefined without LoRA. */
  readonly adapter: (weights: ReadonlyMap<string, ResidentTensor<'float32'>>) => LoraAdapter | undefined
  readonly dispose: () => Promise<void>
}

export async function openLesson(recipe: Recipe, { device, threads }: Compute = {}): Promise<Lesson> {
  const stage = stages[recipe.stage]
  const config = await loadConfig(recipe.model)
  expectTeachable(recipe, config)
  const layers = adaptedLayers(recipe, config)
  const processor = await loadImageProcessor(recipe.model)
  const { tokenizer, ...texts } = await readTexts(recipe, config)
  const startingValue = await startingValues(recipe, { config, contrast: texts.captions?.settings })
  const source = await openSource(recipe.data, { config, split: 'train', seed: recipe.seed })
  const labelNames = labelsOf(source, recipe)
  const room = roomFor(recipe, { config, processor, pictureTokens: texts.pictureTokens })
  const encoder =
    stage.pictures === 'features'
      ? await createPictureEncoder(config, {
          startingValue,
          batch: recipe.featureCache === undefined ? recipe.batch : 1, // kept features must not depend on their company
          device,
          threads,
        })
      : undefined
  const dropout = planDropout(layers, {
    config,
    rate: recipe.lora?.dropout,
    rows: Math.max(recipe.batch * recipe.length, room.viewSlots * (config.visualTokens + 1)), // + 1: the class token
  })
  const contrast = texts.captions?.settings
  const { pictureTokens } = texts
  let validation: Promise<readonly Batch[]> | undefined
  const lesson: Lesson = {
    recipe,
    stage,
    config,
    processor,
    source,
    ...texts,
    ...room,
    wordIds:
      tokenizer && (stage.pictures === 'words' || stage.objective === 'picture-words')
        ? wordTokens(labelNames, tokenizer)
        : [],
    dropout,
    objective: objectiveOf(recipe, {
      config,
      layers,
      dropout,
      contrast,
      pictureTokens,
      labels: labelNames.length,
      ...room,
    }),
    groupOf: (name) => learningPart(name, { rates: recipe.rates, layers }),
    startingValue,
    encodePictures: async (pictures) => {
      if (encoder === undefined) throw new Error('This stage encodes pictures inside its training step')
      return encoder.encode(pictures)
    },
    featureCache:
      encoder !== undefined && recipe.featureCache !== undefined
        ? openFeatureCache(recipe.featureCache, {
            fingerprint: hashOf(encoder.fingerprint() + JSON.stringify(processor)),
            shape: [config.visualTokens, config.vision.width],
          })
        : undefined,
    validationBatches: () => {
      validation ??= drawValidation(lesson)
      return validation
    },
    wholeModel: (weights) =>
      new Map(
        [...expectedTensors(config)].map(([name, shape]) => {
          const data = weights.get(name)?.data
          return [name, { shape, data: data?.slice() ?? startingValue({ name, shape }) }]
        }),
      ),
    adapter: (weights) => learnedAdapter({ recipe, layers }, { trained: weights, model: lesson.wholeModel(weights) }),
    dispose: async () => {
      const drawn = await validation?.catch(() => [])
      drawn?.forEach(disposeBatch)
      await encoder?.dispose()
    },
  }
  return lesson
}

/** @throws RangeError when this model cannot be taught by this stage */
function expectTeachable(recipe: Recipe, config: LlavaConfig): void {
  const { objective } = stages[recipe.stage]
  if (config.tiles !== undefined && objective !== 'answers') {
    throw new RangeError(
      `Cannot train ${recipe.name}: stage ${recipe.stage} sees a picture in one view, and the model cuts pictures into tiles, expected a stage in which it answers`,
    )
  }
  if (config.imageToken < 0) {
    throw new RangeError(
      `Cannot train ${recipe.name}: the model's vocabulary has no image token, without which it could not be saved, expected a model in Hugging Face's layout`,
    )
  }
  if (objective === 'answers' && recipe.length > config.language.context) {
    throw new RangeError(
      `Cannot train ${recipe.name}: found length ${recipe.length}, expected at most the ${config.language.context} tokens of the model's context`,
    )
  }
}

/** How the stage's conversations or captions become tokens, where it has any. */
async function readTexts(
  recipe: Recipe,
  config: LlavaConfig,
): Promise<Pick<Lesson, 'encoding' | 'captions' | 'pictureTokens'> & { tokenizer: Tokenizer | undefined }> {
  const { objective, pictures } = stages[recipe.stage]
  const pictureTokens = pictures === 'words' ? (recipe.words ?? config.visualTokens) : config.visualTokens
  const none = { encoding: undefined, captions: undefined, pictureTokens, tokenizer: undefined }
  if (objective === 'patch-labels') return none
  const { tokenizer } = await readTokenizer(recipe.model)
  if (objective === 'answers') {
    const template = findTemplate(recipe.template)
    const { imageToken } = config
    const encoding = { tokenizer, template, imageToken, pictureTokens, length: recipe.length }
    return { ...none, tokenizer, encoding }
  }
  if (objective !== 'captions') return { ...none, tokenizer }
  return { ...none, tokenizer, captions: { tokenizer, settings: contrastSettings(config, recipe) } }
}

/** @throws RangeError when the stage learns from labelled patches and the source has none */
function labelsOf(source: SampleSource, recipe: Recipe): readonly string[] {
  const { objective } = stages[recipe.stage]
  const names = source.labels?.names ?? []
  if (objective === 'answers' || objective === 'captions' || names.length > 0) return names
  throw new RangeError(
    `Cannot train ${recipe.name}: stage ${recipe.stage} needs labelled patches, which its data does not have`,
  )
}

/** How many views a batch has room for, and whether its rows look up their embeddings. */
function roomFor(
  recipe: Recipe,
  { config, processor, pictureTokens }: Pick<Lesson, 'config' | 'processor' | 'pictureTokens'>,
): Pick<Lesson, 'gathers' | 'viewSlots'> {
  const { objective, pictures } = stages[recipe.stage]
  const views =
    objective === 'answers' && pictures !== 'words'
      ? Math.min(recipe.views ?? Number.POSITIVE_INFINITY, mostViews(processor, { pictures: recipe.pictures ?? 1 }))
      : 1
  return {
    gathers: objective === 'answers' && (recipe.pack === true || config.tiles !== undefined || views > 1),
    viewSlots: recipe.batch * (recipe.pack ? viewsPerRow({ length: recipe.length, pictureTokens, views }) : views),
  }
}

/** The recipe's validation samples, drawn once: always the same ones, and none of them trained on. */
async function drawValidation(lesson: Lesson): Promise<readonly Batch[]> {
  const { recipe, config } = lesson
  const source = await openSource(recipe.data, { config, split: 'iid', seed: recipe.seed })
  const batches: Batch[] = []
  for (let number = 0; number < (recipe.validate?.batches ?? 0); number++) {
    const position = batches.at(-1)?.position ?? { cursor: 0, skipped: 0 }
    batches.push(await makeBatch(lesson, { source, position, parts: 1 }))
  }
  return batches
}

function wordTokens(names: readonly string[], tokenizer: Tokenizer): number[] {
  const ids = names.map((name) => encodeText(tokenizer, ` ${name}`, { continuation: true }))
  const long = names.filter((_, index) => ids[index]?.length !== 1)
  if (long.length > 0) {
    throw new RangeError(`Cannot write pictures in words: ${long.join(', ')} are not one token each in this tokenizer`)
  }
  return ids.map(([id = 0]) => id)
}
