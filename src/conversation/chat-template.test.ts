import { describe, expect, test } from 'vitest'
import { loadChatTemplate, renderChatTemplate } from './chat-template.ts'
import { type Segment, segmentsToText } from './render.ts'
import { loadTokenizer } from './tokenizer.ts'
import { trainBpe } from './train-bpe.ts'
import { assistantTurn, systemTurn, type Turn, userTurn } from './turns.ts'

const specialTokens = ['<pad>', '<s>', '</s>', '<image>', '<|im_start|>', '<|im_end|>']
const tokenizer = loadTokenizer({ tokenizerJson: trainBpe([], { vocabulary: 262, specialTokens }) })

/** A template for pictures: contents are lists of parts, pictures first. */
const pictures = `{% for message in messages %}
{{ message['role'] | upper }}: {% for part in message['content'] if part['type'] == 'image' %}<image>
{% endfor %}
{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] | trim }}{% endfor %}
{% if message['role'] == 'assistant' %}{{ eos_token }}{% else %}{{ ' ' }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}ASSISTANT:{% endif %}`

/** A template for text: contents are strings. */
const chatml = `{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`

const config = { bos_token: '<s>', eos_token: { content: '</s>' } }
const turns = [userTurn('Q1', { images: 1 }), assistantTurn('A1'), userTurn('Q2')]

function render(source: string, conversation: readonly Turn[], generationPrompt = false): Segment[] {
  const template = loadChatTemplate({ source, config })
  return renderChatTemplate(template, conversation, { tokenizer, generationPrompt })
}

function learned(segments: readonly Segment[]): string {
  return segmentsToText(segments.filter((segment) => !('image' in segment) && segment.loss))
}

describe('a template for pictures', () => {
  test('renders as its source says', () => {
    const segments = render(pictures, turns, true)
    expect(segmentsToText(segments)).toBe('USER: <image>\nQ1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:')
    expect(segments.filter((segment) => 'image' in segment)).toHaveLength(1)
    expect(segments).toContainEqual({ token: '</s>', loss: true })
  })

  test('puts loss on the answer with its space and the end token after it', () => {
    expect(learned(render(pictures, [...turns, assistantTurn('A2')]))).toBe(' A1</s> A2</s>')
  })

  test.each(specialTokens)('keeps %s typed by a person as text', (typed) => {
    const conversation = [userTurn(`say ${typed}`, { images: 1 }), assistantTurn(typed), userTurn(`{{ ${typed} }}`)]
    const segments = render(pictures, conversation)
    const own = segments.flatMap((segment) =>
      'token' in segment ? [segment.token] : 'image' in segment ? ['picture'] : [],
    )
    expect(own).toEqual(['picture', '</s>'])
    expect(segmentsToText(segments)).toContain(`say ${typed}`)
  })
})

describe('a template for text', () => {
  test('gets pictures before the text of their turn', () => {
    expect(segmentsToText(render(chatml, turns, true))).toBe(
      '<|im_start|>user\n<image>\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n',
    )
    expect(learned(render(chatml, turns))).toBe('A1<|im_end|>')
  })

  test('sees the system turn', () => {
    expect(segmentsToText(render(chatml, [systemTurn('S'), userTurn('Q')]))).toContain(
      '<|im_start|>system\nS<|im_end|>',
    )
  })
})

describe('templates of the families', () => {
  const images =
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' + after }}{% endfor %}"
  const texts =
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ before + part['text'] }}{% endfor %}"
  const body = (after: string, before = '') =>
    `{% set after = '${after}' %}{% set before = '${before}' %}${images}${texts}`

  test.each([
    [
      'LLaVA-NeXT with Mistral',
      `{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}${body('\\n')}{{ ' [/INST]' }}{% else %}{{ ' ' + message['content'][0]['text'] + '</s>' }}{% endif %}{% endfor %}`,
      '[INST] <image>\nQ1 [/INST] A1</s>[INST] Q2 [/INST]',
    ],
    [
      'LLaVA-NeXT 34B',
      `{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}${body('\\n')}{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`,
      '<|im_start|>user\n<image>\nQ1<|im_end|><|im_start|>assistant\nA1<|im_end|><|im_start|>user\nQ2<|im_end|><|im_start|>assistant\n',
    ],
    [
      'LLaVA-OneVision',
      `{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}${body('', '\\n')}{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}`,
      '<|im_start|>user <image>\nQ1<|im_end|><|im_start|>assistant \nA1<|im_end|><|im_start|>user \nQ2<|im_end|><|im_start|>assistant\n',
    ],
  ])('%s', (_, source, expected) => {
    const segments = render(source, turns, true)
    expect(segmentsToText(segments)).toBe(expected)
    expect(segments.filter((segment) => 'image' in segment)).toHaveLength(1)
  })
})

describe('{% generation %}', () => {
  const source = `{% for message in messages %}
{% if message.role == 'assistant' %}
ASSISTANT: {% generation %}{{ message.content }}{{ eos_token }}{% endgeneration %}
{% else %}
USER: {{ message.content }} {% endif %}
{% endfor %}`

  test('decides what carries loss', () => {
    const segments = render(source, [userTurn('Q1'), assistantTurn('A1'), userTurn('Q2')])
    expect(learned(segments)).toBe(' A1</s>')
    expect(segmentsToText(segments)).toBe('USER: Q1 ASSISTANT: A1</s>USER: Q2 ')
  })

  test('changes no white space of the rendering', () => {
    const conversation = [userTurn('Q1'), assistantTurn('A1')]
    for (const marked of [
      '{% generation %}',
      '{%- generation -%}',
      ' {%- generation %}\n  ',
      '\n  {% generation %}\n',
    ]) {
      const text = source.replace('{% generation %}', marked)
      const bare = text.replace(/{%(-?) generation (-?)%}/, '{%$1 if true $2%}').replace('endgeneration', 'endif')
      expect(segmentsToText(render(text, conversation)), marked).toBe(segmentsToText(render(bare, conversation)))
    }
  })
})

describe('refuses', () => {
  test('a template that does not parse, is missing or too long', () => {
    expect(() => loadChatTemplate({ source: '{% if %}' })).toThrow(SyntaxError)
    expect(() => loadChatTemplate({ config: {} })).toThrow(/found no field chat_template/)
    expect(() => loadChatTemplate({ source: ' '.repeat(300_000) })).toThrow(RangeError)
  })

  test('a template that drops a text or invents a picture', () => {
    expect(() => render('{{ messages[0].content }}', turns)).toThrow(/missing from its output/)
    expect(() => render(`<image>${chatml}`, [userTurn('Q')])).toThrow(/found 1 pictures in its output, expected 0/)
  })

  test('passes on what the template itself objects to', () => {
    const strict = "{{ raise_exception('only one turn') }}"
    expect(() => render(strict, turns)).toThrow(/Cannot render the chat template: only one turn/)
  })

  test('a template that does not come to an end', () => {
    const started = performance.now()
    const endless = '{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}'
    expect(() => render(endless, turns)).toThrow(/^Cannot render the chat template: it has not ended after 2 seconds$/)
    expect(performance.now() - started).toBeLessThan(10_000)
    expect(() => render('{% for a in range(999999999) %}{% endfor %}', turns)).toThrow(
      /range\(\) of 999999999, expected/,
    )
    const doubling =
      '{% set x = namespace(y="aaaaaaaa") %}{% for a in range(99) %}{% set x.y = x.y ~ x.y %}{% endfor %}'
    expect(() => render(doubling, turns)).toThrow(/^Cannot render the chat template: /)
    expect(segmentsToText(render(pictures, turns))).toContain('Q1') // and the next one is none the worse
  })

  test.each([
    '{{ messages.constructor.constructor("return process")().exit(3) }}',
    '{{ "".__proto__.constructor.constructor("return 1")() }}',
    '{{ messages.__proto__.polluted() }}',
    '{% set x = namespace() %}{% set x.__proto__ = messages %}{% set x.constructor = 1 %}{{ x.polluted() }}',
    '{% set messages.__proto__.polluted = 1 %}',
    '{{ range.constructor("return process")() }}',
  ])('a template that reaches for the prototype: %s', (source) => {
    expect(() => render(source, turns)).toThrow(/^Cannot render the chat template: [^\n]*[^.\n]$/)
    expect(Object.keys(Object.prototype)).toEqual([])
    expect('polluted' in {}).toBe(false)
  })

  test('an empty question, like the published templates', () => {
    expect(() => render(chatml, [userTurn('')])).toThrow(/turn 0: found an empty question/)
  })
})

test('reads the field of a config, by name where there are several', () => {
  const chat_template = [
    { name: 'tool_use', template: 'no' },
    { name: 'default', template: chatml },
  ]
  const template = loadChatTemplate({ config: { chat_template } })
  const text = segmentsToText(renderChatTemplate(template, [userTurn('Q')], { tokenizer }))
  expect(text).toBe('<|im_start|>user\nQ<|im_end|>\n')
})
