/** `llava ask IMAGE… QUESTION`: one question, its answer streamed, or one JSON object. */

import type { Command } from 'commander'
import type { CommandContext } from './context.ts'
import {
  addModelOptions,
  addSamplingOptions,
  type ModelOptions,
  type SamplingChoices,
  samplingOf,
  withModel,
} from './model-options.ts'
import { kindOf, milliseconds } from './options.ts'
import { openPicture } from './picture-input.ts'
import { printable, writeLine } from './terminal.ts'

type AskOptions = ModelOptions & SamplingChoices & { json?: boolean }

export function addAskCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('ask')
    .usage('[options] [IMAGE…] QUESTION')
    .description('ask a question, about pictures or without any')
    .argument('[words...]', 'picture files (- reads one from standard input), then the question')
  addSamplingOptions(addModelOptions(command))
    .option('--json', 'print one JSON object instead of streaming the answer')
    .addHelpText(
      'after',
      `
Examples:
  $ llava ask photo.jpg 'What is in the picture?'
  $ llava ask before.png after.png 'What is different?' --model ./llava-1.5-7b-hf
  $ llava ask photo.jpg 'What is in the picture?' --device webgpu
  $ curl -s https://example.org/cat.png | llava ask - 'Is there a cat?' --json`,
    )
    .action((words: string[], options: AskOptions) => ask(words, options, context))
}

async function ask(words: readonly string[], options: AskOptions, context: CommandContext): Promise<void> {
  const { stdout, watch } = context
  const { signal } = watch
  const { pictures, question } = await readWords(words)
  const started = performance.now()
  const images = await Promise.all(pictures.map((path) => openPicture(path, signal)))
  const decodeMs = performance.now() - started
  await withModel(options, context, async (llava, { name, loadMs }) => {
    const request = { images, question, ...samplingOf(options), signal }
    if (options.json === true) {
      const { answer, usage, timings, finishReason } = await llava.ask(request)
      if (signal.aborted) return
      const result = {
        answer,
        usage: {
          prompt_tokens: usage.promptTokens,
          image_tokens: usage.imageTokens,
          completion_tokens: usage.completionTokens,
        },
        timings: {
          load_ms: milliseconds(loadMs),
          image_ms: milliseconds(decodeMs + timings.imageMs),
          prompt_ms: milliseconds(timings.promptMs),
          decode_ms: milliseconds(timings.decodeMs),
        },
        finish_reason: finishReason,
        model: name,
        precision: llava.precision.precision,
        device: llava.device,
      }
      writeLine(stdout, JSON.stringify(result))
      return
    }
    let begun = false
    try {
      for await (const text of llava.answer(request)) {
        begun = true
        stdout.write(stdout.live ? printable(text) : text)
      }
      begun = true // an empty answer is a line too
    } finally {
      if (begun) writeLine(stdout)
    }
  })
}

/**
 * Tells pictures from the question, which comes last.
 * @throws RangeError when the question is empty, or is a file: then it was forgotten or put first
 */
export async function readWords(words: readonly string[]): Promise<{ pictures: string[]; question: string }> {
  const question = words.at(-1) ?? ''
  if (question.trim() === '') {
    throw new RangeError('Cannot ask: the question is empty, expected llava ask IMAGE… QUESTION')
  }
  if (question === '-' || (await kindOf(question)) === 'file') {
    throw new RangeError(
      `Cannot ask: found the file ${question} in the place of the question, expected llava ask IMAGE… QUESTION`,
    )
  }
  const pictures = words.slice(0, -1)
  if (pictures.filter((picture) => picture === '-').length > 1) {
    throw new RangeError('Cannot ask: found - more than once, expected one picture from standard input')
  }
  return { pictures, question }
}
