/** What a run starts from: weights of another run or of a model, for the parts that its recipe names; random numbers for the rest. */

import { loadPart } from '../checkpoint/load-part.ts'
import { findModel } from '../generation/find-model.ts'
import type { LlavaConfig } from '../model/config.ts'
import type { ContrastSettings } from './contrast-settings.ts'
import { initialWeight } from './initialization.ts'
import { isAdapter } from './lora.ts'
import type { Recipe } from './recipe.ts'
import { findCheckpoint, readState } from './run-checkpoint.ts'
import { partOf } from './stages.ts'

/** The first value of a weight, a copy. Errors: `RangeError` where what is stored has another size. */
export type StartingValue = (weight: { name: string; shape: readonly number[] }) => Float32Array

/** Reads what the recipe starts from; `contrast` has the sizes of parts that only stage contrastive has. */
export async function startingValues(
  recipe: Recipe,
  { config, contrast }: { config: LlavaConfig; contrast: ContrastSettings | undefined },
): Promise<StartingValue> {
  const stored = await startingWeights(recipe, config)
  const depths = {
    visionEncoder: config.vision.depth,
    textEncoder: contrast?.clip.text.depth,
    captioner: contrast?.captioner.language.depth,
  }
  return ({ name, shape }) => {
    const known = stored.get(name)
    if (known === undefined) {
      const depth = depths[partOf(name) as keyof typeof depths] ?? config.language.depth
      return initialWeight({ name: name.replace(/^captioner\./, ''), shape }, { seed: recipe.seed, depth })
    }
    const size = shape.reduce((product, dim) => product * dim, 1)
    if (known.length !== size) {
      throw new RangeError(
        `Cannot start ${name} from ${known.length} values: expected ${size} for shape [${shape.join(', ')}]`,
      )
    }
    return known.slice()
  }
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
