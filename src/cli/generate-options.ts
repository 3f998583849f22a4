/** The options of `llava generate`: types with weights, shards, prices, and where the teacher is. */

import { createObjectFinder } from '../instruction-data/object-names.ts'
import { openAiTeacher } from '../instruction-data/openai-teacher.ts'
import type { Price } from '../instruction-data/pace.ts'
import { type ResponseType, responseTypes } from '../instruction-data/prompts.ts'
import type { TypeWeights } from '../instruction-data/requests.ts'
import { rulesTeacher } from '../instruction-data/rules-teacher.ts'
import type { Teacher } from '../instruction-data/teacher.ts'
import { picturebookTeacher } from '../picturebook/rules-teacher.ts'

/** As commander hands them over. */
export type GenerateOptions = {
  captions: string
  instances?: string
  images?: string
  types: TypeWeights
  perPicture: number
  teacher: string
  baseUrl?: string
  out: string
  prompts?: string
  picturebook?: boolean
  limit?: number
  shard?: Shard
  temperature: number
  maxTokens: number
  seed: number
  concurrency: number
  rpm?: number
  tpm?: number
  timeout: number
  retries: number
  validationRetries: number
  patience: number
  price?: Price
  maxUsd?: number
  strict?: boolean
  batch?: boolean
  poll: number
  queue?: string | true
  dryRun?: number | true
  ask: boolean
  json?: boolean
}

/** How the 158 thousand rows of the paper are divided. */
export const paperTypes: TypeWeights = { conversation: 58, 'detailed-description': 23, 'complex-reasoning': 77 }

/** `conversation=58,complex-reasoning=77` */
export function typeWeights(text: string): TypeWeights {
  const weights: Partial<Record<ResponseType, number>> = {}
  for (const part of text.split(',')) {
    const [, name = '', number = '1'] = /^\s*([\w-]+)\s*(?:=\s*(\d+(?:\.\d+)?))?\s*$/.exec(part) ?? []
    const type = responseTypes.find((one) => one === name)
    if (type === undefined || weights[type] !== undefined) {
      throw new RangeError(
        `Cannot use --types ${text || "''"}: found "${part.trim()}", expected each of ${responseTypes.join(', ')} at most once, as in conversation=58`,
      )
    }
    weights[type] = Number(number)
  }
  if (Object.values(weights).some((weight) => weight > 0)) return weights
  throw new RangeError(`Cannot use --types ${text}: expected at least one weight above 0`)
}

export type Shard = { readonly part: number; readonly of: number }

/** `2/8`: the second of eight parts. */
export function shardOf(text: string): Shard {
  const [, part = 0, of = 0] = (/^(\d+)\/(\d+)$/.exec(text.trim()) ?? []).map(Number)
  if (part >= 1 && part <= of) return { part, of }
  throw new RangeError(`Cannot use --shard ${text || "''"}: expected PART/PARTS, such as 2/8 for the second of eight`)
}

/** `0.15,0.6`: dollars for a million tokens in and out. */
export function priceOf(text: string): Price {
  const [input = Number.NaN, output = Number.NaN, ...more] = text
    .split(',')
    .map((part) => (part.trim() === '' ? Number.NaN : Number(part)))
  if (more.length === 0 && input >= 0 && output >= 0) return { input, output }
  throw new RangeError(
    `Cannot use --price ${text || "''"}: expected dollars for a million tokens in and out, such as 0.15,0.6`,
  )
}

export type TeacherOptions = {
  readonly baseUrl: string | undefined
  readonly timeoutMs: number
  readonly picturebook: boolean
  /** Of the pictures. */
  readonly categories: readonly string[]
  readonly env: NodeJS.ProcessEnv
}

/**
 * The teacher that `openai:MODEL` or `rules` names.
 * @throws RangeError for another name, Error without a key
 */
export function teacherNamed(
  name: string,
  { baseUrl, timeoutMs, picturebook, categories, env }: TeacherOptions,
): Teacher {
  if (name === 'rules')
    return picturebook ? picturebookTeacher() : rulesTeacher({ categories, find: createObjectFinder(categories) })
  const apiKey = keyOf(name, { baseUrl, env })
  return openAiTeacher({ model: modelOf(name), apiKey, baseURL: baseUrl, timeoutMs })
}

/** The key of the endpoint; a server on this machine needs none. @throws Error without one */
export function keyOf(
  teacher: string,
  { baseUrl, env }: { baseUrl: string | undefined; env: NodeJS.ProcessEnv },
): string {
  const key = env.OPENAI_API_KEY || (baseUrl !== undefined && isLocal(baseUrl) ? 'none' : undefined)
  if (key !== undefined) return key
  throw new Error(`Cannot ask ${teacher}: found no OPENAI_API_KEY in the environment, expected the key of the endpoint`)
}

/** @throws RangeError unless the name is `rules` or `openai:MODEL` */
export function modelOf(teacher: string): string {
  const [, model] = /^openai:(.+)$/.exec(teacher) ?? []
  if (teacher === 'rules') return teacher
  if (model !== undefined) return model
  throw new RangeError(`Cannot use --teacher ${teacher || "''"}: expected rules, or openai: and the name of a model`)
}

/** The address of the endpoint, without secrets that may stand in it. @throws RangeError when it is none */
export function endpointOf(text: string | undefined): string | undefined {
  if (text === undefined || text === '') return undefined
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw new RangeError(`Cannot use --base-url ${text}: expected an address such as http://localhost:8000/v1`)
  }
  return url.href.replace(/\/$/, '')
}

function isLocal(address: string): boolean {
  return /^(?:localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(new URL(address).hostname)
}
