/** `llava chat [IMAGE…]`: a conversation about pictures, typed on a terminal or read line by line from a pipe. */

import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import { decodeImage } from '../image/decode.ts'
import type { Pixels } from '../image/pixels.ts'
import type { Conversation } from '../llava.ts'
import { type ChatLine, readChatLine } from './chat-line.ts'
import type { CommandContext } from './context.ts'
import { explain } from './errors.ts'
import {
  addModelOptions,
  addSamplingOptions,
  type ModelOptions,
  type SamplingChoices,
  samplingOf,
  withModel,
} from './model-options.ts'
import { paint, printable, writeLine } from './terminal.ts'

type ChatOptions = ModelOptions & SamplingChoices

export function addChatCommand(program: Command, context: CommandContext): void {
  const command = program
    .command('chat')
    .description('talk about pictures, turn after turn')
    .argument('[images...]', 'pictures that the first question is about')
  addSamplingOptions(addModelOptions(command))
    .addHelpText(
      'after',
      `
Examples:
  $ llava chat photo.jpg
  $ printf 'What is in the picture?\\nHow many are there?\\n' | llava chat photo.jpg

In the chat: /image PATH adds a picture, /clear starts anew, /help lists the commands, /quit leaves.
Ctrl-C stops an answer; once more, or while nothing is being answered, it leaves.`,
    )
    .action((images: string[], options: ChatOptions) => chat(images, options, context))
}

const help = [
  '/image PATH   add a picture to your next question',
  '/clear        forget the conversation and its pictures',
  '/help         this list',
  '/quit         leave (also Ctrl-D)',
  'Ctrl-C        stop the answer; once more, or while idle: leave',
]

type Session = {
  readonly conversation: Conversation
  /** Pictures for the next question. */
  pictures: Pixels[]
  /** Stops the answer that is being given. */
  answering: AbortController | undefined
  /** Lines that could not be answered. */
  failures: number
}

async function chat(images: readonly string[], options: ChatOptions, context: CommandContext): Promise<void> {
  const { stdout, watch } = context
  const pictures = await Promise.all(images.map((image) => decodeImage(image, { signal: watch.signal })))
  await withModel(options, context, async (llava, { name }) => {
    const session: Session = { conversation: llava.conversation(), pictures, answering: undefined, failures: 0 }
    const lines = readLines(session, context)
    if (lines.typed) {
      const about = pictures.length > 0 ? `, ${pictures.length} picture${pictures.length > 1 ? 's' : ''} at hand` : ''
      writeLine(stdout, paint(stdout, 'dim', `${printable(name)}${about}. /help lists the commands.`))
    }
    lines.prompt()
    try {
      for await (const text of lines.reader) {
        if (watch.signal.aborted) break
        const line = readChatLine(text)
        if (line.kind === 'quit') break
        await obey(line, { session, options, context }).catch((error) => {
          if (watch.signal.aborted) return
          session.failures++
          writeLine(context.stderr, `llava: ${explain(error)}`)
        })
        lines.prompt()
      }
    } finally {
      lines.close()
      session.conversation.dispose()
    }
    // A script wants to know; a person has seen it.
    if (!lines.typed && session.failures > 0) process.exitCode = 1
  })
}

/** The lines of standard input, with a prompt before each where a person types them. */
function readLines(session: Session, { stdout, watch }: CommandContext) {
  const typed = process.stdin.isTTY === true && stdout.live
  const reader = createInterface({
    input: process.stdin,
    ...(typed && { output: process.stdout, prompt: paint(stdout, 'cyan', '> ') }),
    terminal: typed,
    crlfDelay: Number.POSITIVE_INFINITY,
  })
  // With a terminal in raw mode, Ctrl-C comes as a key and not as a signal.
  reader.on('SIGINT', () => {
    if (session.answering === undefined || session.answering.signal.aborted) watch.interrupt(130)
    else session.answering.abort()
  })
  let closed = false
  reader.on('close', () => {
    closed = true
  })
  const leave = () => {
    session.answering?.abort()
    reader.close()
  }
  watch.signal.addEventListener('abort', leave, { once: true })
  return {
    reader,
    typed,
    prompt: () => {
      if (typed && !closed) reader.prompt()
    },
    close: () => {
      watch.signal.removeEventListener('abort', leave)
      if (typed && closed) writeLine(stdout) // Ctrl-C and Ctrl-D leave the cursor behind the prompt
      reader.close()
    },
  }
}

async function obey(
  line: ChatLine,
  { session, options, context: { stdout, watch } }: { session: Session; options: ChatOptions; context: CommandContext },
): Promise<void> {
  switch (line.kind) {
    case 'empty':
    case 'quit':
      return
    case 'help':
      for (const text of help) writeLine(stdout, text)
      return
    case 'clear':
      session.conversation.clear()
      session.pictures = []
      return
    case 'unknown':
      throw new Error(`Cannot obey ${line.name}: expected /image, /clear, /help or /quit`)
    case 'image':
      if (line.path === '') throw new Error('Cannot add a picture: expected /image PATH')
      session.pictures.push(await decodeImage(line.path, { signal: watch.signal }))
      return
    case 'question':
      await answer(line.text, { session, options, stdout })
  }
}

async function answer(
  question: string,
  { session, options, stdout }: { session: Session; options: ChatOptions; stdout: CommandContext['stdout'] },
): Promise<void> {
  const controller = new AbortController()
  const { signal } = controller
  const { conversation, pictures } = session
  const turns = conversation.history.length
  session.answering = controller
  let said = ''
  try {
    for await (const text of conversation.say({ question, images: pictures, ...samplingOf(options), signal })) {
      stdout.write(stdout.live ? printable(text) : text)
      said += text
    }
  } finally {
    session.answering = undefined
    // A turn without an answer is taken back: its pictures wait for the next question.
    if (conversation.history.length > turns) session.pictures = []
    const note = signal.aborted ? '(stopped)' : said === '' ? '(no answer)' : ''
    const separator = said !== '' && note !== '' ? ' ' : ''
    writeLine(stdout, separator + paint(stdout, 'dim', note))
  }
}
