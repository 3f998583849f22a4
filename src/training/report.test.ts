import { describe, expect, test } from 'vitest'
import { recipeRows, reportPage } from './report.ts'
import { smooth } from './report-curves.ts'
import type { RunLog } from './run-log.ts'

const recipe = { name: 'tiny', stage: 'encoder', steps: 40, rates: { visionEncoder: 0.001 }, optimizer: { clip: 1 } }
const log: RunLog = {
  steps: [10, 20, 30].map((step) => ({ step, loss: 4 / step, gradientNorm: step, schedule: 1 - step / 40 })),
  validations: [
    { step: 10, loss: 0.5, accuracy: { count: 0.25 } },
    { step: 20, loss: 0.3, accuracy: { count: 0.5, color: 0.75 } },
    { step: 30, loss: 0.4, accuracy: { count: 0.625, color: 1 } },
  ],
  questions: [
    { sample: 'a', question: 'Is there a <cat>?', reference: 'Yes.', skill: 'count', picture: 'samples/00.png' },
    { sample: 'b', question: 'Why?', reference: 'Because.' },
  ],
  answers: [
    { step: 0, answers: [{ text: 'No <i>', right: false }, { text: '' }], accuracy: { count: 0 } },
    { step: 10, answers: [{ text: 'No <i>', right: false }, { text: 'So.' }], accuracy: { count: 0 } },
    { step: 20, answers: [{ text: 'Yes.', right: true }, { text: 'So.' }], accuracy: { count: 1 } },
  ],
  skipped: [{ sample: '<b>.jpg', reason: "isn't there" }],
}
const paces = [10, 20, 30].map((step) => ({ step, seconds: step * 130, picturesPerSecond: 8, tokensPerSecond: 500 }))
const pictures = new Map([['samples/00.png', Uint8Array.of(1, 2, 3)]])
const titles = (page: string) => Array.from(page.matchAll(/<figcaption><h2>([^<]*)/g), ([, title]) => title)

describe('reportPage', () => {
  test('shows every chart, the best validation loss and the last accuracy of each skill', () => {
    const page = reportPage(recipe, log, { paces, pictures })
    expect(titles(page)).toEqual([
      'Loss',
      'Accuracy per skill, by itself',
      'Accuracy per skill, word for word',
      'Gradient norm',
      'Learning rate',
      'Pictures per second',
      'Tokens per second',
    ])
    expect(page).toContain('1 of 1<small>at step 20</small>')
    expect(page).toContain('1 h 5 min')
    expect(page).toContain('visionEncoder <b>2.5e-4</b>') // the rate itself at the last step, not its factor
    expect(page).toContain('0.3<small>at step 20</small>')
    expect(page).toContain('30<small>of 40</small>')
    expect(page).toContain('color <b>100 %</b>')
    expect(page).toContain('count <b>62.5 %</b>')
  })

  test('refers to nothing outside the page and forbids the browser to load anything', () => {
    const page = reportPage(recipe, log, { paces, pictures })
    expect(page).toContain('src="data:image/png;base64,AQID"')
    expect(page).not.toMatch(/https?:|\bsrc="(?!data:image\/png)|<link|@import|url\(/)
    expect(page).toContain("default-src 'none'")
  })

  test('keeps text from files from becoming markup', () => {
    const hostile = '</script><img>'
    const page = reportPage(
      { ...recipe, name: hostile },
      { ...log, validations: [{ step: 10, loss: 1, accuracy: { [hostile]: 1 } }] },
    )
    expect(page).not.toContain('<img>')
    expect(page).toContain('&lt;b&gt;.jpg')
    expect(page).toContain('isn&#39;t there')
  })

  test('shows what was said about each sample, newest first, the same answer in a row once', () => {
    const page = reportPage(recipe, log, { pictures })
    const items = Array.from(page.matchAll(/<li><span>(.*?)<\/q><\/li>/g), ([, item = '']) =>
      item.replace(/<[^>]+>/g, ' '),
    )
    expect(items.map((item) => item.replace(/ +/g, ' '))).toEqual([
      '20 ✓ Yes.',
      '0–10 ✗ No &lt;i&gt;',
      '10–20 So.',
      '0 nothing ',
    ])
    expect(page).toContain('Is there a &lt;cat&gt;?')
    expect(page).toContain('no picture')
    expect(reportPage(recipe, { ...log, questions: [], answers: [] })).not.toContain('class="gallery"')
  })

  test('leaves out charts without values and says so when there are none', () => {
    expect(titles(reportPage(recipe, { ...log, validations: [], answers: [] }))).toEqual([
      'Loss',
      'Gradient norm',
      'Learning rate',
    ])
    const page = reportPage(recipe, { steps: [], validations: [], questions: [], answers: [], skipped: [] })
    expect(titles(page)).toEqual([])
    expect(page).toContain('Nothing is logged yet')
    expect(page).not.toContain('NaN')
  })

  test('survives losses that are not finite', () => {
    const steps = log.steps.map((one) => ({ ...one, loss: Number.NaN, gradientNorm: Number.NaN }))
    const page = reportPage(recipe, { ...log, steps })
    expect(page).not.toMatch(/NaN|Infinity/)
    expect(page).toContain('not finite<small>smoothed')
  })

  test('refuses a recipe without a stage', () => {
    const { stage: _, ...rest } = recipe
    expect(() => reportPage(rest, log)).toThrow(/^Cannot use the recipe of the run: stage is missing, /)
  })
})

describe('smooth', () => {
  test('keeps a constant as it is from the first point on', () => {
    const flat = [1, 2, 3].map((step) => [step, 5] as const)
    for (const [, value] of smooth(flat, { halfLife: 2 })) expect(value).toBeCloseTo(5, 12)
  })

  test('follows a step without lag and loses half of what is left in one half-life', () => {
    const points = Array.from({ length: 400 }, (_, step) => [step, step < 200 ? 0 : 1] as const)
    const after = smooth(points, { halfLife: 3 }).map(([, value]) => value)
    expect((after[199] ?? 0) + (after[200] ?? 0)).toBeCloseTo(1, 6)
    expect((after[196] ?? 0) / (after[199] ?? 0)).toBeCloseTo(0.5, 6)
  })

  test('keeps a gap and takes nothing from it', () => {
    const points = [
      [0, 2],
      [1, Number.NaN],
      [2, 2],
    ] as const
    expect(smooth(points, { halfLife: 1 })).toEqual([
      [0, 2],
      [1, Number.NaN],
      [2, 2],
    ])
  })
})

test('recipeRows gives nested settings their dotted names and plain groups one row', () => {
  expect(
    recipeRows({ rates: { a: 1, b: 2 }, data: { world: { objects: [1, 4], skills: { count: 3 } } }, start: {} }),
  ).toEqual([
    ['rates', 'a 1, b 2'],
    ['data.world.objects', '1, 4'],
    ['data.world.skills', 'count 3'],
    ['start', 'none'],
  ])
})
