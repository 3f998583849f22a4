import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { collect } from './collect.fixture.ts'
import { gatheredWrites, linesOf, readJsonLines, saidIfFull } from './lines.ts'

let folder = ''
let path = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lines-test-'))
  path = join(folder, 'a.txt')
})
afterAll(() => rm(folder, { recursive: true }))

test.each([
  ['', []],
  ['a', ['a']],
  ['a\n', ['a']],
  ['\uFEFFa\r\n\nb\u2028c\rd\r\n', ['a', '', 'b\u2028c\rd']],
  [`${'ä'.repeat(400_000)}\nb\n\n`, ['ä'.repeat(400_000), 'b', '']], // longer than the pieces that are read
])('lines end where lines end', async (text, lines) => {
  await writeFile(path, text)
  expect(await collect(linesOf(path))).toEqual(lines)
})

test('reading can be left early, and says what cannot be read', async () => {
  await writeFile(path, '1\n2\n{"a"\n')
  for await (const { line, value } of readJsonLines(path)) {
    expect([line, value]).toEqual([1, 1])
    break
  }
  await expect(collect(readJsonLines(path))).rejects.toThrow(`Cannot read ${path}, line 3: `)
  await expect(collect(linesOf(join(folder, 'none')))).rejects.toThrow('none: no such file')
  await expect(collect(linesOf(folder))).rejects.toThrow('it is a folder')
})

test('gathered writes come in order, the last ones with the end', async () => {
  const handle = await open(path, 'w')
  const { add, end } = gatheredWrites(handle, { length: 10 })
  for (let number = 0; number < 9; number++) await add(`${number}${'-'.repeat(number)}`)
  const before = await readFile(path, 'utf8')
  await end()
  await end()
  await handle.close()
  const text = '01-2--3---4----5-----6------7-------8--------'
  expect(await readFile(path, 'utf8')).toBe(text)
  expect(before.length).toBeGreaterThan(20)
  expect(before.length).toBeLessThan(text.length)
})

test('a full disk is one sentence, other errors stay', () => {
  const full = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' })
  expect(saidIfFull(full, { path: 'out/data', kept: 'all is kept' })).toMatchObject({
    message: 'Cannot write out/data: no space left on the device; all is kept',
    cause: full,
  })
  const other = new Error('other')
  expect(saidIfFull(other, { path: '', kept: '' })).toBe(other)
})
