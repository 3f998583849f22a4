/** How a question asks for a single word in answer, and how such a request is taken off again. */
import { chooseWeighted, type Random } from './random.ts'
import type { Split } from './splits.ts'

/** The line by which LLaVA-1.5 asks for a short answer ("Improved Baselines with Visual Instruction Tuning", §3.2). */
export const shortAnswerPrompt = 'Answer the question using a single word or phrase.'

/** How people ask for one, after the question: LLaVA-1.5's line on a line of its own, or in other words. */
const shortAnswerRequests = [
  [`\n${shortAnswerPrompt}`, 4],
  [` ${shortAnswerPrompt}`, 1],
  [' Answer with a single word.', 1],
  [' Answer with a single word or phrase.', 1],
  [' Answer in one word.', 1],
  ['\nAnswer with a single word.', 1],
] as const

/** A question with a request for a short answer, in the words of LLaVA-1.5 where the wording is what is tested. */
export function askShortly(random: Random, question: string, { split }: { split: Split }): string {
  const request = split === 'held-out-phrasing' ? `\n${shortAnswerPrompt}` : chooseWeighted(random, shortAnswerRequests)
  return question + request
}

/** The question alone. */
export function withoutRequest(question: string): string {
  const request = shortAnswerRequests.find(([text]) => question.endsWith(text))
  return request === undefined ? question : question.slice(0, -request[0].length)
}
