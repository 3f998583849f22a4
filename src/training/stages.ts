/**
 * The stages as data: which parts learn, from what, and what the picture is to the language model. Parts that are not named are frozen.
 *
 * `feature-alignment` and `instruction-tuning` are the paper's two stages (§4.2). `encoder` and `language-model` make the parts that the paper takes
 * ready-made: CLIP's encoder and Vicuna. `contrastive` makes the encoder as CLIP itself was made, from pictures and captions alone. `word-alignment`
 * prepares feature alignment where the truth is known patch by patch: the projector learns to write pictures in the words in which `language-model` read
 * them. `single-stage` is what the two stages are compared with: everything learns from pixels at once, without an alignment before.
 */

export type StageName =
  | 'encoder'
  | 'contrastive'
  | 'language-model'
  | 'word-alignment'
  | 'feature-alignment'
  | 'instruction-tuning'
  | 'single-stage'

/** Parts of a model as weight names begin. The first three are the model; the rest are scaffolding and never leave the run folder. */
export const parts = [
  'visionEncoder',
  'projector',
  'languageModel',
  'labelHead',
  'placeTable',
  'pictureHead',
  'textEncoder',
  'similarity',
  'captioner',
] as const
export type Part = (typeof parts)[number]

export type Stage = {
  readonly learns: readonly Part[]
  readonly objective: 'patch-labels' | 'captions' | 'picture-words' | 'answers'
  /** `features`: pictures pass the frozen encoder outside of the training graph. */
  readonly pictures: 'pixels' | 'features' | 'words'
}

export const stages: Readonly<Record<StageName, Stage>> = {
  encoder: { learns: ['visionEncoder', 'labelHead'], objective: 'patch-labels', pictures: 'pixels' },
  contrastive: {
    learns: ['visionEncoder', 'pictureHead', 'textEncoder', 'similarity', 'captioner'],
    objective: 'captions',
    pictures: 'pixels',
  },
  'language-model': { learns: ['languageModel', 'placeTable'], objective: 'answers', pictures: 'words' },
  'word-alignment': { learns: ['projector'], objective: 'picture-words', pictures: 'features' },
  'feature-alignment': { learns: ['projector'], objective: 'answers', pictures: 'features' },
  'instruction-tuning': { learns: ['projector', 'languageModel'], objective: 'answers', pictures: 'features' },
  'single-stage': {
    learns: ['visionEncoder', 'projector', 'languageModel'],
    objective: 'answers',
    pictures: 'pixels',
  },
}

export const stageNames = Object.keys(stages) as StageName[]

/** The part that a weight belongs to: the first word of its name. */
export function partOf(weight: string): string {
  return weight.slice(0, weight.indexOf('.'))
}
