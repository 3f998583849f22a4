import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type ClipModel, compileClip, disposeClip, embedPictures, readClipFolder } from './clip-model.ts'

const published = fileURLToPath(new URL('../../fixtures/parity/clip', import.meta.url))
let base = ''
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'clip-model-'))
})
afterAll(() => rm(base, { recursive: true, force: true }))

/** A copy of the published folder with one of its files changed. */
async function changed(name: string, { file, change }: { file: string; change: (text: string) => string | undefined }) {
  const folder = join(base, name)
  await cp(published, folder, { recursive: true })
  const text = change(await readFile(join(folder, file), 'utf8'))
  if (text === undefined) await rm(join(folder, file))
  else await writeFile(join(folder, file), text)
  return folder
}

describe('readClipFolder refuses, in a sentence that names folder and file,', () => {
  test.each([
    ['a missing tokenizer', 'tokenizer.json', () => undefined, /: tokenizer\.json is missing$/],
    ['broken JSON', 'config.json', () => '{', /: config\.json is not valid JSON/],
    [
      'another model',
      'config.json',
      () => '{"model_type":"bert"}',
      /config\.json: cannot read the model config: model_type is "bert"/,
    ],
    [
      'a config that contradicts the tensors',
      'config.json',
      (text: string) => text.replace('"projection_dim": 20', '"projection_dim": 24'),
      /the tensors do not fit the config: 2 misshaped \(.*\[20, 32\] instead of \[24, 32\]/,
    ],
    [
      'more tokens than the model knows',
      'config.json',
      (text: string) =>
        text.replace('"vocab_size": 574', '"vocab_size": 573').replace('"eos_token_id": 573', '"eos_token_id": 2'),
      /tokenizer\.json has ids up to 573, expected at most 572/,
    ],
    [
      'a processor of another family',
      'preprocessor_config.json',
      () => '{"image_processor_type":"BeitImageProcessor"}',
      /preprocessor_config\.json: /,
    ],
  ])('%s', async (name, file, change, reason) => {
    const folder = await changed(name.replaceAll(' ', '-'), { file, change })
    const failure = await readClipFolder(folder).catch((error: Error) => error.message)
    expect(failure).toMatch(/^Cannot load the model .*[^.]$/)
    expect(failure).toMatch(reason)
  })

  test('what is no folder', async () => {
    await expect(readClipFolder(join(base, 'nowhere'))).rejects.toThrow(/nowhere: there is no such folder$/)
  })
})

describe('a compiled model', () => {
  let model: ClipModel
  beforeAll(async () => {
    model = await compileClip(await readClipFolder(published), { threads: 1 })
  })
  afterAll(() => disposeClip(model))

  test('gives a picture the same embedding, alone or among more than are read at once', async () => {
    const pictures = Array.from({ length: 11 }, (_, n) =>
      Float32Array.from({ length: 3 * 28 * 28 }, (_, i) => Math.sin(i * (n + 1))),
    )
    const together = await embedPictures(model, pictures)
    const [alone] = await embedPictures(model, pictures.slice(10))
    expect(together).toHaveLength(11)
    for (const [i, value] of alone!.entries()) expect(value).toBeCloseTo(together[10]![i]!, 5)
    expect(Math.hypot(...alone!)).toBeCloseTo(1, 5)
  })

  test('refuses pictures of another size, and stops when told to', async () => {
    await expect(embedPictures(model, [new Float32Array(12)])).rejects.toThrow(/a picture of 12 values: expected 2352/)
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(embedPictures(model, [new Float32Array(2352)], { signal })).rejects.toThrow('enough')
  })

  test('that was stopped while it was compiled leaves nothing open', async () => {
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(compileClip(await readClipFolder(published), { signal })).rejects.toThrow('enough')
  })
})
