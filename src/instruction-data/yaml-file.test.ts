import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { readYaml } from './yaml-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'llava-yaml-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = (text: string) => {
  const path = join(folder, 'file.yaml')
  writeFileSync(path, text)
  return path
}

test('a file of YAML is read', async () => {
  expect(await readYaml(file('steps: 3\ndata: [a, b]\n'))).toEqual({ steps: 3, data: ['a', 'b'] })
})

test('what is no YAML is refused in one line that says where', async () => {
  const refused = /^Cannot read .*file\.yaml: it is no YAML \([^\n]+ at line 1, column \d+\)$/
  await expect(readYaml(file('a: [1'))).rejects.toThrow(refused)
  await expect(readYaml(file('\x89PNG\r\n\nIHDR: PLTE: tRNS'))).rejects.toThrow(refused)
})

test('so are a folder and a missing file', async () => {
  await expect(readYaml(folder)).rejects.toThrow(`Cannot read ${folder}: it is a folder, expected a file`)
  await expect(readYaml(join(folder, 'none.yaml'))).rejects.toThrow(/none\.yaml: no such file$/)
})
