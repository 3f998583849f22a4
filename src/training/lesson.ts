/** What a recipe means once its files are open: the objective, the starting weights, the samples and how they are encoded. */

import { join } from 'node:path'
import { readStrictJson } from '../checkpoint/json.ts'
import { expectedTensors } from '../checkpoint/layouts.ts'
import { loadConfig, loadWeights, type Weights } from '../checkpoint/load.ts'
import { findTemplate } from '../conversation/templates.ts'
import { encodeText, type Tokenizer } from '../conversation/tokenizer.ts'
import { readTokenizer } from '../generation/model-folder.ts'
import { type ImageProcessorConfig, readImageProcessorConfig } from '../image/preprocess.ts'
import type { SampleSource } from '../instruction-data/sample.ts'
import type { LlavaConfig } from '../model/config.ts'
import { patchFeatures } from '../model/vision-encoder.ts'
import { parameters, type WeightSource } from '../model/weights.ts'
import { disposeTensor, type ResidentTensor, residentTensor } from '../runtime/resident-tensor.ts'
import { createSession, disposeSession, run, type Session } from '../runtime/session.ts'
import { input, writeOnnx } from '../tensor/index.ts'
import { type Batch, disposeBatch, makeBatch } from './batch-maker.ts'
import type { Encoding } from './batches.ts'
import { initialWeight } from './initialization.ts'
import { answerLoss, type Objective, patchLabelLoss } from './objectives.ts'
import type { Recipe } from './recipe.ts'
import { latestCheckpoint, readState } from './run-folder.ts'
import { openSource } from './sources.ts'
import { partOf, type Stage, stages } from './stages.ts'

export type Lesson = {
  readonly recipe: Recipe
  readonly stage: Stage
  readonly config: LlavaConfig
  readonly processor: ImageProcessorConfig
  readonly source: SampleSource
  /** Undefined when the lesson has no text. */
  readonly encoding: Encoding | undefined
  /** Tokens that stand for a picture: P, or fewer words. */
  readonly pictureTokens: number
  /** Token ids of the source's label names: the words of a picture written in words. */
  readonly wordIds: readonly number[]
  readonly objective: (weights: WeightSource) => Objective
  readonly groupOf: (name: string) => string | undefined
  readonly startingValue: (weight: { name: string; shape: readonly number[] }) => Float32Array
  /** Pixels [B, 3, S, S] → patch features [B, P, C] by the frozen encoder; the pixels are given up. */
  readonly encodePictures: (pixels: ResidentTensor) => Promise<ResidentTensor>
  readonly validationBatches: () => Promise<readonly Batch[]>
  /** All weights of the model: those of the run, and what it started from for parts that its graph does not hold. */
  readonly wholeModel: (weights: ReadonlyMap<string, ResidentTensor<'float32'>>) => Weights
  readonly dispose: () => Promise<void>
}

export async function openLesson(recipe: Recipe, { threads }: { threads?: number } = {}): Promise<Lesson> {
  const stage = stages[recipe.stage]
  const config = await loadConfig(recipe.model)
  const processor = readImageProcessorConfig(await readStrictJson(join(recipe.model, 'preprocessor_config.json')))
  const starts = await startingWeights(recipe, config)
  const source = await openSource(recipe.data, { config, split: 'train' })
  const labelNames = source.labels?.names ?? []
  const pictureTokens = stage.pictures === 'words' ? (recipe.words ?? config.visualTokens) : config.visualTokens
  const tokenizer = stage.objective === 'answers' ? (await readTokenizer(recipe.model)).tokenizer : undefined
  const encoding = tokenizer && {
    tokenizer,
    template: findTemplate(recipe.template),
    imageToken: config.imageToken,
    pictureTokens,
    length: recipe.length,
  }
  if (stage.objective === 'patch-labels' && labelNames.length === 0) {
    throw new RangeError(
      `Cannot train ${recipe.name}: stage ${recipe.stage} needs labelled patches, which its data does not have`,
    )
  }

  const startingValue = ({ name, shape }: { name: string; shape: readonly number[] }) => {
    const known = starts.get(name)
    if (known === undefined) {
      const depth = name.startsWith('visionEncoder.') ? config.vision.depth : config.language.depth
      return initialWeight({ name, shape }, { seed: recipe.seed, depth })
    }
    const size = shape.reduce((product, dim) => product * dim, 1)
    if (known.length !== size) {
      throw new RangeError(
        `Cannot start ${name} from ${known.length} values: expected ${size} for shape [${shape.join(', ')}]`,
      )
    }
    return known.slice()
  }
  const encoder =
    stage.pictures === 'features'
      ? await createEncoder(config, { startingValue, batch: recipe.batch, ...(threads !== undefined && { threads }) })
      : undefined

  let validation: Promise<readonly Batch[]> | undefined
  const lesson: Lesson = {
    recipe,
    stage,
    config,
    processor,
    source,
    encoding,
    pictureTokens,
    wordIds: stage.pictures === 'words' && tokenizer ? wordTokens(labelNames, tokenizer) : [],
    objective: (weights) =>
      stage.objective === 'patch-labels'
        ? patchLabelLoss(config, weights, { batch: recipe.batch, labels: labelNames.length })
        : answerLoss(config, weights, {
            batch: recipe.batch,
            length: recipe.length,
            form: stage.pictures,
            pictureTokens,
          }),
    groupOf: (name) => (partOf(name) in recipe.rates ? partOf(name) : undefined),
    startingValue,
    encodePictures: async (pixels) => {
      if (encoder === undefined) throw new Error('This stage encodes pictures inside its training step')
      const { features } = await run(encoder, { pixels }).finally(() => disposeTensor(pixels))
      if (features === undefined) throw new Error('The vision encoder returned no features')
      return features
    },
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
    dispose: async () => {
      const drawn = await validation?.catch(() => [])
      drawn?.forEach(disposeBatch)
      if (encoder !== undefined) await disposeSession(encoder)
    },
  }
  return lesson
}

/** The recipe's validation samples, drawn once: always the same ones, and none of them trained on. */
async function drawValidation(lesson: Lesson): Promise<readonly Batch[]> {
  const { recipe, config } = lesson
  const source = await openSource(recipe.data, { config, split: 'iid' })
  const batches: Batch[] = []
  for (let number = 0; number < (recipe.validate?.batches ?? 0); number++) {
    const position = batches.at(-1)?.position ?? { cursor: 0, skipped: 0 }
    batches.push(await makeBatch(lesson, { source, position, parts: 1 }))
  }
  return batches
}

/** Weights of each part from where the recipe says: a run folder (its newest checkpoint) or a model folder. */
async function startingWeights(recipe: Recipe, config: LlavaConfig): Promise<Map<string, Float32Array>> {
  const result = new Map<string, Float32Array>()
  for (const [part, folder] of Object.entries(recipe.start)) {
    const checkpoint = await latestCheckpoint(folder)
    const stored = checkpoint === undefined ? await loadWeights(folder, config) : await readState(checkpoint)
    const own = [...stored].filter(([name]) => name.startsWith(`${part}.`))
    if (own.length === 0) throw new Error(`Cannot start ${part} from ${folder}: it holds no weights of that part`)
    for (const [name, { data }] of own) result.set(name, data)
  }
  return result
}

async function createEncoder(
  config: LlavaConfig,
  { startingValue, batch, threads }: { startingValue: Lesson['startingValue']; batch: number; threads?: number },
): Promise<Session> {
  const S = config.vision.imageSide
  const features = patchFeatures(config, parameters, input('pixels', 'float32', [batch, 3, S, S]))
  const graph = writeOnnx({ features }, { parameters: 'initializers', name: 'vision encoder' })
  const initializers = Object.fromEntries(
    graph.parameters.map(({ name, shape }) => {
      const sizes = shape.map(Number)
      return [name, residentTensor('float32', sizes, { data: startingValue({ name, shape: sizes }) })]
    }),
  )
  return createSession(graph.model, { initializers, ...(threads !== undefined && { threads }) })
}

function wordTokens(names: readonly string[], tokenizer: Tokenizer): number[] {
  const ids = names.map((name) => encodeText(tokenizer, ` ${name}`, { continuation: true }))
  const long = names.filter((_, index) => ids[index]?.length !== 1)
  if (long.length > 0) {
    throw new RangeError(`Cannot write pictures in words: ${long.join(', ')} are not one token each in this tokenizer`)
  }
  return ids.map(([id = 0]) => id)
}
