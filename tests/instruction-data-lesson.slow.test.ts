/** The recipe that learns from instruction data, with the commands that its head names, on a few pictures. */

import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { runHere } from './run-here.ts'

const path = 'recipes/picturebook/5-instruction-data.yaml'
let folder = ''

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llava-lesson-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

test('the commands make the data that the recipe trains on', async () => {
  const inFolder = (text: string) => text.replace(/\bdata\/(?=few|many)/g, `${folder}/`)
  const text = await readFile(path, 'utf8')
  const comment = text
    .split('\n')
    .filter((line) => line.startsWith('#   '))
    .map((line) => line.slice(1).trim())
  const commands = comment.join('\n').replaceAll('\\\n', '').split('\n')
  expect(commands.at(-1)).toBe(`npx llava train ${path}`)
  for (const command of commands.slice(0, -1)) {
    const [, program, ...words] = inFolder(command).split(/\s+/)
    expect(program).toBe('llava')
    const { code, stderr } = await runHere(...words.map((word, at) => (words[at - 1] === '--count' ? '12' : word)))
    expect(code, stderr).toBe(0)
  }

  const recipe = join(folder, 'recipe.yaml')
  const short = inFolder(text)
    .replace(/^steps: .*$/m, 'steps: 2\nlogEvery: 1')
    .replaceAll('runs/picturebook-fuller-pictures', 'checkpoints/picturebook') // the run before it took a GPU
  await writeFile(recipe, short)
  const { code, stdout, stderr } = await runHere('train', recipe, '--out', join(folder, 'run'), '--json')
  expect(code, stderr).toBe(0)
  const events = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line))
  const learned = events.find(({ type, step }) => type === 'step' && step === 2)
  expect(learned?.loss).toBeLessThan(2) // of the embedded model, which knows such scenes
  expect(events.filter(({ type }) => type === 'skipped')).toEqual([])
  const { stdout: model } = await runHere('info', join(folder, 'run', 'model'))
  expect(model).toContain('8.2')
}, 300_000)
