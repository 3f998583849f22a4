import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { show, tellWrongFields } from './wrong-fields.ts'

const schema = z.strictObject({
  name: z.string().regex(/^\w+$/, 'letters and digits'),
  steps: z.int().positive(),
  share: z.number().min(0).max(1).optional(),
  curve: z.enum(['cosine', 'linear']).optional(),
  data: z.union([
    z.strictObject({ file: z.string() }),
    z.strictObject({ folder: z.string() }),
    z.array(z.string()).min(1),
  ]),
  rates: z.partialRecord(z.enum(['encoder', 'projector']), z.number()).optional(),
})

const fine = { name: 'a', steps: 1, data: { file: 'x' } }

function told(value: unknown): string {
  const { error } = schema.safeParse(value)
  return error === undefined ? '' : tellWrongFields(error, value)
}

describe('tellWrongFields', () => {
  test.each<[string, unknown, string]>([
    ['nothing', fine, ''],
    ['another kind of file', 'text', 'it is "text", expected an object'],
    ['a missing field', { ...fine, name: undefined }, 'name is missing, expected a string'],
    ['a wrong type', { ...fine, name: 3 }, 'name is 3, expected a string'],
    ['a wrong form', { ...fine, name: '-' }, 'name is "-", expected letters and digits'],
    ['a fraction', { ...fine, steps: 1.5 }, 'steps is 1.5, expected an integer'],
    ['an open limit', { ...fine, steps: 0 }, 'steps is 0, expected more than 0'],
    ['a closed limit', { ...fine, share: 2 }, 'share is 2, expected at most 1'],
    ['an unknown word', { ...fine, curve: 'bow' }, 'curve is "bow", expected "cosine" or "linear"'],
    ['an unknown key', { ...fine, stepz: 3 }, 'stepz is no known key'],
    ['none of several forms', { ...fine, data: 3 }, 'data is 3, expected an object or a list'],
    ['a field of one of several forms', { ...fine, data: { folder: 7 } }, 'data.folder is 7, expected a string'],
    ['an entry of a list', { ...fine, data: ['a', 7] }, 'data.1 is 7, expected a string'],
    ['an empty list', { ...fine, data: [] }, 'data is [], expected at least 1 entry'],
  ])('%s', (_, value, text) => {
    expect(told(value)).toBe(text)
  })

  test('a misspelt key of one of several forms is named as such', () => {
    expect(told({ ...fine, data: { flie: 'x' } })).toContain('data.flie is no known key')
  })

  test('a key that a table does not know is named', () => {
    expect(told({ ...fine, rates: { encodr: 1 } })).toMatch(/^rates\.encodr is no known key/)
  })

  test('of very many, some are told', () => {
    const many = Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`extra${index}`, 1]))
    expect(told({ ...fine, ...many })).toMatch(/^extra0 is no known key; .*extra7 is no known key; and 12 more$/)
  })
})

test('values are cut where they are long', () => {
  expect(show('a'.repeat(200))).toHaveLength(81)
  expect(show(undefined)).toBe('missing')
  expect(show(JSON.parse('['.repeat(100_000) + ']'.repeat(100_000)))).toBe('too deep to show')
})
