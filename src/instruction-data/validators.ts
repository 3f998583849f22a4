/** Checks of what a teacher wrote. Each finds one kind of mistake and says it in a sentence; none decides alone what becomes of the row. */

import type { Prompts } from './prompts.ts'
import type { Exchange } from './read-answer.ts'
import type { Task } from './requests.ts'

/** A response that was read. */
export type ReadResponse = {
  readonly task: Task
  readonly exchanges: readonly Exchange[]
  /** Why the teacher stopped. */
  readonly finish: string
}

/** The same before it becomes a row, as validators see it. */
export type Draft = ReadResponse & {
  /** The words of each exchange, in lower case. */
  readonly words: readonly { readonly question: readonly string[]; readonly answer: readonly string[] }[]
}

export type Validator = {
  readonly name: string
  /** What is wrong, in one sentence; undefined when nothing is. */
  readonly check: (draft: Draft) => string | undefined
}

export type Verdict = { readonly validator: string; readonly problem: string }

export function judge(response: ReadResponse, validators: readonly Validator[]): Verdict[] {
  if (validators.length === 0) return []
  const words = response.exchanges.map(({ question, answer }) => ({
    question: wordsOf(question),
    answer: wordsOf(answer),
  }))
  const draft = { ...response, words }
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
      const texts = [system, ...examples.map(({ answer }) => answer)].map(wordsOf)
      return [type, { words: new Set(texts.flat()), sequences: new Set(texts.flatMap(sequencesIn)) }]
    }),
  )
  return ({ task, words }) => {
    const known = told.get(task.type)
    if (known === undefined) return undefined
    for (const { question, answer } of words) {
      for (const text of task.type === 'detailed-description' ? [answer] : [question, answer]) {
        const echo = firstEcho(text, known)
        if (echo !== undefined) return `it repeats the prompt: "${echo}"`
      }
    }
    return undefined
  }
}

/** Only where so many words in a row occur in the prompt at all, they are compared as a whole. */
function firstEcho(
  text: readonly string[],
  { words, sequences }: { words: ReadonlySet<string>; sequences: ReadonlySet<string> },
): string | undefined {
  let inARow = 0
  for (const [at, word] of text.entries()) {
    inARow = words.has(word) ? inARow + 1 : 0
    if (inARow < echoedWords) continue
    const sequence = text.slice(at + 1 - echoedWords, at + 1).join(' ')
    if (sequences.has(sequence)) return sequence
  }
  return undefined
}

function sequencesIn(words: readonly string[]): string[] {
  return words.slice(echoedWords - 1).map((_, at) => words.slice(at, at + echoedWords).join(' '))
}

/** Words of an answer: fewest and most. */
const lengths = { conversation: [1, 300], 'detailed-description': [12, 500], 'complex-reasoning': [4, 500] } as const
const longestQuestion = 80

function checkLength({ task, words }: Draft): string | undefined {
  const [fewest, most] = lengths[task.type]
  for (const { question, answer } of words) {
    const [asked, answered] = [question.length, answer.length]
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

function checkLanguage({ exchanges, words: said }: Draft): string | undefined {
  const text = exchanges.map(({ question, answer }) => `${question} ${answer}`).join(' ')
  const foreign = text.match(/[^\P{L}\p{Script=Latin}]/gu)?.length ?? 0
  const letters = foreign === 0 ? 0 : (text.match(/\p{L}/gu)?.length ?? 0)
  if (foreign > mostForeignLetters * letters)
    return `${foreign} of ${letters} letters are not of the Latin alphabet, expected English`
  const words = said.flatMap(({ question, answer }) => [...question, ...answer])
  const share = words.filter((word) => frequent.has(word)).length / words.length
  if (words.length < fewestWordsJudged || share >= leastFrequent) return undefined
  return `${Math.round(share * 100)} % of the words are frequent English ones, expected at least ${leastFrequent * 100} %`
}

function checkDuplicates({ exchanges, words }: Draft): string | undefined {
  const asked = new Set<string>()
  for (const [index, { question }] of words.entries()) {
    const text = question.join(' ')
    if (asked.has(text)) return `a question comes twice: "${exchanges[index]?.question}"`
    asked.add(text)
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

const word = /[\p{L}\d]+(?:'\p{L}+)?/gu
const firstWord = /[\p{L}\d]+(?:['’]\p{L}+)?/u

/** Answers that begin with yes, and with no. */
export function countYesNo(exchanges: readonly Exchange[]): { yes: number; no: number } {
  const first = exchanges.map(({ answer }) => firstWord.exec(answer)?.[0].toLowerCase())
  return { yes: first.filter((word) => word === 'yes').length, no: first.filter((word) => word === 'no').length }
}

function wordsOf(text: string): string[] {
  return text.toLowerCase().replaceAll('’', "'").match(word) ?? []
}
