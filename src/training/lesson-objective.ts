/** The objective of a lesson: which loss its stage has, of the model's own weights or of those with adapters. */

import type { LlavaConfig } from '../model/config.ts'
import type { WeightSource } from '../model/weights.ts'
import type { AdapterDropout } from './adapter-dropout.ts'
import type { ContrastSettings } from './contrast-settings.ts'
import { contrastiveLoss } from './contrastive.ts'
import { adaptedWeights } from './lora.ts'
import { answerLoss, gatheredAnswerLoss, type Objective, patchLabelLoss, pictureWordLoss } from './objectives.ts'
import type { Recipe } from './recipe.ts'
import { stages } from './stages.ts'

/** What is known of a lesson once its files are open. */
export type LessonFacts = {
  readonly config: LlavaConfig
  readonly layers: ReadonlySet<string>
  readonly dropout: AdapterDropout | undefined
  readonly contrast: ContrastSettings | undefined
  readonly pictureTokens: number
  readonly labels: number
  readonly gathers: boolean
  readonly viewSlots: number
}

/** The objective for batches of the recipe's length, or of a shorter one. What learns is the loss with dropout, where there is any. */
export function objectiveOf(
  recipe: Recipe,
  facts: LessonFacts,
): (weights: WeightSource, options?: { length?: number }) => Objective {
  const { layers, dropout } = facts
  const { lora } = recipe
  return (base, { length = recipe.length } = {}) => {
    const plain = lossOf(recipe, facts, { weights: adaptedWeights(base, { lora, layers }), length })
    if (dropout === undefined) return plain
    const dropping = lossOf(recipe, facts, { weights: adaptedWeights(base, { lora, layers, dropout }), length })
    return { ...plain, learned: dropping.loss }
  }
}

function lossOf(
  recipe: Recipe,
  { config, contrast, pictureTokens, labels, gathers, viewSlots }: LessonFacts,
  { weights, length }: { weights: WeightSource; length: number },
): Objective {
  const { batch, checkpointing } = recipe
  const { objective, pictures } = stages[recipe.stage]
  if (contrast !== undefined) return contrastiveLoss(config, weights, { batch, settings: contrast, checkpointing })
  if (objective === 'picture-words') return pictureWordLoss(config, weights, { batch })
  if (objective === 'patch-labels') return patchLabelLoss(config, weights, { batch, labels, checkpointing })
  const options = { batch, length, form: pictures, pictureTokens, checkpointing }
  return gathers
    ? gatheredAnswerLoss(config, weights, { ...options, views: viewSlots, packed: recipe.pack === true })
    : answerLoss(config, weights, options)
}
