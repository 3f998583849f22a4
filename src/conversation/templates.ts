/**
 * Chat templates of the published LLaVA models as data, and `picturebook` for our own; `render.ts` renders them.
 *
 * Names are the published ones, so that recipes of others can be followed word for word.
 */

/** The ways the published templates put a conversation together; see the rendered forms in `render.ts`. */
export type TemplateStyle = 'two-separators' | 'single-separator' | 'llama-2' | 'chatml' | 'plain'

export type Template = {
  readonly name: string
  readonly style: TemplateStyle
  readonly system: string // used when the conversation has no system turn of its own
  readonly user: string // name of the role in the text
  readonly assistant: string
  readonly end: Ending // what ends an answer: learned in training, a stop sign in generation
  readonly restart?: string // token between an ended answer and the next question
}

/** A special token, or plain text where the template has no token for it. */
export type Ending = { readonly token: string } | { readonly text: string }

const politeAnswers = (person: string) =>
  `A chat between a curious ${person} and an artificial intelligence assistant. ` +
  `The assistant gives helpful, detailed, and polite answers to the ${person}'s questions.`

const vicuna = {
  style: 'two-separators',
  user: 'USER',
  assistant: 'ASSISTANT',
  end: { token: '</s>' },
} as const satisfies Partial<Template>

const chatml = { style: 'chatml', user: 'user', assistant: 'assistant', end: { token: '<|im_end|>' } } as const

const llama2 = { style: 'llama-2', user: 'USER', assistant: 'ASSISTANT', end: { token: '</s>' } } as const

const all: readonly Template[] = [
  // LLaVA 1.5 training and evaluation.
  { name: 'vicuna_v1', ...vicuna, system: politeAnswers('user') },
  // The demo of LLaVA 1.5: the same with another system prompt.
  { name: 'llava_v1', ...vicuna, system: politeAnswers('human') },
  // The Hugging Face conversion of LLaVA 1.5 and our own models: no system prompt.
  { name: 'picturebook', ...vicuna, system: '' },
  {
    name: 'llava_llama_2',
    ...llama2,
    system:
      'You are a helpful language and vision assistant. ' +
      'You are able to understand the visual content that the user provides, ' +
      'and assist the user with a variety of tasks using natural language.',
    restart: '<s>',
  },
  { name: 'mistral_instruct', ...llama2, system: '' },
  { name: 'chatml_direct', ...chatml, system: 'Answer the questions.' },
  {
    name: 'mpt',
    ...chatml,
    system:
      'A conversation between a user and an LLM-based AI assistant. ' +
      'The assistant gives helpful and honest answers.',
  },
  {
    name: 'llava_v0',
    style: 'single-separator',
    user: 'Human',
    assistant: 'Assistant',
    system: politeAnswers('human'),
    end: { text: '###' },
  },
  // Stage feature-alignment: the caption follows the picture, the question is left out.
  { name: 'plain', style: 'plain', system: '', user: '', assistant: '', end: { text: '\n' } },
]

export const templates: ReadonlyMap<string, Template> = new Map(all.map((template) => [template.name, template]))

/** @throws RangeError listing the known names */
export function findTemplate(name: string): Template {
  const template = templates.get(name)
  if (template === undefined) {
    throw new RangeError(`Cannot find the template ${name}: expected one of ${[...templates.keys()].join(', ')}`)
  }
  return template
}
