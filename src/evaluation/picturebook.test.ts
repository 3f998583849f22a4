import { expect, test } from 'vitest'
import type { Pixels } from '../image/pixels.ts'
import { makeExchange, makeScene, type Skill } from '../picturebook/index.ts'
import { evaluatePicturebook } from './picturebook.ts'

const skills: readonly Skill[] = ['existence', 'count', 'position', 'listing']
const options = { scenes: 40, side: 96, skills }

/** Answers by the questions' own key, as only a model that sees could. */
function answerKey(): Map<string, string> {
  const key = new Map<string, string>()
  for (let number = 0; number < options.scenes; number++) {
    const scene = makeScene(1_000_000 + number, { split: 'iid' })
    for (const skill of skills) {
      const exchange = makeExchange(scene, { seed: number, skill, split: 'iid' })
      if (exchange !== undefined) key.set(`${number} ${exchange.question}`, exchange.answer)
    }
  }
  return key
}

test('a model that knows every answer scores 1 in every skill, and nothing when it is given a blank picture', async () => {
  const key = answerKey()
  let number = 0
  const report = await evaluatePicturebook(
    async ({ picture, question }) => (isBlank(picture) ? 'I cannot tell' : (key.get(`${number} ${question}`) ?? '')),
    {
      ...options,
      onProgress: ({ scenes }) => {
        number = scenes
      },
    },
  )
  expect(report.skills.map(({ skill }) => skill)).toEqual(skills)
  for (const { all, share, blind } of report.skills) {
    expect(all).toBeGreaterThan(5)
    expect(share).toBe(1)
    expect(blind?.share).toBe(0)
  }
  expect(report.existence.f1).toBe(1)
})

test('a model that always says yes is right about half of the existence questions, and its yes ratio tells', async () => {
  const report = await evaluatePicturebook(async () => 'Yes', {
    ...options,
    scenes: 200,
    skills: ['existence'],
    blind: false,
  })
  const [existence] = report.skills
  expect(existence?.share).toBeGreaterThan(0.4)
  expect(existence?.share).toBeLessThan(0.6)
  expect(existence?.blind).toBeUndefined()
  expect(report.existence.yesRatio).toBe(1)
  expect(Object.keys(report.existence.byNegative).sort()).toEqual(['adversarial', 'popular', 'random'])
})

test('stops when its signal fires', async () => {
  const signal = AbortSignal.abort(new Error('enough'))
  await expect(evaluatePicturebook(async () => '', { ...options, signal })).rejects.toThrow('enough')
})

function isBlank({ data }: Pixels): boolean {
  return data.every((value, index) => value === data[index % 3])
}
