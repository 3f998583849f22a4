/** Checks of what a teacher wrote. Each finds one kind of mistake and says it in a sentence; none decides alone what becomes of the row. */

import type { Prompts } from './prompts.ts'
import type { Exchange } from './read-answer.ts'
import type { Task } from './requests.ts'

/** A response that was read, before it becomes a row. */
export type Draft = {
  readonly task: Task
  readonly exchanges: readonly Exchange[]
  /** Why the teacher stopped. */
  readonly finish: string
}

export type Validator = {
  readonly name: string
  /** What is wrong, in one sentence; undefined when nothing is. */
  readonly check: (draft: Draft) => string | undefined
}

export type Verdict = { readonly validator: string; readonly problem: string }

export function judge(draft: Draft, validators: readonly Validator[]): Verdict[] {
  return validators.flatMap(({ name, check }) => {
    const problem = check(draft)
    return problem === undefined ? [] : [{ validator: name, problem }]
  })
}

/** Checks of the words alone; those that need boxes are in grounding.ts. */
export function wordValidators(prompts: Prompts): Validator[] {
  return [
    {
      name: 'complete',
      check: ({ finish }) => (finish === 'length' ? 'the response was cut off at its longest length' : undefined),
    },
    { name: 'prompt-echo', check: echoCheck(prompts) },
    { name: 'refusal', check: onAnswers(refusal, 'the teacher refuses or speaks of itself') },
    { name: 'length', check: checkLength },
    { name: 'language', check: checkLanguage },
    { name: 'duplicate-question', check: checkDuplicates },
    { name: 'cites-source', check: checkSources },
    { name: 'only-yes', check: checkYes },
  ]
}

const refusal =
  /\b(?:as an? (?:ai|language model|text[- ]based)|i(?:'m| am) (?:sorry|unable|not able)|i (?:cannot|can't|can not) (?:assist|help|see|view|provide|answer)|(?:don't|do not) have access to)\b/i
const source =
  /\b(?:captions?|bounding boxes|bounding box|coordinates?|(?:the|these|given|provided) (?:sentences|descriptions)|(?:the|given|provided) (?:list|context))\b/i
/** A corner of a box, or two shares beside one another. */
const numbersOfBoxes = /\[\s*[01]?\.\d+|\b0\.\d{2,3}\b\s*,\s*[01]?\.\d+/

function onAnswers(pattern: RegExp, problem: string) {
  return ({ exchanges }: Draft): string | undefined => {
    const found = exchanges
      .map(({ answer }) => pattern.exec(answer.replaceAll('’', "'"))?.[0])
      .find((text) => text !== undefined)
    return found === undefined ? undefined : `${problem}: "${found}"`
  }
}

/** So many words in a row that the prompt has as well are no coincidence. */
const echoedWords = 10

function echoCheck(prompts: Prompts): Validator['check'] {
  const told = new Map(
    Object.values(prompts).map(({ type, system, examples }) => {
      const texts = [system, ...examples.map(({ answer }) => answer)]
      return [type, new Set(texts.flatMap((text) => [...sequences(wordsOf(text))]))]
    }),
  )
  return ({ task, exchanges }) => {
    const known = told.get(task.type)
    for (const { question, answer } of exchanges) {
      for (const words of task.type === 'detailed-description' ? [answer] : [question, answer]) {
        for (const sequence of sequences(wordsOf(words)))
          if (known?.has(sequence)) return `it repeats the prompt: "${sequence}"`
      }
    }
    return undefined
  }
}

function* sequences(words: readonly string[]): Generator<string> {
  for (let at = 0; at + echoedWords <= words.length; at++) yield words.slice(at, at + echoedWords).join(' ')
}

/** Words of an answer: fewest and most. */
const lengths = { conversation: [1, 300], 'detailed-description': [12, 500], 'complex-reasoning': [4, 500] } as const
const longestQuestion = 80

function checkLength({ task, exchanges }: Draft): string | undefined {
  const [fewest, most] = lengths[task.type]
  for (const { question, answer } of exchanges) {
    const [asked, answered] = [wordsOf(question).length, wordsOf(answer).length]
    if (asked < 2 || asked > longestQuestion) return `a question has ${asked} words, expected 2 to ${longestQuestion}`
    if (answered < fewest || answered > most) return `an answer has ${answered} words, expected ${fewest} to ${most}`
  }
  return undefined
}

/** The words of which English sentences consist for the greater part; no text of some length has few of them. */
const frequent = new Set(
  'the a an and or of to in on at is are was were be it its there this that with by for as from not no yes they he she his her their has have which what where who how can could while into near next'.split(
    ' ',
  ),
)
const fewestWordsJudged = 20
const leastFrequent = 0.2
const mostForeignLetters = 0.1

function checkLanguage({ exchanges }: Draft): string | undefined {
  const text = exchanges.map(({ question, answer }) => `${question} ${answer}`).join(' ')
  const letters = text.match(/\p{L}/gu)?.length ?? 0
  const foreign = text.match(/[^\P{L}\p{Script=Latin}]/gu)?.length ?? 0
  if (foreign > mostForeignLetters * letters)
    return `${foreign} of ${letters} letters are not of the Latin alphabet, expected English`
  const words = wordsOf(text)
  const share = words.filter((word) => frequent.has(word)).length / words.length
  if (words.length < fewestWordsJudged || share >= leastFrequent) return undefined
  return `${Math.round(share * 100)} % of the words are frequent English ones, expected at least ${leastFrequent * 100} %`
}

function checkDuplicates({ exchanges }: Draft): string | undefined {
  const asked = new Set<string>()
  for (const { question } of exchanges) {
    const words = wordsOf(question).join(' ')
    if (asked.has(words)) return `a question comes twice: "${question}"`
    asked.add(words)
  }
  return undefined
}

function checkSources({ exchanges }: Draft): string | undefined {
  for (const { question, answer } of exchanges) {
    const found = [question, answer]
      .map((text) => source.exec(text)?.[0] ?? numbersOfBoxes.exec(text)?.[0])
      .find(Boolean)
    if (found !== undefined) return `it speaks of what the teacher was told: "${found}"`
  }
  return undefined
}

/** With so many yes-or-no questions in one conversation, one should be denied. */
const mostOnlyYes = 3

function checkYes({ exchanges }: Draft): string | undefined {
  const { yes, no } = countYesNo(exchanges)
  return yes > mostOnlyYes && no === 0 ? `all ${yes} yes-or-no questions are answered with yes` : undefined
}

/** Answers that begin with yes, and with no. */
export function countYesNo(exchanges: readonly Exchange[]): { yes: number; no: number } {
  const first = exchanges.map(({ answer }) => wordsOf(answer)[0])
  return { yes: first.filter((word) => word === 'yes').length, no: first.filter((word) => word === 'no').length }
}

function wordsOf(text: string): string[] {
  return (
    text
      .toLowerCase()
      .replaceAll('’', "'")
      .match(/[\p{L}\d]+(?:'\p{L}+)?/gu) ?? []
  )
}
