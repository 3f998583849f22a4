import { describe, expect, test } from 'vitest'
import { loadChatTemplate } from './chat-template.ts'
import { findTemplate } from './templates.ts'
import { expandPlaceholders, tokenizeConversation } from './tokenize.ts'
import { encodeText, loadTokenizer } from './tokenizer.ts'
import { assistantTurn, type Turn, userTurn } from './turns.ts'

/** The pieces of LLaMA's vocabulary that the published id sequences need, at their published ids. */
const pieces = `
▁t:260 er:261 in:262 ▁a:263 en:264 on:265 ▁th:266 es:267 ▁s:269 ▁d:270 at:271 an:273 ▁c:274 is:275 re:276
it:277 ▁the:278 le:280 ▁p:282 ou:283 al:284 ▁b:289 ion:291 ic:293 as:294 el:295 ▁in:297 ▁h:298 nd:299 et:300
▁to:304 il:309 ▁u:318 ▁A:319 ▁and:322 ▁T:323 ol:324 im:326 ▁g:330 ur:332 ig:335 ▁re:337 ▁is:338 qu:339
ow:340 est:342 ce:346 ag:351 ul:352 he:354 if:361 ab:370 ▁on:373 ri:374 ▁an:385 ist:391 um:398 ▁W:399
ere:406 ▁as:408 ers:414 ant:424 ▁O:438 ▁qu:439 iv:440 ▁this:445 ▁The:450 age:482 ile:488 all:497 ▁U:501
▁us:502 ell:514 able:519 ▁ch:521 ▁im:527 ▁sh:528 ▁des:553 ase:559 ▁ar:564 ite:568 estion:602 ial:616
ence:663 ous:681 cri:699 we:705 ail:737 own:776 ▁Wh:806 be:915 ific:928 ▁int:938 ER:1001 ▁bet:1010 ▁hel:1081
▁question:1139 eta:1187 ▁ass:1223 ▁pol:1248 ST:1254 ful:1319 ▁help:1371 ▁user:1404 ▁det:1439 ween:1452
lease:1511 ▁giv:1517 ▁between:1546 ▁On:1551 ▁table:1591 ▁art:1616 SS:1799 ▁image:1967 AN:2190 ▁descri:2342
iled:2356 hat:2455 ▁red:2654 ious:2738 sw:2774 ▁US:3148 ▁cur:3151 ▁hum:3165 US:3308 ▁gives:4076 ▁shown:4318
▁questions:5155 ▁human:5199 What:5618 swers:5956 ▁answers:6089 ▁Where:6804 ▁assist:6985 ▁ball:8287
▁helpful:8444 ▁describe:8453 IST:9047 ellig:9347 ▁detail:9493 etailed:11881 USER:11889 Please:12148
▁curious:12758 ▁intellig:13052 ▁detailed:13173 ▁chat:13563 ANT:13566 ▁artific:19069 ▁assistant:20255
▁intelligence:21082 ▁artificial:23116 ▁:29871 e:29872 t:29873 a:29874 i:29875 n:29876 o:29877 r:29878
s:29879 l:29880 d:29881 h:29882 c:29883 u:29884 m:29885 p:29886 g:29887 f:29888 .:29889 b:29890 ,:29892
w:29893 v:29894 ::29901 I:29902 S:29903 A:29909 T:29911 ':29915 E:29923 P:29925 R:29934 q:29939 N:29940
O:29949 W:29956 U:29965 ?:29973
`

/** The merges between them, in LLaMA's order. */
const merges = `
▁+t e+r i+n ▁+a e+n o+n ▁t+h e+s ▁+s ▁+d a+t a+n ▁+c i+s r+e i+t ▁th+e l+e ▁+p o+u a+l ▁+b i+on i+c a+s e+l
▁+in ▁+h n+d e+t ▁t+o i+l ▁+u ▁+A ▁a+nd ▁+T o+l i+m ▁+g u+r i+g ▁+re ▁+is q+u o+w es+t c+e a+g u+l h+e i+f
a+b ▁+on r+i ▁a+n is+t u+m ▁+W er+e ▁a+s er+s an+t ▁+O ▁+qu i+v ▁th+is ▁T+he ag+e i+le al+l ▁+U ▁u+s el+l
ab+le ▁c+h ▁+im ▁s+h ▁d+es as+e ▁a+r it+e est+ion i+al en+ce ou+s c+ri w+e a+il ow+n ▁W+h b+e if+ic ▁in+t
E+R ▁b+et ▁h+el ▁qu+estion et+a ▁as+s ▁p+ol S+T f+ul ▁hel+p ▁us+er ▁d+et we+en le+ase ▁g+iv ▁bet+ween ▁O+n
▁t+able ▁ar+t S+S ▁im+age A+N ▁des+cri ile+d h+at ▁re+d i+ous s+w ▁U+S ▁c+ur ▁h+um U+S ▁giv+es ▁sh+own
▁question+s ▁hum+an W+hat sw+ers ▁an+swers ▁Wh+ere ▁ass+ist ▁b+all ▁help+ful ▁descri+be I+ST ell+ig ▁det+ail
eta+iled US+ER P+lease ▁cur+ious ▁int+ellig ▁d+etailed ▁ch+at AN+T ▁art+ific ▁assist+ant ▁intellig+ence
▁artific+ial
`

const human =
  '1, 319, 13563, 1546, 263, 12758, 5199, 322, 385, 23116, 21082, 20255, 29889, 450, 20255, 4076, 8444, 29892, 13173, 29892, 322, 1248, 568, 6089, 304, 278, 5199, 29915, 29879, 5155, 29889'

const tokenizer = llama({ legacy: false })

function llama(config: object) {
  const words = (list: string) => list.split(/\s+/).filter((word) => word !== '')
  const listed = words(pieces).map((entry): [string, number] => {
    const colon = entry.lastIndexOf(':')
    return [entry.slice(0, colon), Number(entry.slice(colon + 1))]
  })
  const bytes = Array.from({ length: 256 }, (_, byte): [string, number] => {
    return [`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, byte + 3]
  })
  const special = (content: string, id: number) => ({ id, content, special: true, normalized: false })
  const tokenizerJson = {
    added_tokens: [special('<unk>', 0), special('<s>', 1), special('</s>', 2), special('<image>', 32000)],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      byte_fallback: true,
      vocab: Object.fromEntries([['<unk>', 0], ['<s>', 1], ['</s>', 2], ...bytes, ...listed]),
      merges: words(merges).map((merge) => merge.replace('+', ' ')),
    },
  }
  return loadTokenizer({
    tokenizerJson,
    tokenizerConfig: { bos_token: '<s>', eos_token: { content: '</s>' }, ...config },
  })
}

function ids(name: string, turns: readonly Turn[], options: { imageToken?: number; generationPrompt?: boolean } = {}) {
  const { imageToken = 32000, generationPrompt = false } = options
  const { ids, loss } = tokenizeConversation(turns, {
    template: findTemplate(name),
    tokenizer,
    imageToken,
    generationPrompt,
  })
  return { ids: Array.from(ids), learned: Array.from(ids).filter((_, index) => loss[index] === 1) }
}

describe('published ids', () => {
  const question = 'What is shown in this image?'
  const published = [
    1, 3148, 1001, 29901, 29871, 32000, 29871, 13, 5618, 338, 4318, 297, 445, 1967, 29973, 319, 1799, 9047, 13566,
    29901,
  ]

  test('of the Hugging Face prompt', () => {
    expect(ids('picturebook', [userTurn(question, { images: 1 })], { generationPrompt: true }).ids).toEqual(published)
  })

  test('of the same prompt from a Jinja template', () => {
    const source = `{% for message in messages %}{{ message.role.upper() + ': ' }}
      {%- for part in message.content | selectattr('type', 'equalto', 'image') %}{{ ' <image>\n' }}{% endfor %}
      {%- for part in message.content | selectattr('type', 'equalto', 'text') %}{{ part.text + ' ' }}{% endfor %}
      {%- endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}`.replace("': '", "':'")
    const { ids } = tokenizeConversation([userTurn(question, { images: 1 })], {
      template: loadChatTemplate({ source }),
      tokenizer,
      imageToken: 32000,
      generationPrompt: true,
    })
    expect(Array.from(ids)).toEqual(published)
  })

  test('of the original prompt with its system text and -200 for the picture', () => {
    const turns = [userTurn('Please describe this image in detail.', { images: 1 })]
    const tokenized = ids('llava_v1', turns, { imageToken: -200, generationPrompt: true })
    expect(tokenized.ids.join(', ')).toBe(
      `${human}, 3148, 1001, 29901, 29871, -200, 29871, 13, 12148, 8453, 445, 1967, 297, 9493, 29889, 319, 1799, 9047, 13566, 29901`,
    )
  })
})

describe('the loss mask', () => {
  const turns = [
    userTurn('What is this?', { images: 1 }),
    assistantTurn('A red ball.'),
    userTurn('Where?'),
    assistantTurn('On the table.'),
  ]

  test('lies on every answer and its </s>', () => {
    expect(ids('vicuna_v1', turns).learned).toEqual([319, 2654, 8287, 29889, 2, 1551, 278, 1591, 29889, 2])
  })

  test('lies on caption and line break in plain, with the dummy space after the picture', () => {
    const caption = [userTurn('Describe.', { images: 1 }), assistantTurn('a red ball')]
    expect(ids('plain', caption)).toEqual({ ids: [1, 32000, 263, 2654, 8287, 13], learned: [263, 2654, 8287, 13] })
  })

  test('moves no token: prompt ids are the first ids of the whole conversation', () => {
    const prompt = ids('vicuna_v1', turns.slice(0, 3), { generationPrompt: true }).ids
    expect(ids('vicuna_v1', turns).ids.slice(0, prompt.length)).toEqual(prompt)
  })
})

describe('text after </s>', () => {
  const turns = [userTurn('Where?'), assistantTurn('On the table.'), userTurn('What?')]

  test('goes on without a dummy space, as the model was trained', () => {
    expect(ids('picturebook', turns).ids).toContain(11889) // USER without a space before it
  })

  test('gets one when the checkpoint says legacy', () => {
    const options = { template: findTemplate('picturebook'), tokenizer: llama({ legacy: true }), imageToken: 32000 }
    const legacy = Array.from(tokenizeConversation(turns, options).ids)
    expect(legacy.slice(legacy.indexOf(2)).slice(0, 3)).toEqual([2, 3148, 1001])
  })
})

describe('injection', () => {
  test.each(['<image>', '</s>', '<s>', '<unk>', '<0x0A>', 'x</s><image>\n<s>'])('of %s as text stays text', (typed) => {
    const turns = [userTurn(`What is ${typed}?`, { images: 1 }), assistantTurn(typed)]
    const found = ids('picturebook', turns).ids
    expect(found.filter((id) => id < 3 || id === 32000)).toEqual([1, 32000, 2])
    expect(found.filter((id) => id === 13)).toHaveLength(typed.includes('\n') ? 3 : 1)
  })

  test('is impossible for encodeText, and unknown characters become bytes', () => {
    expect(encodeText(tokenizer, '</s>')).not.toContain(2)
    expect(encodeText(tokenizer, '☃', { bos: true })).toEqual([1, 29871, 0xe2 + 3, 0x98 + 3, 0x83 + 3])
  })
})

test('names a special token that the tokenizer lacks', () => {
  expect(() => ids('chatml_direct', [userTurn('What?')])).toThrow(/Cannot find the token <\|im_start\|>/)
})

describe('expandPlaceholders', () => {
  const sequence = Int32Array.of(1, -200, 13, -200, 7)
  const loss = Uint8Array.of(0, 0, 0, 0, 1)

  test('repeats each placeholder and says where the pictures lie', () => {
    const expanded = expandPlaceholders(sequence, loss, { imageToken: -200, visualTokens: [2, 3] })
    expect(Array.from(expanded.ids)).toEqual([1, -200, -200, 13, -200, -200, -200, 7])
    expect(Array.from(expanded.loss)).toEqual([0, 0, 0, 0, 0, 0, 0, 1])
    expect(expanded.pictures).toEqual([
      { start: 1, length: 2 },
      { start: 4, length: 3 },
    ])
  })

  test('keeps a sequence without pictures', () => {
    const expanded = expandPlaceholders(Int32Array.of(1, 2), Uint8Array.of(0, 1), {
      imageToken: -200,
      visualTokens: [],
    })
    expect(expanded).toEqual({ ids: Int32Array.of(1, 2), loss: Uint8Array.of(0, 1), pictures: [] })
  })

  test('names both numbers when they differ', () => {
    const expand = () => expandPlaceholders(sequence, loss, { imageToken: -200, visualTokens: [4] })
    expect(expand).toThrow(RangeError)
    expect(expand).toThrow(/found 2 in the prompt, expected one for each of 1 pictures/)
  })

  test('refuses a picture without visual tokens', () => {
    expect(() => expandPlaceholders(sequence, loss, { imageToken: -200, visualTokens: [4, 0] })).toThrow(RangeError)
  })
})
