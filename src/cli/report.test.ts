import { mkdtemp, rm, writeFile } from 'node:fs/promises'
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
