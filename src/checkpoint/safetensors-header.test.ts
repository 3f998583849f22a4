import { describe, expect, test } from 'vitest'
import { longestHeader, parseHeader, parseHeaderLength } from './safetensors-header.ts'

const path = 'x.safetensors'

function parse(json: string | Uint8Array, dataBytes = 8) {
  return parseHeader(typeof json === 'string' ? new TextEncoder().encode(json) : json, { path, dataBytes })
}

function entry(shape: unknown, begin: unknown, end: unknown, dtype = 'F32'): string {
  return JSON.stringify({ dtype, shape, data_offsets: [begin, end] })
}

describe('parseHeader', () => {
  test('accepts tensors in any order, empty ones, scalars, metadata and padding', () => {
    const json = `{"b":${entry([1], 4, 8)},"empty":${entry([0, 7], 4, 4)},"a":${entry([], 0, 4)},"__metadata__":{"format":"pt"}}   `
    const { tensors, metadata } = parse(json)
    expect([...tensors.keys()]).toEqual(['b', 'empty', 'a'])
    expect(tensors.get('b')).toEqual({ dtype: 'F32', shape: [1], begin: 4, end: 8 })
    expect([...metadata]).toEqual([['format', 'pt']])
  })

  test('accepts a file without tensors', () => {
    expect(parse('{}', 0).tensors.size).toBe(0)
  })

  test('accepts equal keys in different objects', () => {
    expect(parse(`{"dtype":${entry([2], 0, 8)},"__metadata__":{"dtype":"x \\"dtype\\": 1"}}`).tensors.size).toBe(1)
  })

  test.each<[string, string, typeof Error, string]>([
    ['no JSON', '{"a":', SyntaxError, 'Cannot parse the header of x.safetensors'],
    ['an array', '[]', SyntaxError, 'the first byte is not "{"'],
    ['leading space', ' {}', SyntaxError, 'the first byte is not "{"'],
    ['a name twice', `{"a":${entry([1], 0, 4)},"a":${entry([1], 4, 8)}}`, SyntaxError, 'found the key "a" twice'],
    [
      'a name twice, once escaped',
      `{"a":${entry([1], 0, 4)},"\\u0061" :${entry([1], 4, 8)}}`,
      SyntaxError,
      '"a" twice',
    ],
    [
      'a field twice',
      '{"a":{"dtype":"F32","dtype":"F64","shape":[1],"data_offsets":[0,8]}}',
      SyntaxError,
      '"dtype" twice',
    ],
    ['__proto__', `{"__proto__":${entry([2], 0, 8)}}`, SyntaxError, '"__proto__"'],
    ['__proto__ in metadata', `{"a":${entry([2], 0, 8)},"__metadata__":{"__proto__":"x"}}`, SyntaxError, '"__proto__"'],
    ['metadata that are not text', `{"a":${entry([2], 0, 8)},"__metadata__":{"n":1}}`, SyntaxError, '__metadata__'],
    ['an unknown format', `{"a":${entry([2], 0, 8, 'F33')}}`, SyntaxError, 'tensor "a"'],
    ['a format named like a method', `{"a":${entry([2], 0, 8, 'toString')}}`, SyntaxError, 'dtype'],
    ['no shape', '{"a":{"dtype":"F32","data_offsets":[0,8]}}', SyntaxError, 'shape'],
    ['a negative size', `{"a":${entry([-2], 0, 8)}}`, SyntaxError, 'shape'],
    ['a fraction', `{"a":${entry([0.5, 4], 0, 8)}}`, SyntaxError, 'shape'],
    ['a size of null (NaN)', `{"a":${entry([null], 0, 8)}}`, SyntaxError, 'shape'],
    ['a size of 1e400', '{"a":{"dtype":"F32","shape":[1e400],"data_offsets":[0,8]}}', SyntaxError, 'shape'],
    ['an overflow', `{"a":${entry([2 ** 40, 2 ** 40], 0, 8)}}`, RangeError, 'overflows'],
    ['an overflow hidden by zero', `{"a":${entry([2 ** 40, 2 ** 40, 0], 0, 0)}}`, RangeError, 'overflows'],
    ['a wrong size', `{"a":${entry([3], 0, 8)}}`, RangeError, 'F32 [3] takes 12 bytes, found offsets [0, 8]'],
    ['a reversed range', `{"a":${entry([2], 8, 0)}}`, RangeError, 'offsets [8, 0]'],
    ['a negative offset', `{"a":${entry([2], -8, 0)}}`, SyntaxError, 'data_offsets'],
    ['three offsets', '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,8]}}', SyntaxError, 'data_offsets'],
    [
      'an overlap',
      `{"a":${entry([2], 0, 8)},"b":${entry([1], 4, 8)}}`,
      RangeError,
      'tensor "b" overlaps another tensor',
    ],
    ['a hole at the start', `{"a":${entry([1], 4, 8)}}`, RangeError, 'tensor "a" leaves a hole before it'],
    [
      'a hole between',
      `{"a":${entry([3], 0, 3, 'U8')},"b":${entry([1], 4, 8)}}`,
      RangeError,
      'found offset 4, expected 3',
    ],
    ['missing data', `{"a":${entry([3], 0, 12)}}`, RangeError, 'cut short, found 8 bytes of data, expected 12'],
    ['trailing data', `{"a":${entry([1], 0, 4)}}`, RangeError, 'trailing bytes, found 8 bytes of data, expected 4'],
  ])('refuses %s', (_, json, type, message) => {
    expect(() => parse(json)).toThrow(type)
    expect(() => parse(json)).toThrow(message)
  })

  test('refuses invalid UTF-8', () => {
    expect(() => parse(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x7d))).toThrow(
      new SyntaxError('Cannot parse the header of x.safetensors: found invalid UTF-8, expected JSON'),
    )
  })

  test('refuses a million nested brackets and a huge name without exhausting the stack', () => {
    const deep = `{"a":${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}}`
    expect(() => parse(deep)).toThrow(SyntaxError)
    const long = `{"${'\\n'.repeat(1_000_000)}":1}`
    expect(() => parse(long)).toThrow(SyntaxError)
    expect(() => parse(long)).not.toThrow(/.{400}/)
  })
})

describe('parseHeaderLength', () => {
  const parseLength = (length: bigint, fileBytes = 1000) => {
    const prefix = new Uint8Array(8)
    new DataView(prefix.buffer).setBigUint64(0, length, true)
    return parseHeaderLength(prefix, { path, fileBytes })
  }

  test('reads little-endian', () => {
    expect(parseLength(0x0102n)).toBe(0x0102)
  })

  test.each([
    0n,
    1n,
    993n,
    BigInt(longestHeader) + 1n,
    2n ** 53n + 1n,
    2n ** 63n,
    2n ** 64n - 1n,
  ])('refuses %d', (length) => {
    expect(() => parseLength(length)).toThrow(RangeError)
  })

  test('recognises a Git LFS pointer', () => {
    expect(() => parseHeaderLength(new TextEncoder().encode('version '), { path, fileBytes: 130 })).toThrow(
      'git lfs pull',
    )
  })
})
