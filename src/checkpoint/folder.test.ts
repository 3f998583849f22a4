import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { closeCheckpoint, openCheckpoint, readCheckpointTensor } from './folder.ts'
import { writeSafetensors } from './safetensors-writer.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'folder-'))
  await shard('one.safetensors', { a: 1 })
  await shard('two.safetensors', { b: 2, extra: 3 })
})
afterEach(() => rm(folder, { recursive: true }))

async function shard(file: string, values: Record<string, number>): Promise<void> {
  const tensors = Object.entries(values).map(
    ([name, value]) => [name, { shape: [1], data: Float32Array.of(value) }] as const,
  )
  await writeSafetensors(join(folder, file), tensors)
}

async function index(content: unknown): Promise<void> {
  const text = typeof content === 'string' ? content : JSON.stringify(content)
  await writeFile(join(folder, 'model.safetensors.index.json'), text)
}

describe('openCheckpoint', () => {
  test('reads tensors from the shards that the index names', async () => {
    await index({ metadata: { total_size: 8 }, weight_map: { b: 'two.safetensors', a: 'one.safetensors' } })
    const checkpoint = await openCheckpoint(folder)
    expect([...checkpoint.tensors.keys()].sort()).toEqual(['a', 'b'])
    const { data } = await readCheckpointTensor(checkpoint, 'b')
    expect(new Float32Array(data.buffer)).toEqual(Float32Array.of(2))
    await expect(readCheckpointTensor(checkpoint, 'extra')).rejects.toThrow(RangeError)
    await closeCheckpoint(checkpoint)
  })

  test('prefers the single file, also through a link as in the download cache', async () => {
    await index({ weight_map: { b: 'two.safetensors' } })
    await symlink('one.safetensors', join(folder, 'model.safetensors'))
    const checkpoint = await openCheckpoint(folder)
    expect([...checkpoint.tensors.keys()]).toEqual(['a'])
    await closeCheckpoint(checkpoint)
  })

  test.each<[string, unknown, string]>([
    [
      'a missing shard',
      { weight_map: { a: 'one.safetensors', c: 'three.safetensors' } },
      'names three.safetensors, which is missing',
    ],
    [
      'a missing tensor',
      { weight_map: { a: 'two.safetensors' } },
      'places tensor "a" in two.safetensors, which does not contain it',
    ],
    ['a path upwards', { weight_map: { a: '../one.safetensors' } }, 'found the shard name "../one.safetensors"'],
    ['an absolute path', { weight_map: { a: '/etc/one.safetensors' } }, 'found the shard name'],
    ['a path with backslashes', { weight_map: { a: '..\\one.safetensors' } }, 'found the shard name'],
    ['a shard that is no safetensors file', { weight_map: { a: 'one.bin' } }, 'found the shard name "one.bin"'],
    ['no weight map', {}, 'weight_map'],
    ['an empty weight map', { weight_map: {} }, 'weight_map is empty'],
    ['numbers for names', { weight_map: { a: 1 } }, 'weight_map'],
    ['broken JSON', '{"weight_map"', 'index.json'],
    ['a tensor twice', '{"weight_map":{"a":"one.safetensors","a":"two.safetensors"}}', 'found the key "a" twice'],
  ])('refuses an index with %s', async (_, content, message) => {
    await index(content)
    await expect(openCheckpoint(folder)).rejects.toThrow(message)
  })

  test('says what to do when there are only shards, only pickles, only GGUF, or nothing', async () => {
    await expect(openCheckpoint(folder)).rejects.toThrow('without its index')
    await rm(join(folder, 'one.safetensors'))
    await rm(join(folder, 'two.safetensors'))
    await expect(openCheckpoint(folder)).rejects.toThrow('found neither')
    await writeFile(join(folder, 'model-q4_0.gguf'), '')
    await expect(openCheckpoint(folder)).rejects.toThrow('found only model-q4_0.gguf, a GGUF file')
    await rm(join(folder, 'model-q4_0.gguf'))
    await writeFile(join(folder, 'mm_projector.bin'), '') // beside the whole model in original releases
    await writeFile(join(folder, 'pytorch_model-00001-of-00002.bin'), '')
    await expect(openCheckpoint(folder)).rejects.toThrow(
      /found only pytorch_model-00001-of-00002\.bin, a pickle .*save_file/,
    )
    await expect(openCheckpoint(join(folder, 'nowhere'))).rejects.toThrow('ENOENT')
  })
})
