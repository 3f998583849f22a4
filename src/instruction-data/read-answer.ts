/** What a teacher wrote, read as questions and answers; and the same the other way round, for teachers that are programs. */

import type { Task } from './requests.ts'

export type Exchange = { readonly question: string; readonly answer: string }

/** A line of equals signs separates questions and answers; models vary their number and add marks of their own. */
const separator = /^\s*(?:={3,}|-{3,})\s*$/m
const label = /^[\s*#_]*(question|answer|q|a)\s*(?:\d+)?[\s*_]*:[\s*_]*/i

/**
 * The questions and answers of a response. A description answers the question of its task; the other types bring theirs.
 * @throws SyntaxError when it is not written as the prompt asks
 */
export function readAnswer({ type, question }: Pick<Task, 'type' | 'question'>, text: string): Exchange[] {
  const whole = text.trim()
  if (whole === '') throw new SyntaxError('found nothing, expected a response')
  if (type === 'detailed-description') {
    return [{ question: question ?? '', answer: label.test(whole) ? (readBlocks(whole)[0]?.answer ?? whole) : whole }]
  }
  const exchanges = readBlocks(whole)
  if (type === 'complex-reasoning' && exchanges.length > 1) {
    throw new SyntaxError(`found ${exchanges.length} questions, expected one`)
  }
  return exchanges
}

/** The form that the prompts ask for. */
export function writeAnswer(exchanges: readonly Exchange[]): string {
  return exchanges.map(({ question, answer }) => `Question:\n${question}\n===\nAnswer:\n${answer}`).join('\n===\n')
}

function readBlocks(text: string): Exchange[] {
  const blocks = text.split(separator).flatMap((part) => labelled(part.trim()))
  const exchanges: Exchange[] = []
  for (let at = 0; at < blocks.length; at += 2) {
    const [asked, answered] = [blocks[at], blocks[at + 1]]
    if (asked?.kind !== 'question')
      throw new SyntaxError(`found ${asked?.kind ?? 'nothing'} as part ${at + 1}, expected a question`)
    if (answered?.kind !== 'answer')
      throw new SyntaxError(
        `found ${answered === undefined ? 'nothing' : `a ${answered.kind}`} after the question "${shortened(asked.text)}", expected its answer`,
      )
    exchanges.push({ question: asked.text, answer: answered.text })
  }
  if (exchanges.length === 0) throw new SyntaxError('found no questions, expected "Question:", "===" and "Answer:"')
  return exchanges
}

type Block = { readonly kind: 'question' | 'answer'; readonly text: string }

/** Parts without a separator between question and answer are cut at their labels. */
function labelled(part: string): Block[] {
  if (part === '') return []
  const pieces = part.split(/^(?=[\s*#_]*(?:question|answer)\s*\d*[\s*_]*:)/im)
  return pieces.flatMap((piece): Block[] => {
    const found = label.exec(piece)
    const text = piece.replace(label, '').trim()
    if (found === null)
      throw new SyntaxError(`found "${shortened(piece.trim())}" without "Question:" or "Answer:" before it`)
    if (text === '') throw new SyntaxError(`found an empty ${found[1]?.toLowerCase()}`)
    return [{ kind: found[1]?.toLowerCase().startsWith('q') ? 'question' : 'answer', text }]
  })
}

function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}
