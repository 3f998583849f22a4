/**
 * One side of the transformers.js bench in a process of its own, whose memory is then that of the model alone:
 * `node transformers-js-run.ts ours|theirs FOLDER QUESTION…`. FOLDER is a model for us and an export for them. The last line is a JSON document.
 */

import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Llava } from '../src/llava.ts'
import { peakMemory } from './measure.ts'

export type TransformersJsRun = {
  readonly loadMs: number
  /** Per question: the tokens of the answer, the time to the first of them, and that of each further one. */
  readonly answers: readonly {
    readonly tokens: readonly number[]
    readonly firstMs: number
    readonly tokenMs: readonly number[]
  }[]
  readonly peak: number // bytes
}

const picture = fileURLToPath(new URL('../fixtures/pictures/picturebook.png', import.meta.url))
const maxTokens = 60
const threads = 1 // more of them wait for one another on a machine that others use

const [side, folder = '', ...questions] = process.argv.slice(2)
if (process.argv[1]?.endsWith('transformers-js-run.ts')) {
  const run = await (side === 'ours' ? ours() : theirs())
  console.log(JSON.stringify({ ...run, peak: peakMemory() }))
}

async function ours(): Promise<Omit<TransformersJsRun, 'peak'>> {
  const started = performance.now()
  const llava = await Llava.load(folder, { precision: 'f32', threads })
  const loadMs = performance.now() - started
  const answers = []
  for (const question of questions) {
    const clock = stopwatch()
    for await (const { token } of llava.pieces({ image: picture, question, temperature: 0, maxTokens }))
      clock.lap(token)
    answers.push(clock.end())
  }
  await llava.dispose()
  return { loadMs, answers }
}

/** What is used of transformers.js. Its types are not here: it is installed elsewhere. */
type TransformersJs = {
  readonly env: { allowRemoteModels: boolean; localModelPath: string }
  readonly RawImage: { read(path: string): Promise<unknown> }
  readonly AutoProcessor: { from_pretrained(name: string): Promise<Processor> }
  readonly LlavaForConditionalGeneration: { from_pretrained(name: string, options: object): Promise<Model> }
}
type Processor = ((image: unknown, text: string) => Promise<Record<string, unknown>>) & {
  apply_chat_template(messages: readonly object[], options: { add_generation_prompt: boolean }): string
}
type Model = { generate(options: Record<string, unknown>): Promise<unknown>; dispose(): Promise<unknown> }

async function theirs(): Promise<Omit<TransformersJsRun, 'peak'>> {
  const installed = createRequire(join(process.env.TRANSFORMERS_JS ?? '', 'any.js'))
  const library = installed('@huggingface/transformers') as TransformersJs
  library.env.allowRemoteModels = false
  library.env.localModelPath = dirname(folder)
  const started = performance.now()
  const name = basename(folder)
  const options = { session_options: { intraOpNumThreads: threads } }
  const model = await library.LlavaForConditionalGeneration.from_pretrained(name, options)
  const processor = await library.AutoProcessor.from_pretrained(name)
  const loadMs = performance.now() - started
  const answers = []
  for (const question of questions) {
    const clock = stopwatch()
    const content = [{ type: 'image' }, { type: 'text', text: question }]
    const text = processor.apply_chat_template([{ role: 'user', content }], { add_generation_prompt: true })
    const inputs = await processor(await library.RawImage.read(picture), text)
    let isPrompt = true
    const streamer = {
      put([ids = []]: bigint[][]) {
        if (!isPrompt) for (const id of ids) clock.lap(Number(id))
        isPrompt = false
      },
      end() {},
    }
    await model.generate({ ...inputs, max_new_tokens: maxTokens, do_sample: false, streamer })
    answers.push(clock.end())
  }
  await model.dispose()
  return { loadMs, answers }
}

function stopwatch() {
  let last = performance.now()
  const tokens: number[] = []
  const laps: number[] = []
  return {
    lap(token: number) {
      const now = performance.now()
      tokens.push(token)
      laps.push(now - last)
      last = now
    },
    end() {
      const [firstMs = Number.NaN, ...tokenMs] = laps
      return { tokens, firstMs, tokenMs }
    },
  }
}
