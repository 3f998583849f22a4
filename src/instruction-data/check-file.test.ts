import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { encodePng } from '../image/encode.ts'
import { filledPixels } from '../image/pixels.ts'
import { checkLlavaFile, type RowProblem, rowProblems } from './check-file.ts'
import { instructionGallery } from './gallery-page.ts'
import { sampleRejects, sampleRows } from './sample-rows.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'check-file-'))
  await writeFile(join(folder, 'a.png'), await encodePng(filledPixels(6, 4, [9, 9, 9])))
  await writeFile(join(folder, 'b.png'), 'not a picture')
})
afterAll(() => rm(folder, { recursive: true }))

const human = (value: string) => ({ from: 'human', value })
const gpt = (value: string) => ({ from: 'gpt', value })
const row = (changes: object = {}) => ({
  id: 'r',
  image: 'a.png',
  conversations: [human('<image>\nWhat?'), gpt('That.')],
  ...changes,
})

async function check(name: string, text: string, options: Partial<Parameters<typeof checkLlavaFile>[1]> = {}) {
  const path = join(folder, name)
  await writeFile(path, text)
  const problems: RowProblem[] = []
  const summary = await checkLlavaFile(path, { onProblem: (problem) => problems.push(problem), ...options })
  return { summary, problems: problems.map(({ line, problem }) => `${line}: ${problem}`) }
}

describe('rowProblems', () => {
  test.each<[string, unknown]>([
    ['a row with a picture', row()],
    [
      'several pictures',
      row({ image: ['a.png', 'a.png'], conversations: [human('<image> and <image>?'), gpt('Both.')] }),
    ],
    [
      'pictures one after the other',
      row({ image: ['a.png', 'a.png'], conversations: [human('<image>?'), gpt('A.'), human('<image>?'), gpt('B.')] }),
    ],
    ['several turns', row({ conversations: [human('What?\n<image>'), gpt('That.'), human('Where?'), gpt('There.')] })],
    ['text alone', { id: 3, conversations: [human('Hello'), gpt('Hello.')] }],
    [
      'a system message',
      row({ conversations: [{ from: 'system', value: 'Be brief.' }, human('<image>'), gpt('A caption.')] }),
    ],
    ['other keys', row({ model: 'gpt-4' })],
  ])('finds nothing in %s', (_, value) => expect(rowProblems(value)).toEqual([]))

  test.each<[unknown, string[]]>([
    [3, ['found a number, expected an object with id, image and conversations']],
    [row({ id: undefined }), ['id: found nothing, expected a text or a number']],
    [
      row({ image: ['a.png', ''] }),
      [
        'image: found a list, expected a file name or a list of them',
        'conversations: found <image> once, expected it 2 times for as many images',
      ],
    ],
    [row({ image: ['a.png', 'a.png'] }), ['conversations: found <image> once, expected it 2 times for as many images']],
    [row({ conversations: [] }), ['conversations: found none, expected a list of turns']],
    [row({ conversations: [human('<image>\nWhat?')] }), ['conversations: the last question has no answer']],
    [
      row({ conversations: [gpt('That.'), human('<image>')] }),
      ['conversations[0].from: found "gpt", expected "human"'],
    ],
    [
      row({ conversations: [human('<image>\nA?'), human('B?')] }),
      ['conversations[1].from: found "human", expected "gpt"'],
    ],
    [row({ conversations: [human('<image>\nA?'), gpt(' ')] }), ['conversations[1].value: it is empty']],
    [
      row({ conversations: [human('<image>\nA?'), { from: 'gpt' }] }),
      ['conversations[1].value: found nothing, expected a text'],
    ],
    [
      row({ conversations: [human('What?'), gpt('That.')] }),
      ['conversations: found <image> nowhere, expected it once for one image'],
    ],
    [
      row({ conversations: [human('<image><image>'), gpt('That.')] }),
      ['conversations: found <image> 2 times, expected it once for one image'],
    ],
    [
      row({ conversations: [human('<image> A?'), gpt('<image>')] }),
      ['conversations[1].value: found <image> in a turn that is no question'],
    ],
    [
      row({ conversations: [human('A?'), gpt('B.'), human('<image>'), gpt('C.')] }),
      ['conversations: found <image> in a later question, expected it in the first'],
    ],
    [row({ image: undefined }), ['conversations: found <image> once without an image']],
  ])('%j', (value, problems) => expect(rowProblems(value)).toEqual(expect.arrayContaining(problems)))
})

describe('checkLlavaFile', () => {
  const rows = [
    row(),
    row({ image: 'none.png' }),
    row({ image: 'b.png' }),
    row({ image: '../a.png' }),
    row({ id: 1, image: undefined }),
  ]

  test('names lines, in a list as in lines', async () => {
    const lines = await check('rows.jsonl', rows.map((one) => JSON.stringify(one)).join('\n'), { images: folder })
    expect(lines.problems).toEqual([
      `2: cannot read ${join(folder, 'none.png')}: no such file`,
      `3: ${join(folder, 'b.png')} holds text, expected a picture`,
      `4: ../a.png lies outside of ${folder}`,
      '5: conversations: found <image> once without an image',
    ])
    expect(lines.summary).toEqual({ rows: 5, problems: 4, textOnly: 1, turns: 10, repeatedIds: 3, longest: undefined })
    const list = await check('rows.json', `[\n${rows.map((one) => JSON.stringify(one)).join(',\n')}\n]`, {
      images: folder,
    })
    expect(list.summary).toEqual(lines.summary)
    expect(list.problems.map((text) => Number.parseInt(text, 10))).toEqual([3, 4, 5, 6])
    const pretty = await check('pretty.json', JSON.stringify(rows, undefined, 2), { images: folder })
    expect(Number.parseInt(pretty.problems[0] ?? '', 10)).toBe(
      2 + JSON.stringify([row()], undefined, 2).split('\n').length - 2,
    )
  })

  test('goes on after lines that are no JSON and no rows', async () => {
    const { problems, summary } = await check('broken.jsonl', `{"id"\n\nnull\n${JSON.stringify(row())}\n`, {
      images: folder,
    })
    expect(problems).toEqual([
      expect.stringMatching(/^1: found no JSON \(/),
      '3: found null, expected an object with id, image and conversations',
    ])
    expect(summary).toMatchObject({ rows: 3, problems: 2, turns: 2 })
  })

  test('counts tokens', async () => {
    const tokens = { count: async (turns: readonly unknown[]) => turns.length * 10, most: 20 }
    const long = row({ conversations: [human('<image>'), gpt('a'), human('b'), gpt('c')] })
    const { problems, summary } = await check(
      'tokens.jsonl',
      [row(), long].map((one) => JSON.stringify(one)).join('\n'),
      { tokens },
    )
    expect(problems).toEqual(['2: the conversation has 40 tokens, expected at most 20'])
    expect(summary.longest).toBe(40)
  })

  test.each([
    ['half.json', '[{"id": 1}', 'half.json'],
    ['numbers.json', '[{"id": 1}, 3]', 'found 1 entries that are no objects, expected a list of rows'],
    ['word.json', '"rows"', 'word.json'],
  ])('%s is refused', async (name, text, reason) => {
    await expect(check(name, text)).rejects.toThrow(SyntaxError)
    await expect(check(name, text)).rejects.toThrow(reason)
  })
})

describe('the gallery', () => {
  test('shows samples with pictures, boxes, verdicts and rejects, and no markup of theirs', async () => {
    const verdicts = [{ validator: 'objects', problem: 'neither captions nor boxes have: cat' }]
    const rows = Array.from({ length: 30 }, (_, id) =>
      row({
        id: `row-${id}`,
        type: 'conversation',
        verdicts,
        conversations: [human('<image>\nIs <b>it</b>?'), gpt('Yes.')],
      }),
    )
    await writeFile(join(folder, 'llava.jsonl'), rows.map((one) => `${JSON.stringify(one)}\n`).join(''))
    await writeFile(
      join(folder, 'provenance.jsonl'),
      rows
        .map(
          ({ id }) =>
            `${JSON.stringify({ id, captions: ['A caption.'], boxes: [{ category: 'dog', box: [0, 0.5, 0.25, 1] }] })}\n`,
        )
        .join(''),
    )
    await writeFile(
      join(folder, 'rejects.jsonl'),
      `${JSON.stringify({ id: 'bad', reason: 'found nothing', text: '<script>' })}\n`,
    )
    const sampled = await sampleRows(join(folder, 'llava.jsonl'), { count: 10, seed: 1, images: folder })
    expect(sampled).toMatchObject({ total: 30, rows: { length: 10 } })
    expect(new Set(sampled.rows.map(({ id }) => id)).size).toBe(10)
    expect(await sampleRows(join(folder, 'llava.jsonl'), { count: 10, seed: 1, images: folder })).toEqual(sampled)
    const { rejects } = await sampleRejects(join(folder, 'rejects.jsonl'), { count: 5, seed: 1 })
    const page = instructionGallery({
      title: 'llava.jsonl',
      rows: sampled.rows,
      rejects,
      total: { rows: 30, rejects: 1 },
    })
    expect(page).toContain('10 of 30 rows, 1 of 1 rejects')
    expect(page).toContain('left:0%;top:50%;width:25%;height:50%')
    expect(page.match(/data:image\/jpeg;base64,/g)?.length).toBe(10)
    expect(page).toContain('neither captions nor boxes have: cat')
    expect(page).toContain('Is &#60;b&#62;it&#60;/b&#62;?')
    expect(page).not.toMatch(/<script|<b>it/)
  })
})
