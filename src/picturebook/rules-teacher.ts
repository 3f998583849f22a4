/** The offline teacher of the picturebook: it answers from the scene graph, so that every answer is right. */

import type { ResponseType } from '../instruction-data/prompts.ts'
import { type Exchange as Written, writeAnswer } from '../instruction-data/read-answer.ts'
import { type Teacher, TeacherFailure } from '../instruction-data/teacher.ts'
import { describeInDetail } from './captions.ts'
import { type Exchange, makeConversation, makeExchange, type Skill, skillWeights } from './questions.ts'
import type { Scene } from './scene.ts'
import { sceneOf } from './scene-of.ts'

/** Skills that need more than looking, the one with knowledge of the world first. */
const reasoningSkills: readonly Skill[] = ['reasoning', 'multi-hop', 'odd-one-out', 'comparison', 'nearest']
const turns = 5
/** Descriptions are a type of their own. */
const spoken = { ...skillWeights, caption: 0, 'detailed-description': 0 }

export function picturebookTeacher(): Teacher {
  return {
    name: 'rules',
    paid: false,
    answer: async ({ task, settings }) => {
      const exchanges = exchangesAbout(sceneIn(task.picture), { type: task.type, seed: settings.seed })
      if (exchanges.length === 0) throw new TeacherFailure(`the scene allows no ${task.type}`, { kind: 'never' })
      const text = task.type === 'detailed-description' ? (exchanges[0]?.answer ?? '') : writeAnswer(exchanges)
      return { text, finish: 'stop', usage: { input: 0, output: 0 } }
    },
  }
}

function sceneIn(picture: Parameters<typeof sceneOf>[0]): Scene {
  try {
    return sceneOf(picture)
  } catch (error) {
    if (error instanceof RangeError) throw new TeacherFailure(error.message, { kind: 'never', cause: error })
    throw error
  }
}

function exchangesAbout(scene: Scene, { type, seed }: { type: ResponseType; seed: number }): Written[] {
  switch (type) {
    case 'conversation':
      return makeConversation(scene, { seed, turns, short: 0, skills: spoken }).map(written)
    case 'detailed-description':
      return [{ question: '', answer: describeInDetail(scene) }]
    case 'complex-reasoning': {
      const found = reasoningSkills.map((skill) => makeExchange(scene, { seed, skill, short: false }))
      const exchange = found.find((one) => one !== undefined)
      return exchange === undefined ? [] : [written(exchange)]
    }
  }
}

function written({ question, answer }: Exchange): Written {
  return { question, answer }
}
