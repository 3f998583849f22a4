import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { openJournal } from './answer-journal.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'answer-journal-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const events = async (path: string) =>
  (await readFile(path, 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))

describe('openJournal', () => {
  const answer = {
    event: 'answer',
    key: 'k',
    text: 'ü'.repeat(5000),
    finish: 'stop',
    usage: { input: 3, output: 2 },
    at: 'now',
    attempts: 1,
  } as const

  test('finds answers again, and cuts off a line that was left half-written', async () => {
    const path = join(folder, 'torn.jsonl')
    const journal = await openJournal(path)
    await Promise.all([
      journal.add({ ...answer, key: 'a' }),
      journal.add({ event: 'sent', key: 'b', usage: { input: 7, output: 8 } }),
      journal.add({ ...answer, key: 'c', text: 'last' }),
    ])
    await journal.close()
    await appendFile(path, '{"event":"answer","key":"d","te')
    const again = await openJournal(path)
    expect(['a', 'b', 'c', 'd'].map(again.has)).toEqual([true, false, true, false])
    expect(await again.read('a')).toEqual({ ...answer, key: 'a' })
    expect(again.spent()).toEqual({ input: 6, output: 4 })
    expect(again.lost()).toEqual({ requests: 1, input: 7, output: 8 })
    await again.add({ ...answer, key: 'd', text: 'new' })
    expect((await again.read('d'))?.text).toBe('new')
    await again.close()
    expect((await events(path)).map(({ key }) => key)).toEqual(['a', 'b', 'c', 'd'])
  })

  test('names a line that is no event', async () => {
    const path = join(folder, 'broken.jsonl')
    await writeFile(path, `${JSON.stringify(answer)}\n{"event":"party"}\n`)
    await expect(openJournal(path)).rejects.toThrow(
      /^Cannot read .*broken.jsonl, line 2: event is "party", expected "sent" or "answer" or /,
    )
  })
})
