import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { writeFileAtomically, writeFolderAtomically } from './atomic-file.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'atomic-'))
})
afterEach(() => rm(folder, { recursive: true }))

test('a file is replaced only when it was written whole', async () => {
  const path = join(folder, 'file')
  await writeFile(path, 'old')
  const half = writeFileAtomically(path, async (handle) => {
    await handle.write('ha')
    throw new Error('ENOSPC: no space left on device')
  })
  await expect(half).rejects.toThrow('ENOSPC')
  expect(await readFile(path, 'utf8')).toBe('old')
  expect(await readdir(folder)).toEqual(['file'])
  await writeFileAtomically(path, async (handle) => void (await handle.write('new')))
  expect(await readFile(path, 'utf8')).toBe('new')
  expect(await readdir(folder)).toEqual(['file'])
})

test('a failing rename leaves nothing beside', async () => {
  await mkdir(join(folder, 'occupied'))
  await expect(writeFileAtomically(join(folder, 'occupied'), async () => {})).rejects.toThrow()
  expect(await readdir(folder)).toEqual(['occupied'])
})

test('a folder appears whole or not at all, with its parents', async () => {
  const path = join(folder, 'deep', 'checkpoint')
  const half = writeFolderAtomically(path, async (inner) => {
    await writeFile(join(inner, 'a'), 'a')
    throw new Error('full')
  })
  await expect(half).rejects.toThrow('full')
  expect(await readdir(join(folder, 'deep'))).toEqual([])
  await writeFolderAtomically(path, (inner) => writeFile(join(inner, 'a'), 'a'))
  expect(await readdir(path)).toEqual(['a'])
  expect(await readdir(join(folder, 'deep'))).toEqual(['checkpoint'])
})

test('an existing folder is kept unless the caller may replace it', async () => {
  const path = join(folder, 'kept')
  await mkdir(path)
  await writeFolderAtomically(path, (inner) => writeFile(join(inner, 'first'), '')) // empty: may be filled
  const fill = (inner: string) => writeFile(join(inner, 'second'), '')
  await expect(writeFolderAtomically(path, fill)).rejects.toThrow('in it, expected a new or empty folder')
  expect(await readdir(path)).toEqual(['first'])
  await writeFolderAtomically(path, fill, { mayReplace: (names) => names.includes('first') })
  expect(await readdir(path)).toEqual(['second'])
  expect(await readdir(folder)).toEqual(['kept'])
})
