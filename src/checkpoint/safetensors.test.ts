import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Dtype, dtypeBytes } from './dtype.ts'
import { closeSafetensors, openSafetensors, readTensor, type StoredTensor } from './safetensors.ts'
import { writeSafetensors } from './safetensors-writer.ts'

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'))
})
afterAll(() => rm(folder, { recursive: true }))

async function readAll(path: string): Promise<Map<string, StoredTensor>> {
  const file = await openSafetensors(path)
  try {
    const tensors = new Map<string, StoredTensor>()
    for (const name of file.tensors.keys()) tensors.set(name, await readTensor(file, name))
    return tensors
  } finally {
    await closeSafetensors(file)
  }
}

const anyTensor = fc
  .record({
    dtype: fc.constantFrom(...(Object.keys(dtypeBytes) as Dtype[])),
    shape: fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 4 }),
  })
  .chain(({ dtype, shape }) => {
    const bytes = shape.reduce((a, b) => a * b, 1) * dtypeBytes[dtype]
    return fc.uint8Array({ minLength: bytes, maxLength: bytes }).map((data) => ({ dtype, shape, data }))
  })
const reserved = ['__metadata__', '__proto__', 'constructor', 'prototype']
const anyName = fc.string({ unit: 'binary', maxLength: 12 }).filter((name) => !reserved.includes(name))

describe('round trip', () => {
  test('any tensors come back with every name, format, shape and byte', async () => {
    const path = join(folder, 'any.safetensors')
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.tuple(anyName, anyTensor), { selector: ([name]) => name }),
        async (tensors) => {
          await writeSafetensors(path, tensors)
          const read = await readAll(path)
          expect(read.size).toBe(tensors.length)
          for (const [name, tensor] of tensors) expect(read.get(name)).toEqual(tensor)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('the data start at a multiple of 8 and the widest numbers come first', async () => {
    const path = join(folder, 'aligned.safetensors')
    await writeSafetensors(path, {
      odd: { dtype: 'U8', shape: [3], data: Uint8Array.of(1, 2, 3) },
      wide: { dtype: 'F64', shape: [1], data: new Uint8Array(8) },
      half: { dtype: 'F16', shape: [1], data: new Uint8Array(2) },
      weight: { shape: [2], data: Float32Array.of(1, 2) },
    })
    const file = await openSafetensors(path)
    await closeSafetensors(file)
    expect(file.dataStart % 8).toBe(0)
    expect([...file.tensors].map(([name, { begin }]) => [name, begin])).toEqual([
      ['wide', 0],
      ['weight', 8],
      ['half', 16],
      ['odd', 18],
    ])
  })

  test('writes exactly the bytes of the format', async () => {
    const path = join(folder, 'bytes.safetensors')
    await writeSafetensors(
      path,
      { a: { shape: [1], data: Float32Array.of(1) } },
      { dtype: 'BF16', metadata: { format: 'pt' } },
    )
    const json = '{"__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    const padded = json.padEnd(Math.ceil(json.length / 8) * 8)
    expect(await readFile(path)).toEqual(
      Buffer.concat([
        Buffer.from([padded.length, 0, 0, 0, 0, 0, 0, 0]),
        Buffer.from(padded),
        Buffer.from([0x80, 0x3f]),
      ]),
    )
  })
})

describe('openSafetensors', () => {
  test('any mutation gives an error or tensors that fill their shapes', async () => {
    const good = join(folder, 'good.safetensors')
    const bad = join(folder, 'bad.safetensors')
    await writeSafetensors(good, {
      'a.weight': { shape: [2, 3], data: Float32Array.of(1, 2, 3, 4, 5, 6) },
      b: { dtype: 'U8', shape: [5], data: new Uint8Array(5) },
    })
    const bytes = await readFile(good)
    const mutation = fc.oneof(
      fc.record({ at: fc.nat(bytes.length - 1), value: fc.integer({ min: 0, max: 255 }) }),
      fc.record({ at: fc.nat(bytes.length - 1), value: fc.constantFrom(...Buffer.from('0123456789"{}[],:-.e\\')) }),
      fc.record({ cut: fc.nat(bytes.length) }),
      fc.record({ add: fc.uint8Array({ minLength: 1, maxLength: 9 }) }),
    )
    let refused = 0
    await fc.assert(
      fc.asyncProperty(fc.array(mutation, { minLength: 1, maxLength: 3 }), async (mutations) => {
        let changed = Buffer.from(bytes)
        for (const step of mutations) {
          if ('cut' in step) changed = changed.subarray(0, step.cut)
          else if ('add' in step) changed = Buffer.concat([changed, step.add])
          else if (step.at < changed.length) changed[step.at] = step.value
        }
        await writeFile(bad, changed)
        const result = await readAll(bad).catch((error: unknown) => error)
        if (result instanceof Map) {
          for (const { dtype, shape, data } of (result as Map<string, StoredTensor>).values()) {
            expect(data.byteLength).toBe(shape.reduce((a, b) => a * b, 1) * dtypeBytes[dtype])
          }
        } else {
          refused++
          expect(result).toBeInstanceOf(Error)
          expect((result as Error).message).toMatch(/^Cannot (read|parse) .*bad\.safetensors/)
        }
      }),
      { numRuns: 400 },
    )
    expect(refused).toBeGreaterThan(100)
  })

  test('a file cut after it was opened is an error, not zeros', async () => {
    const path = join(folder, 'cut.safetensors')
    await writeSafetensors(path, { a: { shape: [100], data: new Float32Array(100) } })
    const file = await openSafetensors(path)
    await truncate(path, file.dataStart + 10)
    await expect(readTensor(file, 'a')).rejects.toThrow(/tensor "a" .* the file ends at byte/)
    await expect(readTensor(file, 'b')).rejects.toThrow(RangeError)
    await closeSafetensors(file)
  })

  test('refuses an empty file and a missing one', async () => {
    const path = join(folder, 'empty.safetensors')
    await writeFile(path, '')
    await expect(openSafetensors(path)).rejects.toThrow('found 0 bytes')
    await expect(openSafetensors(join(folder, 'nothing'))).rejects.toThrow('ENOENT')
  })

  test('does not read what is not asked for', async () => {
    const path = join(folder, 'sparse.safetensors')
    const huge = 2 ** 32
    const header = Buffer.from(
      JSON.stringify({
        huge: { dtype: 'U8', shape: [huge], data_offsets: [0, huge] },
        small: { dtype: 'U8', shape: [1], data_offsets: [huge, huge + 1] },
      }),
    )
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(header.length))
    await writeFile(path, Buffer.concat([length, header]))
    await truncate(path, 8 + header.length + huge + 1) // sparse: takes no space
    const file = await openSafetensors(path)
    expect((await readTensor(file, 'small')).data).toEqual(Uint8Array.of(0))
    await closeSafetensors(file)
  })
})

describe('writeSafetensors', () => {
  test('keeps the old file and leaves nothing beside when writing fails', async () => {
    const inner = await mkdtemp(join(folder, 'inner-'))
    const path = join(inner, 'model.safetensors')
    await writeSafetensors(path, { a: { shape: [1], data: Float32Array.of(7) } })
    const before = await readFile(path)
    let reads = 0
    const failing = {
      shape: [1],
      get data(): Float32Array {
        if (++reads > 1) throw new Error('ENOSPC: no space left on device') // the second look is the one while writing
        return new Float32Array(1)
      },
    }
    const tensors = { a: { shape: [1], data: Float32Array.of(8) }, b: failing }
    await expect(writeSafetensors(path, tensors)).rejects.toThrow('ENOSPC')
    expect(reads).toBe(2)
    expect(await readFile(path)).toEqual(before)
    expect(await readdir(inner)).toEqual(['model.safetensors'])
  })

  test.each<[string, [string, { shape: number[]; data: Float32Array }][], string]>([
    [
      'too few values',
      [['a', { shape: [3], data: new Float32Array(2) }]],
      'found 2 elements of F32 for shape [3], expected 3',
    ],
    ['negative sizes', [['a', { shape: [-1, -2], data: new Float32Array(2) }]], 'shape [-1,-2]'],
    ['a reserved name', [['__metadata__', { shape: [], data: new Float32Array(1) }]], '"__metadata__"'],
    [
      'a name twice',
      [
        ['a', { shape: [], data: new Float32Array(1) }],
        ['a', { shape: [], data: new Float32Array(1) }],
      ],
      'found it twice',
    ],
  ])('refuses %s before touching the disk', async (_, tensors, message) => {
    const path = join(folder, 'refused.safetensors')
    await expect(writeSafetensors(path, tensors)).rejects.toThrow(message)
    await expect(readFile(path)).rejects.toThrow('ENOENT')
  })
})
