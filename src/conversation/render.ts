/**
 * From turns to segments: the rendered forms of the published templates, and which parts of them carry loss
 * (Visual Instruction Tuning, section 4.2: only the answers and their end token are learned).
 *
 * two-separators    {system} USER: {m1} ASSISTANT: {a1}</s>USER: {m2} ASSISTANT:
 * single-separator  {system}###Human: {m1}###Assistant: {a1}###Human: {m2}###Assistant:
 * llama-2           [INST] <<SYS>>\n{system}\n<</SYS>>\n\n{m1} [/INST] {a1} </s><s>[INST] {m2} [/INST]
 * chatml            <|im_start|>system\n{system}<|im_end|><|im_start|>user\n{m1}<|im_end|><|im_start|>assistant\n
 * plain             {picture}{caption}\n
 *
 * Pictures come first in their turn, each followed by a line break. A person who types ` ASSISTANT: ` writes the very
 * text that a template without role tokens writes; only templates with role tokens (chatml) tell the two apart.
 */
import type { Template } from './templates.ts'
import { countPictures, type Turn, textOf } from './turns.ts'

/** Text in which no special token is recognised, a special token by its name, or a picture. */
export type Segment =
  | { readonly text: string; readonly loss: boolean }
  | { readonly token: string; readonly loss: boolean }
  | { readonly image: true }

/** A question about pictures and its answer; the last one may be open. */
export type Exchange = {
  readonly pictures: number
  readonly question: string
  readonly answer: string | undefined
}

export type RenderOptions = {
  /** Ends the prompt where the assistant starts to speak; the last turn must be the user's. */
  generationPrompt?: boolean
}

/**
 * Segments of a conversation in a published template, without the first `<s>`, which is the tokenizer's.
 *
 * @throws RangeError when roles do not alternate, a text is empty, or a picture is not in a user turn
 */
export function renderTurns(template: Template, turns: readonly Turn[], options: RenderOptions = {}): Segment[] {
  const plain = template.style === 'plain'
  const { system = template.system, exchanges } = readExchanges(turns, { ...options, allowEmptyQuestion: plain })
  switch (template.style) {
    case 'two-separators':
      return exchanges.flatMap((exchange, index) => [
        prompt(`${index === 0 && system !== '' ? `${system} ` : ''}${template.user}: `),
        ...pictures(exchange),
        prompt(`${exchange.question} ${template.assistant}:`),
        ...answer(template, exchange, ' '),
      ])
    case 'single-separator':
      return exchanges.flatMap((exchange, index) => [
        prompt(`${index === 0 ? `${system}###` : ''}${template.user}: `),
        ...pictures(exchange),
        prompt(`${exchange.question}###${template.assistant}:`),
        ...answer(template, exchange, ' '),
      ])
    case 'llama-2':
      return exchanges.flatMap((exchange, index) => [
        ...(index > 0 && template.restart !== undefined ? [token(template.restart)] : []),
        prompt(`[INST] ${index === 0 && system !== '' ? `<<SYS>>\n${system}\n<</SYS>>\n\n` : ''}`),
        ...pictures(exchange),
        prompt(`${exchange.question} [/INST]`),
        ...answer(template, exchange, ' ', ' '),
      ])
    case 'chatml':
      return [
        ...(system === '' ? [] : [token('<|im_start|>'), prompt(`system\n${system}`), token('<|im_end|>')]),
        ...exchanges.flatMap((exchange) => [
          token('<|im_start|>'),
          prompt(`${template.user}\n`),
          ...pictures(exchange),
          prompt(exchange.question),
          token('<|im_end|>'),
          ...(exchange.answer === undefined && !options.generationPrompt
            ? []
            : [token('<|im_start|>'), prompt(`${template.assistant}\n`)]),
          ...answer(template, exchange),
        ]),
      ]
    case 'plain':
      return renderPlain(template, exchanges)
  }
}

/**
 * Checked exchanges of a conversation: an optional system turn, then user and assistant in turn.
 *
 * @throws RangeError naming the turn that breaks the order, is empty or shows a picture where none can be
 */
export function readExchanges(
  turns: readonly Turn[],
  { generationPrompt = false, allowEmptyQuestion = false }: RenderOptions & { allowEmptyQuestion?: boolean } = {},
): { system?: string; exchanges: Exchange[] } {
  const system = turns[0]?.role === 'system' ? turns[0] : undefined
  const start = system === undefined ? 0 : 1
  if (turns.length === start) throw new RangeError('Cannot render the conversation: found no question')
  for (const [index, turn] of turns.entries()) {
    const expected = index < start ? 'system' : (index - start) % 2 === 0 ? 'user' : 'assistant'
    if (turn.role !== expected) {
      throw new RangeError(`Cannot render turn ${index}: found role ${turn.role}, expected ${expected}`)
    }
    if (turn.role !== 'user' && countPictures([turn]) > 0) {
      throw new RangeError(
        `Cannot render turn ${index}: found a picture in a turn of role ${turn.role}, expected text only`,
      )
    }
    if (textOf(turn).trim() === '' && turn.role !== 'system' && !(turn.role === 'user' && allowEmptyQuestion)) {
      const kind = turn.role === 'user' ? 'question' : 'answer'
      throw new RangeError(`Cannot render turn ${index}: found an empty ${kind}, expected text`)
    }
  }
  if (generationPrompt && turns.at(-1)?.role !== 'user') {
    throw new RangeError('Cannot add a generation prompt: found an assistant turn at the end, expected a question')
  }
  const exchanges: Exchange[] = []
  for (let index = start; index < turns.length; index += 2) {
    const [question, reply] = turns.slice(index, index + 2)
    if (question === undefined) break
    exchanges.push({
      pictures: countPictures([question]),
      question: textOf(question),
      answer: reply === undefined ? undefined : textOf(reply),
    })
  }
  return system === undefined ? { exchanges } : { system: textOf(system), exchanges }
}

/** The rendered conversation as one string, for reading and for logs; never feed it to a tokenizer. */
export function segmentsToText(segments: readonly Segment[]): string {
  return segments
    .map((segment) => ('text' in segment ? segment.text : 'token' in segment ? segment.token : '<image>'))
    .join('')
}

function renderPlain(template: Template, exchanges: readonly Exchange[]): Segment[] {
  const [first, ...rest] = exchanges
  if (first === undefined || rest.length > 0) {
    throw new RangeError(
      `Cannot render captions: found ${exchanges.length} exchanges, expected one picture and caption`,
    )
  }
  const images = Array.from({ length: first.pictures }, (): Segment => ({ image: true }))
  return [...images, ...answer(template, first)]
}

function prompt(text: string): Segment {
  return { text, loss: false }
}

function token(name: string): Segment {
  return { token: name, loss: false }
}

function pictures({ pictures }: Exchange): Segment[] {
  return Array.from({ length: pictures }, (): Segment[] => [{ image: true }, prompt('\n')]).flat()
}

/** The learned part. The space before an answer belongs to it: a generation prompt ends without one. */
function answer({ end }: Template, { answer }: Exchange, before = '', after = ''): Segment[] {
  if (answer === undefined) return []
  const text = `${before}${answer}${after}`
  return [{ text, loss: true }, 'token' in end ? { token: end.token, loss: true } : { text: end.text, loss: true }]
}
