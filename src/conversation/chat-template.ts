/**
 * Chat templates of checkpoints (Jinja, `chat_template.jinja` or `chat_template` in a config), rendered so that text
 * of a person can inject neither a special token nor a picture.
 *
 * The template never sees the texts. It is rendered with an unguessable run of private-use characters in the place of
 * each text, and the result is cut there: what stands between is the template's own and may hold special tokens, the
 * texts go in as text. The price: a template that looks into a text or changes it (trim, split at `</think>`) sees the
 * stand-in, so the text goes in unchanged. A template that does not come to an end is stopped.
 */
import { randomInt } from 'node:crypto'
import { z } from 'zod'
import { type JinjaProgram, parseJinja, runJinja } from './bounded-jinja.ts'
import { type RenderOptions, readExchanges, type Segment } from './render.ts'
import type { Tokenizer } from './tokenizer.ts'
import { countPictures, type Turn, textOf } from './turns.ts'

export type ChatTemplate = {
  readonly style: 'jinja'
  readonly program: JinjaProgram
  readonly marksAnswers: boolean // whether the source has {% generation %} around what is learned
  readonly pictureToken: string // what the template writes for a picture
  readonly variables: Readonly<Record<string, string>> // bos_token, eos_token … for the template
  readonly marks: Marks
}

/** Stand-ins made of private-use characters, drawn anew for each loaded template. */
type Marks = {
  readonly open: string
  readonly close: string
  readonly canary: string
  readonly from: string
  readonly to: string
}

type Slot = { readonly text: string; readonly learned: boolean } | { readonly image: true }

const LONGEST_SOURCE = 200_000 // characters; published templates stay below 30 000
const LONGEST_OUTPUT = 5_000_000

const templateField = z.union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))])
const configFile = z.looseObject({ chat_template: templateField.optional() })
const tokenField = z.union([z.string(), z.looseObject({ content: z.string() }).transform((token) => token.content)])

/**
 * Chat template of a checkpoint: `source` is the text of chat_template.jinja; without it the field `chat_template` of
 * `config` (tokenizer_config.json or chat_template.json) is read, the one named `default` if it is a list.
 *
 * @throws SyntaxError when the template cannot be parsed, RangeError when there is none or it is too long
 */
export function loadChatTemplate({
  source,
  config,
  pictureToken = '<image>',
}: {
  source?: string
  config?: unknown
  pictureToken?: string
}): ChatTemplate {
  const text = source ?? chatTemplateIn(config)
  if (text.length > LONGEST_SOURCE) {
    throw new RangeError(
      `Cannot load the chat template: found ${text.length} characters, expected at most ${LONGEST_SOURCE}`,
    )
  }
  const marks = drawMarks()
  const marksAnswers = /{%-?\s*generation\s*-?%}/.test(text)
  try {
    const program = marksAnswers
      ? parseJinja(showGenerationMarks(text, marks), { trimsBlocks: false }) // its white space is trimmed already
      : parseJinja(text, { trimsBlocks: true })
    return { style: 'jinja', program, marksAnswers, pictureToken, variables: readVariables(config), marks }
  } catch (cause) {
    throw new SyntaxError(`Cannot parse the chat template: ${messageOf(cause)}`, { cause })
  }
}

/**
 * Segments of a conversation in a checkpoint's own template.
 *
 * Answers carry loss where the template says so with {% generation %}, otherwise with the special token after them.
 *
 * @throws RangeError when turns are out of order or the template drops a text or a picture, Error when it fails
 */
export function renderChatTemplate(
  template: ChatTemplate,
  turns: readonly Turn[],
  { tokenizer, generationPrompt = false }: RenderOptions & { tokenizer: Pick<Tokenizer, 'addedTokens'> },
): Segment[] {
  readExchanges(turns, { generationPrompt })
  const failures: unknown[] = []
  // Templates for pictures read a list of parts, templates of plain language models one string.
  for (const layout of ['parts', 'string'] as const) {
    const slots: Slot[] = []
    const messages = turns.map((turn) => ({
      role: turn.role,
      content: contentOf(turn, { layout, slots, marks: template.marks }),
    }))
    try {
      const rendered = runJinja(template.program, {
        ...template.variables,
        messages,
        add_generation_prompt: generationPrompt,
      })
      if (rendered.includes(template.marks.canary)) continue
      checkOutput(rendered, { slots, marks: template.marks })
      const names = [...tokenizer.addedTokens.keys()]
      const segments = cut(rendered, { template, slots, names })
      const pictures = segments.filter((segment) => 'image' in segment).length
      if (pictures === countPictures(turns)) return segments
      throw new RangeError(`found ${pictures} pictures in its output, expected ${countPictures(turns)}`)
    } catch (cause) {
      failures.push(cause)
    }
  }
  // Of two failures the one that is not merely about the layout tells more.
  const [first, second = first] = failures
  const cause = second instanceof RangeError ? first : second
  const message = `Cannot render the chat template: ${messageOf(cause)}`
  throw cause instanceof RangeError ? new RangeError(message) : new Error(message, { cause })
}

/** Cuts the rendered string at the stand-ins and at special tokens, and decides what carries loss. */
function cut(
  rendered: string,
  { template, slots, names }: { template: ChatTemplate; slots: readonly Slot[]; names: readonly string[] },
): Segment[] {
  const { marks, marksAnswers, pictureToken } = template
  const own = [...new Set([...names, pictureToken])].sort((a, b) => b.length - a.length).map(escapeRegExp)
  const stops = new RegExp(
    `(${marks.open}[\\uE000-\\uE00F]+${marks.close}|${marks.from}|${marks.to}|${own.join('|')})`,
    'u',
  )
  const segments: Segment[] = []
  let learning = false // inside {% generation %}
  let answered = -1 // index of the last answer that waits for its end token
  for (const piece of rendered.split(stops)) {
    const slot = piece.startsWith(marks.open) ? slots[readIndex(piece, marks)] : undefined
    if (piece === '') continue
    if (piece === marks.from || piece === marks.to) learning = piece === marks.from
    else if (slot !== undefined && 'image' in slot) segments.push(slot)
    else if (slot !== undefined) {
      if (slot.learned) answered = segments.length
      segments.push({ text: slot.text, loss: marksAnswers ? learning : slot.learned })
    } else if (piece === pictureToken) segments.push({ image: true })
    else if (names.includes(piece)) {
      const ends = !marksAnswers && endsAnswer(segments, answered)
      if (ends) learnFrom(segments, answered)
      answered = -1
      segments.push({ token: piece, loss: ends || learning })
    } else segments.push({ text: piece, loss: learning })
  }
  return moveSpaces(segments)
}

/** Whether only white space stands between the last answer and the token that comes next. */
function endsAnswer(segments: readonly Segment[], answered: number): boolean {
  if (answered < 0) return false
  return segments.slice(answered + 1).every((segment) => 'text' in segment && segment.text.trim() === '')
}

function learnFrom(segments: Segment[], start: number): void {
  for (let index = start; index < segments.length; index++) {
    const segment = segments[index]
    if (segment !== undefined && 'text' in segment) segments[index] = { text: segment.text, loss: true }
  }
}

/** Spaces before an answer go to the answer: pieces start with their space, and a generation prompt ends without it. */
function moveSpaces(segments: readonly Segment[]): Segment[] {
  const moved = [...segments]
  for (const [index, segment] of moved.entries()) {
    const next = moved[index + 1]
    if (!('text' in segment) || segment.loss || next === undefined || !('text' in next) || !next.loss) continue
    const text = segment.text.replace(/ +$/, '')
    moved[index] = { text, loss: false }
    moved[index + 1] = { text: segment.text.slice(text.length) + next.text, loss: true }
  }
  return moved
}

/** Content of a message with stand-ins; `slots` collects what they stand for. */
function contentOf(
  turn: Turn,
  { layout, slots, marks }: { layout: 'parts' | 'string'; slots: Slot[]; marks: Marks },
): string | Record<string, string>[] {
  const standIn = (slot: Slot) => `${marks.open}${writeIndex(slots.push(slot) - 1)}${marks.close}`
  const learned = turn.role === 'assistant'
  if (layout === 'string') {
    const images = turn.content.filter((part) => part.type === 'image')
    return images.map(() => `${standIn({ image: true })}\n`).join('') + standIn({ text: textOf(turn), learned })
  }
  // The canary shows up when a template for strings prints the whole list.
  return turn.content.map((part) =>
    part.type === 'image'
      ? { type: 'image', canary: marks.canary }
      : { type: 'text', text: standIn({ text: part.text, learned }), canary: marks.canary },
  )
}

function checkOutput(rendered: string, { slots, marks }: { slots: readonly Slot[]; marks: Marks }): void {
  if (rendered.length > LONGEST_OUTPUT) {
    throw new RangeError(`found ${rendered.length} characters of output, expected at most ${LONGEST_OUTPUT}`)
  }
  const missing = slots.findIndex((_, index) => !rendered.includes(`${marks.open}${writeIndex(index)}${marks.close}`))
  if (missing >= 0)
    throw new RangeError(`found text or picture ${missing} missing from its output, expected all ${slots.length}`)
}

/** Turns {% generation %} and its end into printed marks, with the white space rules that block tags have. */
function showGenerationMarks(source: string, marks: Marks): string {
  return source
    .replace(/^[ \t]+(?={[%#])/gm, '')
    .replace(/(?<=[%#]})\n/g, '')
    .replace(/(\s*){%(-?)\s*(end)?generation\s*(-?)%}(\s*)/g, (_, before, left, end, right, after) => {
      return `${left ? '' : before}{{ '${end ? marks.to : marks.from}' }}${right ? '' : after}`
    })
}

/** The template in a parsed tokenizer_config.json or chat_template.json: the one named `default` where there are several. */
export function chatTemplateIn(config: unknown): string {
  const field = configFile.safeParse(config).data?.chat_template
  const source =
    typeof field === 'string' ? field : (field?.find((each) => each.name === 'default') ?? field?.[0])?.template
  if (source === undefined) throw new RangeError('Cannot load the chat template: found no field chat_template')
  return source
}

function readVariables(config: unknown): Record<string, string> {
  const fields = z.looseObject({}).safeParse(config).data ?? {}
  const names = ['bos_token', 'eos_token', 'pad_token', 'unk_token']
  return Object.fromEntries(
    names.flatMap((name) => {
      const token = tokenField.safeParse(fields[name])
      return token.success ? [[name, token.data]] : []
    }),
  )
}

/** Private-use characters survive trimming and changes of case, and stand in no published template. */
function drawMarks(): Marks {
  const nonce = () => Array.from({ length: 8 }, () => String.fromCharCode(0xe100 + randomInt(0x800))).join('')
  return {
    open: `\uE010${nonce()}`,
    close: '\uE011',
    canary: `\uE012${nonce()}`,
    from: `\uE013${nonce()}`,
    to: `\uE014${nonce()}`,
  }
}

function writeIndex(index: number): string {
  return Array.from(index.toString(16), (digit) => String.fromCharCode(0xe000 + Number.parseInt(digit, 16))).join('')
}

function readIndex(standIn: string, { open, close }: Marks): number {
  const digits = standIn.slice(open.length, -close.length)
  return Number.parseInt(Array.from(digits, (digit) => (digit.charCodeAt(0) - 0xe000).toString(16)).join(''), 16)
}

function escapeRegExp(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
