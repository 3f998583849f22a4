/** What a recipe means once its files are open: the objective, the starting weights, the samples and how they are encoded. */

import { hashOf } from '../checkpoint/array-file.ts'
import { expectedTensors } from '../checkpoint/layouts.ts'
import { loadConfig, loadImageProcessor, type Weights } from '../checkpoint/load.ts'
import { loadPart } from '../checkpoint/load-part.ts'
import type { LoraAdapter } from '../checkpoint/lora.ts'
import { findTemplate } from '../conversation/templates.ts'
import { encodeText, type Tokenizer } from '../conversation/tokenizer.ts'
import { findModel } from '../generation/find-model.ts'
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
import { contrastiveLoss } from './contrastive.ts'
import { type FeatureCache, openFeatureCache } from './feature-cache.ts'
import { initialWeight } from './initialization.ts'
import { adaptedLayers, adaptedWeights, isAdapter, learnedAdapter, learningPart } from './lora.ts'
import { answerLoss, gatheredAnswerLoss, type Objective, patchLabelLoss, pictureWordLoss } from './objectives.ts'
import { viewsPerRow } from './packing.ts'
import { createPictureEncoder } from './picture-encoder.ts'
import { mostViews } from './picture-plan.ts'
import type { Recipe } from './recipe.ts'
import { findCheckpoint, readState } from './run-checkpoint.ts'
import { openSource } from './sources.ts'
import { partOf, type Stage, stages } from './stages.ts'

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
  readonly startingValue: (weight: { name: string; shape: readonly number[] }) => Float32Array
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
  if (config.tiles !== undefined && stage.objective !== 'answers') {
    throw new RangeError(
      `Cannot train ${recipe.name}: stage ${recipe.stage} sees a picture in one view, and the model cuts pictures into tiles, expected a stage in which it answers`,
    )
  }
  if (config.imageToken < 0) {
    throw new RangeError(
      `Cannot train ${recipe.name}: the model's vocabulary has no image token, without which it could not be saved, expected a model in Hugging Face's layout`,
    )
  }
  const layers = adaptedLayers(recipe, config)
  const processor = await loadImageProcessor(recipe.model)
  const starts = await startingWeights(recipe, config)
  const source = await openSource(recipe.data, { config, split: 'train', seed: recipe.seed })
  const labelNames = source.labels?.names ?? []
  const pictureTokens = stage.pictures === 'words' ? (recipe.words ?? config.visualTokens) : config.visualTokens
  const tokenizer = stage.objective === 'patch-labels' ? undefined : (await readTokenizer(recipe.model)).tokenizer
  const encoding =
    stage.objective === 'answers' && tokenizer !== undefined
      ? {
          tokenizer,
          template: findTemplate(recipe.template),
          imageToken: config.imageToken,
          pictureTokens,
          length: recipe.length,
        }
      : undefined
  const captions =
    stage.objective === 'captions' && tokenizer !== undefined
      ? { tokenizer, settings: contrastSettings(config, recipe) }
      : undefined
  if (encoding !== undefined && recipe.length > config.language.context) {
    throw new RangeError(
      `Cannot train ${recipe.name}: found length ${recipe.length}, expected at most the ${config.language.context} tokens of the model's context`,
    )
  }
  if (stage.objective !== 'answers' && stage.objective !== 'captions' && labelNames.length === 0) {
    throw new RangeError(
      `Cannot train ${recipe.name}: stage ${recipe.stage} needs labelled patches, which its data does not have`,
    )
  }

  const startingValue = ({ name, shape }: { name: string; shape: readonly number[] }) => {
    const known = starts.get(name)
    if (known === undefined) {
      return initialWeight(
        { name: name.replace(/^captioner\./, ''), shape },
        { seed: recipe.seed, depth: depthOf(name) },
      )
    }
    const size = shape.reduce((product, dim) => product * dim, 1)
    if (known.length !== size) {
      throw new RangeError(
        `Cannot start ${name} from ${known.length} values: expected ${size} for shape [${shape.join(', ')}]`,
      )
    }
    return known.slice()
  }
  const depthOf = (name: string) => {
    const { clip, captioner } = captions?.settings ?? {}
    const towers = { visionEncoder: config.vision, textEncoder: clip?.text, captioner: captioner?.language }
    return (towers[partOf(name) as keyof typeof towers] ?? config.language).depth
  }
  const encoder =
    stage.pictures === 'features'
      ? await createPictureEncoder(config, {
          startingValue,
          batch: recipe.featureCache === undefined ? recipe.batch : 1, // kept features must not depend on their company
          device,
          threads,
        })
      : undefined
  const views =
    stage.objective === 'answers' && stage.pictures !== 'words'
      ? Math.min(recipe.views ?? Number.POSITIVE_INFINITY, mostViews(processor, { pictures: recipe.pictures ?? 1 }))
      : 1
  const gathers = stage.objective === 'answers' && (recipe.pack === true || config.tiles !== undefined || views > 1)
  const viewSlots = recipe.batch * (recipe.pack ? viewsPerRow({ length: recipe.length, pictureTokens, views }) : views)

  const dropout = planDropout(layers, {
    config,
    rate: recipe.lora?.dropout,
    rows: Math.max(recipe.batch * recipe.length, viewSlots * (config.visualTokens + 1)), // + 1: the class token
  })
  const lossOf = (weights: WeightSource, length: number): Objective => {
    const { batch, checkpointing } = recipe
    if (captions !== undefined) {
      return contrastiveLoss(config, weights, { batch, settings: captions.settings, checkpointing })
    }
    if (stage.objective === 'picture-words') return pictureWordLoss(config, weights, { batch })
    if (stage.objective === 'patch-labels') {
      return patchLabelLoss(config, weights, {
        batch,
        labels: labelNames.length,
        checkpointing,
      })
    }
    const options = { batch, length, form: stage.pictures, pictureTokens, checkpointing }
    return gathers
      ? gatheredAnswerLoss(config, weights, { ...options, views: viewSlots, packed: recipe.pack === true })
      : answerLoss(config, weights, options)
  }

  let validation: Promise<readonly Batch[]> | undefined
  const lesson: Lesson = {
    recipe,
    stage,
    config,
    processor,
    source,
    encoding,
    captions,
    pictureTokens,
    gathers,
    viewSlots,
    wordIds:
      tokenizer && (stage.pictures === 'words' || stage.objective === 'picture-words')
        ? wordTokens(labelNames, tokenizer)
        : [],
    dropout,
    objective: (base, { length = recipe.length } = {}) => {
      const plain = lossOf(adaptedWeights(base, { lora: recipe.lora, layers }), length)
      if (dropout === undefined) return plain
      return { ...plain, learned: lossOf(adaptedWeights(base, { lora: recipe.lora, layers, dropout }), length).loss }
    },
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

/**
 * Weights of each part from where the recipe says: a run folder (its newest checkpoint), its `best` one, or a model, a folder or ORG/NAME that was
 * pulled, which may hold that part alone.
 */
async function startingWeights(recipe: Recipe, config: LlavaConfig): Promise<Map<string, Float32Array>> {
  const result = new Map<string, Float32Array>()
  for (const [part, folder] of Object.entries(recipe.start)) {
    const checkpoint = await findCheckpoint(folder)
    // A model folder of other sizes elsewhere, such as another projector, still has this part.
    const stored =
      checkpoint === undefined
        ? await loadPart(await findModel(folder, `start ${part} from`), { part, config, model: recipe.model })
        : await readState(checkpoint)
    const own = [...stored].filter(([name]) => name.startsWith(`${part}.`))
    if (own.length === 0) throw new Error(`Cannot start ${part} from ${folder}: it holds no weights of that part`)
    if (own.some(([name]) => isAdapter(name))) {
      throw new Error(
        `Cannot start ${part} from ${folder}: it holds LoRA adapters only, expected the model of that run`,
      )
    }
    for (const [name, { data }] of own) result.set(name, data)
  }
  return result
}

function wordTokens(names: readonly string[], tokenizer: Tokenizer): number[] {
  const ids = names.map((name) => encodeText(tokenizer, ` ${name}`, { continuation: true }))
  const long = names.filter((_, index) => ids[index]?.length !== 1)
  if (long.length > 0) {
    throw new RangeError(`Cannot write pictures in words: ${long.join(', ')} are not one token each in this tokenizer`)
  }
  return ids.map(([id = 0]) => id)
}
