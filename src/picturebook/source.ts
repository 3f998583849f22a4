/** The picturebook as an endless sequence of samples. */

import { assistantTurn, type Turn, userTurn } from '../conversation/turns.ts'
import type { Sample, SampleSource } from '../instruction-data/sample.ts'
import { scoreAnswer } from './answers.ts'
import { contrastedCaption } from './contrasts.ts'
import { type Drawings, loadDrawings } from './drawings.ts'
import { centerLabels, labelNames, partLabels, settingCount } from './labels.ts'
import { type Exchange, makeConversation, type Skill } from './questions.ts'
import { renderScene } from './rendering.ts'
import { makeScene } from './scene.ts'
import type { Split } from './splits.ts'

export type PicturebookOptions = {
  readonly side: number // S, pixels
  readonly patch: number // pixels
  readonly objects: readonly [number, number]
  /** Share of scenes in which one thing partly hides another: 0 unless told. */
  readonly overlap?: number | undefined
  /** Exchanges per scene. */
  readonly turns: number
  readonly split: Split
  /** Relative frequency of each skill; those left out are not asked. Default: the world's own mixture. */
  readonly skills?: Partial<Record<Skill, number>> | undefined
  /** Share of questions that ask for a single word. */
  readonly short?: number | undefined
  /** Shifts the stream, so that two runs see different scenes. */
  readonly seed?: number
}

/** @throws Error when an icon package is missing */
export async function picturebookSource(options: PicturebookOptions): Promise<SampleSource> {
  const drawings = await loadDrawings({ side: options.side })
  const labels = { names: labelNames, backgrounds: settingCount }
  return { size: undefined, labels, sample: async (index) => sampleAt(index, { ...options, drawings }) }
}

function sampleAt(index: number, options: PicturebookOptions & { drawings: Drawings }): Sample {
  const { side, patch, objects, overlap = 0, split, turns, skills, short, drawings, seed = 0 } = options
  const number = seed * 1_000_000_000 + index
  const scene = makeScene(number, { side, objects, overlap, split })
  const wanted = { seed: number, turns, split, ...(skills && { skills }), ...(short !== undefined && { short }) }
  const exchanges = makeConversation(scene, wanted)
  return {
    id: `picturebook-${split}-${number}`,
    turns: toTurns(exchanges),
    skills: exchanges.map((exchange) => exchange.skill),
    score: (asked, answer) => {
      const exchange = exchanges[asked]
      return exchange !== undefined && scoreAnswer(exchange, answer)
    },
    pictures: [{ pixels: async () => renderScene(scene, drawings), size: async () => ({ width: side, height: side }) }],
    caption: (count) => contrastedCaption(scene, { seed, count, most: objects[1] }),
    labels: { parts: () => partLabels(scene, { patch, drawings }), centers: () => centerLabels(scene, { patch }) },
  }
}

/** Exchanges as turns; the picture belongs to the first question. */
function toTurns(exchanges: readonly Exchange[]): Turn[] {
  return exchanges.flatMap(({ question, answer }, index) => [
    userTurn(question, { images: index === 0 ? 1 : 0 }),
    assistantTurn(answer),
  ])
}
