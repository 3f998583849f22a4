import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { makeReport } from './report.ts'

let run = ''
beforeEach(async () => {
  run = await mkdtemp(join(tmpdir(), 'llava-report-'))
})
afterEach(() => rm(run, { recursive: true, force: true }))

const recipe = JSON.stringify({ name: 'tiny', stage: 'encoder', steps: 20, rates: { visionEncoder: 0.001 } })
const line = '{"type":"step","step":10,"loss":2.5,"gradientNorm":3,"schedule":0.5}\n'

describe('makeReport', () => {
  test('reads a run that was killed while it wrote its log', async () => {
    await writeFile(join(run, 'recipe.json'), recipe)
    await writeFile(join(run, 'log.jsonl'), `${line}{"type":"step","st`)
    const { page, summary } = await makeReport(run)
    expect(summary).toBe('10 steps, 0 validations, 0 skipped samples')
    expect(page).toContain('<h1>tiny</h1>')
  })

  test('puts pictures and pace of the run into the page, and does without those that are gone', async () => {
    await writeFile(join(run, 'recipe.json'), recipe)
    const question = (number: number) => ({
      sample: `s${number}`,
      question: 'What is it?',
      reference: 'A cat.',
      picture: `samples/0${number}.png`,
    })
    const asked = { type: 'questions', questions: [question(0), question(1)] }
    const said = { type: 'answers', step: 0, answers: [{ text: 'A dog.' }, { text: 'A cow.' }], accuracy: {} }
    await writeFile(join(run, 'log.jsonl'), `${JSON.stringify(asked)}\n${JSON.stringify(said)}\n${line}`)
    const pace = { step: 10, seconds: 75, picturesPerSecond: 8, tokensPerSecond: 500 }
    await writeFile(join(run, 'pace.jsonl'), `${JSON.stringify(pace)}\n`)
    await mkdir(join(run, 'samples'))
    await writeFile(join(run, 'samples', '00.png'), 'png')
    const { page } = await makeReport(run)
    expect(page.match(/<img /g)).toHaveLength(1)
    expect(page).toContain(Buffer.from('png').toString('base64'))
    expect(page).toContain('A cow.')
    expect(page).toContain('1 min 15 s')
    expect(page).toContain('Pictures per second')
  })

  test('says what a folder lacks', async () => {
    await expect(makeReport(join(run, 'none'))).rejects.toThrow(/there is no such folder, expected the folder of a/)
    await expect(makeReport(run)).rejects.toThrow(`Cannot report on ${run}: found no log.jsonl in it`)
    await writeFile(join(run, 'log.jsonl'), line)
    await expect(makeReport(run)).rejects.toThrow('found no recipe.json in it')
    await expect(makeReport(join(run, 'log.jsonl'))).rejects.toThrow('it is a file')
  })

  test('names the file and the line that is broken', async () => {
    await writeFile(join(run, 'recipe.json'), recipe)
    await writeFile(join(run, 'log.jsonl'), `${line}oops\n${line}`)
    await expect(makeReport(run)).rejects.toThrow(`Cannot read line 2 of ${join(run, 'log.jsonl')}: found broken JSON`)
  })
})
