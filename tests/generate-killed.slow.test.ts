/** Killed at any moment and started again, a run sends no request twice whose answer it has. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openJournal } from '../src/instruction-data/answer-journal.ts'
import { startChatServer } from '../src/instruction-data/chat-server.fixture.ts'
import { writeOneFile } from './one-file.ts'

const script = fileURLToPath(new URL('asking-process.ts', import.meta.url))
const [kills, count, atOnce] = [22, 700, 8]

/** Keys of the answers that a killed process left on the disk in full. */
async function keysOnDisk(path: string): Promise<string[]> {
  const text = await readFile(path, 'utf8').catch(() => '')
  const complete = text.split('\n').slice(0, -1)
  return complete.map((line) => JSON.parse(line)).flatMap(({ event, key }) => (event === 'answer' ? [key] : []))
}

let folder = ''
let program = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'generate-killed-'))
  program = await writeOneFile(script, join(folder, 'program'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

test(`no answered request is sent again after ${kills} kills at random moments`, { timeout: 300_000 }, async () => {
  const path = join(folder, 'answers.jsonl')
  const server = await startChatServer(() => ({ do: 'answer', afterMs: 5 + Math.random() * 20 }))
  const prepare = () =>
    spawn(process.execPath, [program, path, server.baseURL, String(count)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
  const ready: ChildProcess[] = [prepare(), prepare()]
  const begin = () => {
    ready.push(prepare()) // starting takes longer than running: the next ones start meanwhile
    const child = ready.shift()!
    child.stdin!.write('go\n')
    return child
  }
  try {
    const known = new Set<string>()
    for (let kill = 0; kill < kills; kill++) {
      const sentBefore = server.requests.length
      const child = begin()
      const exit = once(child, 'exit')
      // The moment is random in the run, not in the start: anything from before the first request to many answers.
      const moment = Math.floor(Math.random() * 20)
      while (server.requests.length < sentBefore + moment && child.exitCode === null)
        await new Promise((resolve) => setTimeout(resolve, 1))
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 15))
      child.kill('SIGKILL')
      await exit
      const sentNow = server.requests.slice(sentBefore).map(({ key }) => key ?? '')
      expect(sentNow.filter((key) => known.has(key))).toEqual([])
      for (const key of await keysOnDisk(path)) known.add(key)
    }
    const sentBefore = server.requests.length
    const last = begin()
    await once(last, 'exit')
    expect(server.requests.slice(sentBefore).filter(({ key }) => known.has(key ?? ''))).toEqual([])
    // In the end every task has its answer, and only what was on its way during a kill was sent again.
    const journal = await openJournal(path)
    expect(journal.answers()).toBe(count)
    await journal.close()
    expect(server.requests.length).toBeGreaterThanOrEqual(count)
    expect(server.requests.length - count).toBeLessThanOrEqual(kills * atOnce)
    expect(known.size).toBeGreaterThan(kills)
  } finally {
    for (const child of ready) child.kill('SIGKILL')
    await server.close()
  }
})

test.skipIf(process.platform === 'win32')(
  'a full disk ends the run with one sentence, and keeps what was answered',
  { timeout: 180_000 },
  async () => {
    const path = join(folder, 'full.jsonl')
    const server = await startChatServer(() => ({ do: 'answer' }))
    try {
      const run = async (limit: string) => {
        const command = `${limit} exec "$0" "$@"`
        const child = spawn('sh', ['-c', command, process.execPath, program, path, server.baseURL, '60'], {
          stdio: ['pipe', 'ignore', 'pipe'],
        })
        let said = ''
        child.stderr.setEncoding('utf8').on('data', (text) => (said += text))
        child.stdin.write('go\n')
        const [code] = await once(child, 'close')
        return { code, said }
      }
      const full = await run('ulimit -f 8;') // blocks of the size of files
      expect(full.code).not.toBe(0)
      expect(full.said).toMatch(
        /Cannot keep an answer in .*full.jsonl: no space left on the device; all that came before are kept/,
      )
      const known = new Set(await keysOnDisk(path))
      expect(known.size).toBeGreaterThan(3)
      const sentBefore = server.requests.length
      expect(await run('')).toEqual({ code: 0, said: '' })
      expect(server.requests.slice(sentBefore).filter(({ key }) => known.has(key ?? ''))).toEqual([])
      expect(new Set(await keysOnDisk(path)).size).toBe(60)
    } finally {
      await server.close()
    }
  },
)
