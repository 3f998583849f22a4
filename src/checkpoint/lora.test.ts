import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { expectedTensors } from './layouts.ts'
import type { Weights } from './load.ts'
import { type LoraAdapter, type Matrix, mergeAdapter, readAdapter, unmergeAdapter, writeAdapter } from './lora.ts'
import { closeSafetensors, openSafetensors } from './safetensors.ts'
import { writeSafetensors } from './safetensors-writer.ts'
import { tinyClip } from './tiny-config.fixture.ts'

let folder = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'lora-'))
})
afterAll(() => rm(folder, { recursive: true, force: true }))

const matrix = (shape: readonly number[], seed: number): Matrix => ({
  shape,
  data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => 0.3 * Math.sin(seed + 1.7 * i)),
})
const model: Weights = new Map([...expectedTensors(tinyClip)].map(([name, shape], i) => [name, matrix(shape, i)]))

const rank = 3
const layers = [
  'languageModel.blocks.0.attention.query',
  'languageModel.blocks.1.mlp.down',
  'visionEncoder.blocks.1.mlp.up',
  'projector.layers.1',
]
const changes: LoraAdapter = {
  base: 'models/tiny',
  rank,
  alpha: 6,
  layers: new Map(
    layers.map((layer, i) => {
      const [out = 0, width = 0] = model.get(`${layer}.weight`)!.shape
      return [layer, { A: matrix([rank, width], 50 + i), B: matrix([out, rank], 60 + i) }]
    }),
  ),
  whole: new Map(),
}
const withWhole: LoraAdapter = {
  ...changes,
  whole: new Map([
    ['projector.layers.0.weight', matrix(model.get('projector.layers.0.weight')!.shape, 70)],
    ['projector.layers.0.bias', matrix(model.get('projector.layers.0.bias')!.shape, 71)],
  ]),
}

/** W + α/r · B A, one number at a time and in double precision. */
function slowMerge({ data, shape: [out = 0, width = 0] }: Matrix, { A, B }: { A: Matrix; B: Matrix }): number[] {
  return Array.from({ length: out * width }, (_, i) => {
    const [o, w] = [Math.floor(i / width), i % width]
    let change = 0
    for (let r = 0; r < rank; r++) change += B.data[o * rank + r]! * A.data[r * width + w]!
    return data[i]! + (changes.alpha / rank) * change
  })
}

const distance = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0)

describe('mergeAdapter', () => {
  test('adds α/r · B A to the adapted layers and leaves the others alone', async () => {
    const merged = await mergeAdapter(model, changes)
    expect([...merged.keys()]).toEqual([...model.keys()])
    for (const [name, weight] of model) {
      const pair = changes.layers.get(name.replace('.weight', ''))
      const found = merged.get(name)!
      expect(found.shape).toEqual(weight.shape)
      if (pair === undefined) expect(found.data).toEqual(weight.data)
      else {
        expect(distance(found.data, slowMerge(weight, pair))).toBeLessThan(1e-6)
        expect(distance(found.data, weight.data)).toBeGreaterThan(0.1)
      }
    }
  })

  test('is undone by unmergeAdapter', async () => {
    const back = await unmergeAdapter(await mergeAdapter(model, changes), changes)
    for (const [name, { data }] of model) expect(distance(back.get(name)!.data, data)).toBeLessThan(1e-6)
  })

  test('puts weights that were trained whole in their place, which nothing undoes', async () => {
    const merged = await mergeAdapter(model, withWhole)
    for (const [name, { data }] of withWhole.whole) expect(merged.get(name)!.data).toEqual(data)
    await expect(unmergeAdapter(merged, withWhole)).rejects.toThrow(
      'Cannot take the adapter out: it replaced projector.layers.0.weight as a whole',
    )
  })

  test('refuses a model with other layers', async () => {
    const wider = new Map([...model, ['projector.layers.1.weight', matrix([12, 13], 0)] as const])
    await expect(mergeAdapter(wider, changes)).rejects.toThrow(
      'Cannot merge the adapter: found [12, 13] for projector.layers.1.weight in the model, expected [12, 12] as in the adapter',
    )
    const shallow = new Map([...model].filter(([name]) => !name.startsWith('languageModel.blocks.1.')))
    await expect(mergeAdapter(shallow, changes)).rejects.toThrow(
      'found no such weight for languageModel.blocks.1.mlp.down.weight',
    )
  })
})

describe('an adapter folder', () => {
  test('gives back to the bit what was written, and nothing else lies there', async () => {
    const path = join(folder, 'written')
    await writeAdapter(path, withWhole)
    await writeAdapter(path, withWhole) // in place of an adapter
    expect((await readdir(path)).sort()).toEqual(['adapter_config.json', 'adapter_model.safetensors'])
    expect(await readAdapter(path)).toEqual(withWhole)
  })

  test('has the names and the config of PEFT', async () => {
    const path = join(folder, 'written')
    const file = await openSafetensors(join(path, 'adapter_model.safetensors'))
    await closeSafetensors(file)
    expect([...file.tensors.keys()].sort()).toEqual([
      'base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight',
      'base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_B.weight',
      'base_model.model.model.language_model.layers.1.mlp.down_proj.lora_A.weight',
      'base_model.model.model.language_model.layers.1.mlp.down_proj.lora_B.weight',
      'base_model.model.model.multi_modal_projector.linear_1.bias',
      'base_model.model.model.multi_modal_projector.linear_1.weight',
      'base_model.model.model.multi_modal_projector.linear_2.lora_A.weight',
      'base_model.model.model.multi_modal_projector.linear_2.lora_B.weight',
      'base_model.model.model.vision_tower.vision_model.encoder.layers.1.mlp.fc1.lora_A.weight',
      'base_model.model.model.vision_tower.vision_model.encoder.layers.1.mlp.fc1.lora_B.weight',
    ])
    expect(JSON.parse(await readFile(join(path, 'adapter_config.json'), 'utf8'))).toMatchObject({
      peft_type: 'LORA',
      task_type: 'CAUSAL_LM',
      base_model_name_or_path: 'models/tiny',
      r: 3,
      lora_alpha: 6,
      target_modules: [
        'model.language_model.layers.0.self_attn.q_proj',
        'model.language_model.layers.1.mlp.down_proj',
        'model.vision_tower.vision_model.encoder.layers.1.mlp.fc1',
        'model.multi_modal_projector.linear_2',
      ],
      modules_to_save: ['model.multi_modal_projector'],
    })
  })

  test.each([
    ['language_model.model.layers.0.self_attn.q_proj', 'transformers before 4.52'],
    ['model.layers.0.self_attn.q_proj', "the paper's code"],
  ])('is read with names such as %s (%s)', async (module) => {
    const path = join(folder, 'foreign')
    const { A, B } = changes.layers.get(layers[0]!)!
    await cp(join(folder, 'written'), path, { recursive: true })
    await writeSafetensors(join(path, 'adapter_model.safetensors'), {
      [`base_model.model.${module}.lora_A.weight`]: A,
      [`base_model.model.${module}.lora_B.weight`]: B,
    })
    expect((await readAdapter(path)).layers).toEqual(new Map([[layers[0], { A, B }]]))
  })

  test('is not written over other things', async () => {
    await writeFile(join(folder, 'foreign', 'notes.txt'), 'keep')
    await expect(writeAdapter(join(folder, 'foreign'), changes)).rejects.toThrow(/^Cannot write folder .*foreign/)
    expect(await readFile(join(folder, 'foreign', 'notes.txt'), 'utf8')).toBe('keep')
  })
})

describe('readAdapter refuses', () => {
  const base = 'base_model.model.model.language_model.layers.0.self_attn.q_proj'
  const pair = { [`${base}.lora_A.weight`]: matrix([3, 12], 0), [`${base}.lora_B.weight`]: matrix([12, 3], 1) }
  const plain = { peft_type: 'LORA', r: 3, lora_alpha: 6 }
  let count = 0
  const refused = async (config: Record<string, unknown>, tensors: Record<string, Matrix>) => {
    const path = join(folder, `bad-${count++}`)
    await writeAdapter(path, changes)
    await writeFile(join(path, 'adapter_config.json'), JSON.stringify(config))
    await writeSafetensors(join(path, 'adapter_model.safetensors'), tensors)
    return readAdapter(path).then(
      () => 'nothing',
      (error: Error) => `${error.name}: ${error.message.replace(path, 'X')}`,
    )
  }

  test('nothing that is plain', async () => expect(await refused(plain, pair)).toBe('nothing'))

  test.each([
    ['another method', { peft_type: 'IA3' }, /^TypeError: Cannot read the adapter X: .*peft_type/],
    ['a rank of 0', { r: 0 }, /r: /],
    ['DoRA', { use_dora: true }, /use_dora is true, expected false/],
    ['another scale', { use_rslora: true }, /use_rslora is true, expected false/],
    ['ranks by layer', { rank_pattern: { q_proj: 4 } }, /rank_pattern.q_proj is 4, expected nothing/],
    ['trained biases', { bias: 'all' }, /bias is "all", expected "none"/],
    [
      'tensors of another rank',
      { r: 4 },
      /^RangeError: .*found lora_A \[3, 12\] .* expected rank 4 as in adapter_config/,
    ],
  ])('%s', async (_, change, message) => {
    expect(await refused({ ...plain, ...change }, pair)).toMatch(message)
  })

  test('a layer without one half', async () => {
    const { [`${base}.lora_B.weight`]: _, ...half } = pair
    expect(await refused(plain, half)).toBe(
      'Error: Cannot read the adapter X: found no lora_B for languageModel.blocks.0.attention.query, expected both halves',
    )
  })

  test('tensors that it does not know, and no layers at all', async () => {
    const strange = { 'base_model.model.model.language_model.layers.0.gate.lora_A.weight': matrix([3, 12], 0) }
    expect(await refused(plain, { ...pair, ...strange })).toMatch(/^Error: .*found tensor ".*layers\.0\.gate\.lora_A/)
    expect(await refused(plain, { 'lora_A.weight': matrix([1], 0) })).toMatch(/found tensor "lora_A\.weight", expected/)
    expect(await refused(plain, {})).toMatch(/found no lora_A and lora_B in it/)
  })

  test('folders that lack a file, and pickles', async () => {
    await expect(readAdapter(join(folder, 'none'))).rejects.toThrow(
      /none: there is no such folder, expected a folder with/,
    )
    const path = join(folder, 'lacking')
    await writeAdapter(path, changes)
    await writeFile(join(path, 'non_lora_trainables.bin'), '')
    await expect(readAdapter(path)).rejects.toThrow('found non_lora_trainables.bin, a pickle that can run code')
    await rm(join(path, 'non_lora_trainables.bin'))
    await rm(join(path, 'adapter_config.json'))
    await expect(readAdapter(path)).rejects.toThrow('found no adapter_config.json in it')
  })
})
