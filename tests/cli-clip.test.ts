/** The command clip, on the models that parity is held on. */

import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { runHere } from './run-here.ts'

const picture = fileURLToPath(new URL('../fixtures/image/plain.jpg', import.meta.url))
const folderOf = (kind: string) => fileURLToPath(new URL(`../fixtures/parity/${kind}`, import.meta.url))

test('shows the labels of each picture, the best first', async () => {
  const words = ['clip', picture, picture, 'cat', 'dog', '--model', folderOf('clip'), '--threads', '1']
  const { code, stdout, stderr } = await runHere(...words)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  const lines = stdout.split('\n')
  expect(lines.filter((line) => line === picture)).toHaveLength(2)
  const shares = lines.flatMap((line) => /(\d+\.\d) %/.exec(line)?.[1] ?? []).map(Number)
  expect(shares).toHaveLength(4)
  expect(shares[0]).toBeGreaterThanOrEqual(shares[1]!)
  expect(shares[0]! + shares[1]!).toBeCloseTo(100, 0)
})

test.each(['clip', 'siglip'])('prints one object with --json: %s', async (kind) => {
  const { code, stdout } = await runHere('clip', picture, 'cat', 'dog', '--model', folderOf(kind), '--json')
  expect(code).toBe(0)
  const { pictures, model } = JSON.parse(stdout)
  expect(model).toBe(folderOf(kind))
  expect(pictures).toEqual([
    {
      image: picture,
      labels: ['cat', 'dog'].map((label) => ({
        label,
        text: `This is a photo of ${label}.`,
        probability: expect.any(Number),
        similarity: expect.any(Number),
      })),
    },
  ])
})

test.each([
  ['no label', [picture], 'found no label after the picture'],
  ['no picture of that name', ['missing.png', 'cat'], 'Cannot read missing.png: no such file'],
  ['an empty label', [picture, 'cat', ' '], 'a label is empty'],
  ['one label for CLIP', [picture, 'cat'], 'found one label, expected two or more'],
  ['a template without a place', [picture, 'cat', 'dog', '--template', 'photo'], 'found no {}'],
  ['a text that is too long', [picture, 'cat', 'dog '.repeat(40)], 'tokens, expected at most 24'],
])('refuses %s', async (_, words, reason) => {
  const { code, stdout, stderr } = await runHere('clip', ...words, '--model', folderOf('clip'))
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^llava: Cannot .*[^.]\n$/)
  expect(stderr).toContain(reason)
})

test('compares one text as it is with --similarity, and cuts long ones on request', async () => {
  const words = [
    'clip',
    picture,
    'dog '.repeat(40),
    '--similarity',
    '--truncate',
    '--json',
    '--model',
    folderOf('clip'),
  ]
  const { code, stdout } = await runHere(...words)
  expect(code).toBe(0)
  const [{ labels }] = JSON.parse(stdout).pictures
  expect(labels).toEqual([{ label: 'dog '.repeat(40), similarity: expect.any(Number) }])
})
