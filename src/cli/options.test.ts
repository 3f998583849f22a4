import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { decimalNumber, entriesOf, expectWritableFile, expectWritableFolder, oneOf, wholeNumber } from './options.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llava-options-'))
  await writeFile(join(folder, 'file'), '')
})
afterAll(() => rm(folder, { recursive: true }))

describe('numbers', () => {
  test('inside the range are taken', () => {
    expect(wholeNumber('--n', { from: 1 })('12')).toBe(12)
    expect(wholeNumber('--n')('-3')).toBe(-3)
    expect(decimalNumber('--t', { from: 0 })('.5')).toBe(0.5)
    expect(decimalNumber('--t', { from: 0 })('1e-2')).toBe(0.01)
  })

  test.each([
    '0',
    'abc',
    '',
    '1.5',
    '1e3',
    '0x10',
    '99999999999999999',
    'NaN',
    'Infinity',
  ])('a whole number from 1 up is not %j', (text) => {
    const parse = () => wholeNumber('--max-tokens', { from: 1 })(text)
    expect(parse).toThrow(RangeError)
    expect(parse).toThrow(`Cannot use --max-tokens ${text || "''"}: expected a whole number from 1 up`)
  })

  test('the range is told as it is', () => {
    expect(() => decimalNumber('--p', { above: 0, to: 1 })('0')).toThrow('expected a number above 0 up to 1')
    expect(() => decimalNumber('--p', { from: 0, to: 1 })('2')).toThrow('expected a number from 0 to 1')
    expect(() => wholeNumber('--seed')('x')).toThrow(/expected a whole number$/)
  })

  test('words are taken in any case', () => {
    expect(oneOf('--dtype', ['F32', 'BF16'])('bf16')).toBe('BF16')
    expect(() => oneOf('--dtype', ['F32', 'BF16'])('int8')).toThrow('Cannot use --dtype int8: expected F32, BF16')
  })
})

describe('places to write to', () => {
  test('may be new', async () => {
    await expectWritableFile('--out', join(folder, 'new.safetensors'))
    await expectWritableFolder('--out', join(folder, 'a', 'b', 'c'))
    expect(await entriesOf(folder)).toEqual(['file'])
    expect(await entriesOf(join(folder, 'a'))).toEqual([])
  })

  test('are refused where nothing can be written', async () => {
    await expect(expectWritableFile('--out', folder)).rejects.toThrow('it is a folder, expected a file name')
    await expect(expectWritableFile('--out', join(folder, 'no', 'x'))).rejects.toThrow('there is no folder')
    await expect(expectWritableFile('--out', join(folder, 'file', 'x'))).rejects.toThrow('there is no folder')
    await expect(expectWritableFolder('--out', join(folder, 'file', 'x'))).rejects.toThrow(
      'is a file, expected a folder',
    )
  })
})
