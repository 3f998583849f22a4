/** The offline teacher of the picturebook: it answers from the scene graph, so that every answer is right. */

import type { ResponseType } from '../instruction-data/prompts.ts'
import { type Exchange as Written, writeAnswer } from '../instruction-data/read-answer.ts'
import { type Teacher, TeacherFailure } from '../instruction-data/teacher.ts'
import { describeInDetail } from './captions.ts'
import { type Exchange, makeConversation, type Skill } from './questions.ts'
import type { Scene } from './scene.ts'
import { sceneOf } from './scene-of.ts'

const turns = 9
/** Half of the questions of a conversation ask for a single word, as the short-answer sets of LLaVA-1.5's mixture do. */
const shortShare = 0.5

/** How often each kind of question is tried. Few scenes allow what is learned last, so that is asked wherever it can be. */
const conversationSkills: Readonly<Record<Skill, number>> = {
  existence: 2,
  count: 3,
  position: 2,
  relation: 2,
  listing: 2,
  'category-at': 2,
  color: 1,
  setting: 0.7,
  caption: 0.3,
  'detailed-description': 0.3, // a type of response of its own; a few are asked for in between
  comparison: 1.5,
  'odd-one-out': 8,
  nearest: 10,
  'multi-hop': 1.5,
  reasoning: 1.5,
  unknowable: 0.4,
}

/** Kinds that need more than looking. */
const reasoningSkills: Partial<Record<Skill, number>> = {
  reasoning: 3,
  'odd-one-out': 2,
  nearest: 2,
  'multi-hop': 1,
  comparison: 1,
}

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
      return makeConversation(scene, { seed, turns, short: shortShare, skills: conversationSkills }).map(written)
    case 'detailed-description':
      return [{ question: '', answer: describeInDetail(scene) }]
    case 'complex-reasoning':
      return makeConversation(scene, { seed, turns: 1, short: 0, skills: reasoningSkills }).map(written)
  }
}

function written({ question, answer }: Exchange): Written {
  return { question, answer }
}
