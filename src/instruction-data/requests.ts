/** What is asked of a teacher: which type of response for which picture, in which words, under which key. */

import { createHash, type Hash, hash } from 'node:crypto'
import { contextForms, type Prompt, type Prompts, type ResponseType, responseTypes } from './prompts.ts'
import { renderContext, type SymbolicPicture } from './symbolic-picture.ts'

export type TeacherMessage = { readonly role: 'system' | 'user' | 'assistant'; readonly content: string }

/** Settings that the answer depends on; they are part of every key. */
export type TeacherSettings = {
  readonly model: string
  readonly temperature: number
  readonly maxTokens: number
  readonly seed: number
}

/** One response that is wanted of a picture. */
export type Task = {
  readonly picture: SymbolicPicture
  readonly type: ResponseType
  /** The question that a description answers; the other types bring their own questions. */
  readonly question?: string
  readonly promptVersion: string
}

/** A request in words, which is all that a language model needs. */
export type ChatRequest = {
  /** See `requestKey`. */
  readonly key: string
  readonly messages: readonly TeacherMessage[]
  readonly settings: TeacherSettings
  /** 0, or how often an answer of this task was found unusable. */
  readonly round: number
}

export type TeacherRequest = ChatRequest & { readonly task: Task }

export type TypeWeights = Readonly<Partial<Record<ResponseType, number>>>

export type Plan = {
  readonly types: TypeWeights
  /** Types of response per picture, at most as many as have a weight. */
  readonly perPicture: number
  readonly seed: number
  readonly prompts: Prompts
}

/** The tasks of a picture. They depend on its id and the plan alone, so that any part of the pictures, in any order, gets the same ones. */
export function tasksOf(picture: SymbolicPicture, { types, perPicture, seed, prompts }: Plan): Task[] {
  return drawTypes(types, { count: perPicture, draw: (index) => shareOf(`${seed} type ${index} ${picture.id}`) }).map(
    (type) => {
      const { questions, version } = prompts[type]
      const drawn = questions[Math.floor(shareOf(`${seed} question ${picture.id}`) * questions.length)]
      return { picture, type, promptVersion: version, ...(drawn !== undefined && { question: drawn }) }
    },
  )
}

/** A task in the words of its prompt: the system message, the examples as earlier turns, and the picture. */
export function requestFor(
  task: Task,
  { prompts, settings, round = 0 }: { prompts: Prompts; settings: TeacherSettings; round?: number },
): TeacherRequest {
  const { before, hashed } = frameOf(prompts[task.type], { settings, round })
  const picture: TeacherMessage = { role: 'user', content: renderContext(task.picture, contextForms[task.type]) }
  const key = hashed
    .copy()
    .update(`${JSON.stringify(picture)}]]`)
    .digest('hex')
    .slice(0, 32)
  return { key, task, messages: [...before, picture], settings, round }
}

/** What all requests with a prompt begin with: their messages, and a hash that has read them. Together they are most of a request. */
type Frame = { readonly before: readonly TeacherMessage[]; readonly hashed: Hash }

const frames = new WeakMap<Prompt, Map<string, Frame>>()

function frameOf(prompt: Prompt, { settings, round }: { settings: TeacherSettings; round: number }): Frame {
  const { model, temperature, maxTokens, seed } = settings
  const name = JSON.stringify([model, temperature, maxTokens, seed, round])
  const known = frames.get(prompt) ?? new Map<string, Frame>()
  frames.set(prompt, known)
  const found = known.get(name)
  if (found !== undefined) return found
  const before: TeacherMessage[] = [
    { role: 'system', content: prompt.system },
    ...prompt.examples.flatMap(({ context, answer }): TeacherMessage[] => [
      { role: 'user', content: context },
      { role: 'assistant', content: answer },
    ]),
  ]
  // The beginning of what `requestKey` reads; the last message closes both lists.
  const hashed = createHash('sha256').update(`${name.slice(0, -1)},${JSON.stringify(before).slice(0, -1)},`)
  known.set(name, { before, hashed })
  return { before, hashed }
}

/**
 * 128 bits of a SHA-256 over settings, messages and round, in hexadecimal digits: what was asked in the same words is answered once.
 * `requestFor` comes to the same key without reading again what all requests of a prompt share.
 */
export function requestKey({ messages, settings, round }: Omit<ChatRequest, 'key'>): string {
  const { model, temperature, maxTokens, seed } = settings
  return createHash('sha256')
    .update(JSON.stringify([model, temperature, maxTokens, seed, round, messages]))
    .digest('hex')
    .slice(0, 32)
}

/** Whether the picture belongs to a part of a run that several machines share: every picture to exactly one of the parts 1 to `of`. */
export function isInShard(id: string, { part, of }: { part: number; of: number }): boolean {
  return Math.floor(shareOf(`shard ${id}`) * of) === part - 1
}

/** A number in [0, 1) that depends on the text alone. */
export function shareOf(text: string): number {
  return Number.parseInt(hash('sha256', text, 'hex').slice(0, 12), 16) / 2 ** 48
}

/** Several different types, each as likely as its weight says among those that are left. */
function drawTypes(
  types: TypeWeights,
  { count, draw }: { count: number; draw: (index: number) => number },
): ResponseType[] {
  let left = responseTypes.map((type) => ({ type, weight: types[type] ?? 0 })).filter(({ weight }) => weight > 0)
  const drawn: ResponseType[] = []
  while (drawn.length < count && left.length > 0) {
    const total = left.reduce((sum, { weight }) => sum + weight, 0)
    const place = draw(drawn.length) * total
    let passed = 0
    const chosen = left.find(({ weight }) => {
      passed += weight
      return place < passed
    })
    const { type } = chosen ?? (left.at(-1) as (typeof left)[number]) // sums of fractions may fall short
    drawn.push(type)
    left = left.filter((one) => one.type !== type)
  }
  return drawn
}
