/**
 * The model answers questions by itself while it trains: always the same ones, of samples that it does not learn from. What it says is what a user
 * would get; validation.ts scores the same samples word for word, given the right words before.
 */

import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { writeFileAtomically } from '../checkpoint/atomic-file.ts'
import type { Weights } from '../checkpoint/load.ts'
import { tokenizeConversation } from '../conversation/tokenize.ts'
import { countPictures, textOf } from '../conversation/turns.ts'
import { type CompiledModel, compileModel, disposeModel } from '../generation/compiled-model.ts'
import { generate } from '../generation/generate.ts'
import { stopRules } from '../generation/model-folder.ts'
import { makePrompt, type Prompt, preparePicture } from '../generation/prompt.ts'
import { encodePng } from '../image/encode.ts'
import type { Pixels } from '../image/pixels.ts'
import { preprocess } from '../image/preprocess.ts'
import { resize } from '../image/resize.ts'
import type { Sample } from '../instruction-data/sample.ts'
import type { Lesson } from './lesson.ts'
import { addTo, shares, type Tally } from './validation.ts'

/** A question as the log tells it. */
export type AskedQuestion = {
  readonly sample: string
  readonly question: string
  readonly reference: string
  readonly skill?: string
  /** A PNG file, relative to the run folder. */
  readonly picture?: string
}

export type GivenAnswer = {
  readonly text: string
  /** Only when the source can tell. */
  readonly right?: boolean
}

export type InterviewQuestion = {
  readonly asked: AskedQuestion
  readonly prompt: Prompt
  readonly picture: (() => Promise<Pixels>) | undefined
  readonly score: ((answer: string) => boolean) | undefined
}

const longestAnswer = 128 // tokens
const thumbnailSide = 256 // pixels, at most

/** The first question of each of the recipe's first `validate.generate` validation samples. */
export async function prepareInterview(lesson: Lesson): Promise<InterviewQuestion[]> {
  const wanted = lesson.recipe.validate?.generate ?? 0
  if (wanted === 0) return []
  const samples = (await lesson.validationBatches()).flatMap((batch) => batch.samples).slice(0, wanted)
  return Promise.all(samples.map((sample, index) => prepareQuestion(lesson, { sample, index })))
}

async function prepareQuestion(
  lesson: Lesson,
  { sample, index }: { sample: Sample; index: number },
): Promise<InterviewQuestion> {
  const { config, processor, encoding } = lesson
  const answer = sample.turns.findIndex(({ role }) => role === 'assistant')
  const reply = sample.turns[answer]
  const last = sample.turns[answer - 1]
  if (encoding === undefined || reply === undefined || last === undefined) {
    throw new RangeError(`Cannot ask about sample ${sample.id}: found no question with an answer, expected one`)
  }
  const { tokenizer, template, imageToken } = encoding
  const turns = sample.turns.slice(0, answer)
  const tokens = tokenizeConversation(turns, { template, tokenizer, imageToken, generationPrompt: true })
  const shown = sample.pictures.slice(0, countPictures(turns))
  const pictures = await Promise.all(
    shown.map(async ({ pixels }) =>
      preparePicture(preprocess(await pixels(), processor, { shown: shown.length }), config),
    ),
  )
  const skill = sample.skills?.[0]
  const { score } = sample
  return {
    asked: {
      sample: sample.id,
      question: textOf(last),
      reference: textOf(reply),
      ...(skill !== undefined && { skill }),
      ...(shown.length > 0 && { picture: `samples/${String(index).padStart(2, '0')}.png` }),
    },
    prompt: makePrompt(tokens, { pictures, config }),
    picture: shown[0]?.pixels,
    score: score && ((text) => score(0, text)),
  }
}

/** Writes the pictures that are asked about into the run folder, small, unless they are there. */
export async function writeThumbnails(folder: string, questions: readonly InterviewQuestion[]): Promise<void> {
  if (questions.length === 0) return
  const samples = join(folder, 'samples')
  await mkdir(samples, { recursive: true })
  const leftovers = (await readdir(samples)).filter((name) => name.startsWith('.')) // of a kill: see checkpoint/atomic-file.ts
  for (const name of leftovers) await rm(join(samples, name), { force: true })
  for (const { asked, picture } of questions) {
    if (asked.picture === undefined || picture === undefined) continue
    const path = join(folder, asked.picture)
    if ((await stat(path).catch(() => undefined)) !== undefined) continue
    const bytes = await encodePng(thumbnail(await picture()))
    await writeFileAtomically(path, async (handle) => void (await handle.write(bytes)))
  }
}

/**
 * What a model with these weights answers, the likeliest token at a time; and the share of right answers per skill, of those that can be scored.
 *
 * The model is compiled for this one interview, because the runtime packs weights when it compiles: it would not see them change.
 */
export async function interview(
  questions: readonly InterviewQuestion[],
  { lesson, weights, threads }: { lesson: Lesson; weights: Weights; threads: number | undefined },
): Promise<{ answers: GivenAnswer[]; accuracy: Record<string, number> }> {
  const model = await compileModel({ config: lesson.config, weights }, { threads })
  try {
    const tally: Tally = new Map()
    const answers: GivenAnswer[] = []
    for (const { asked, prompt, score } of questions) {
      const text = await answerTo(prompt, { model, lesson })
      const right = score?.(text)
      if (right !== undefined) addTo(tally, asked.skill ?? 'answers', right)
      answers.push({ text, ...(right !== undefined && { right }) })
    }
    return { answers, accuracy: shares(tally) }
  } finally {
    await disposeModel(model)
  }
}

async function answerTo(prompt: Prompt, { model, lesson }: { model: CompiledModel; lesson: Lesson }): Promise<string> {
  const { config, encoding, recipe } = lesson
  if (encoding === undefined) throw new Error('Cannot ask: this lesson has no text')
  const { tokenizer, template } = encoding
  const rules = stopRules({ config, tokenizer, template, extra: [] })
  const maxTokens = Math.max(1, Math.min(longestAnswer, recipe.length - prompt.ids.length)) // none learned is longer
  let answer = ''
  for await (const { text } of generate(model, prompt, { ...rules, tokenizer, maxTokens })) answer += text
  return answer
}

function thumbnail(picture: Pixels): Pixels {
  const scale = thumbnailSide / Math.max(picture.width, picture.height)
  if (scale >= 1) return picture
  const side = (length: number) => Math.max(1, Math.round(length * scale))
  return resize(picture, { width: side(picture.width), height: side(picture.height), filter: 'bicubic' })
}
