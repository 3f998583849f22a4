/** The exported ONNX graphs in another runtime, onnxruntime-web (WebAssembly), give the answer that we give. */

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { env, InferenceSession, Tensor } from 'onnxruntime-web'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { exportOnnx } from '../src/generation/export-onnx.ts'
import { greedy } from '../src/generation/sampling.ts'
import { askHere, picturebook } from './ask-here.ts'

const root = mkdtempSync(join(tmpdir(), 'llava-onnx-'))
const folder = join(root, 'exported')

env.wasm.numThreads = 1 // its worker threads wait by spinning

beforeAll(() => exportOnnx(folder, { from: picturebook }))
afterAll(() => rmSync(root, { recursive: true }))

type Described = {
  graphs: Record<string, { file: string; inputs: Port[]; outputs: Port[] }>
  weights: { file: string; bytes: number }[]
}
type Port = { name: string; dtype: string; shape: (number | string)[] }

test('a picture and a question in onnxruntime-web, by llava.json alone, answer as here', {
  timeout: 300_000,
}, async () => {
  const description: Described = JSON.parse(readFileSync(join(folder, 'llava.json'), 'utf8'))
  const externalData = description.weights.map(({ file }) => ({ path: file, data: readFileSync(join(folder, file)) }))
  const open = (name: string) =>
    InferenceSession.create(readFileSync(join(folder, description.graphs[name]!.file)), { externalData })
  const { prompt, expected } = await askHere('How many ducks are there?')

  const encode = await open('encode')
  const side = Number(description.graphs.encode!.inputs[0]!.shape[3])
  const pixels = new Tensor('float32', prompt.pictures[0]!.pixels, [1, 3, side, side])
  const { visualTokens } = await encode.run({ pixels }, ['visualTokens'])

  const language = await open('language')
  const cachePorts = description.graphs.language!.inputs.filter(({ name }) => /^(key|value)\./.test(name))
  const run = async (session: InferenceSession, inputs: Record<string, Tensor>, past: number) => {
    const count = inputs.ids!.dims[1]!
    const outputs = await session.run({
      ...inputs,
      lastIndex: new Tensor('int32', [past + count - 1], [1]),
      total: new Tensor('int32', [past + count], []),
    })
    const cache = Object.fromEntries(cachePorts.map(({ name }) => [name, outputs[`next:${name}`]! as Tensor]))
    return { token: greedy(outputs.logits!.data as Float32Array), cache }
  }
  const empty = Object.fromEntries(
    cachePorts.map(({ name, shape }) => [
      name,
      new Tensor('float32', new Float32Array(), [1, Number(shape[1]), 0, Number(shape[3])]),
    ]),
  )
  const { ids, pictures } = prompt
  const start = pictures[0]!.start
  const inputs = {
    ids: new Tensor('int64', BigInt64Array.from(ids, BigInt), [1, ids.length]),
    visualTokens: (visualTokens! as Tensor).reshape(visualTokens!.dims.slice(1)), // [M, D]
    places: new Tensor(
      'int64',
      BigInt64Array.from({ length: visualTokens!.dims[1]! }, (_, i) => BigInt(start + i)),
    ),
    lastRows: new Tensor('int64', BigInt64Array.of(BigInt(ids.length - 1))),
  }
  let { token, cache } = await run(language, { ...inputs, ...empty }, 0)
  const tokens = [token]
  while (tokens.length < expected.length) {
    const next = {
      ids: new Tensor('int64', BigInt64Array.of(BigInt(token)), [1, 1]),
      visualTokens: new Tensor('float32', new Float32Array(), [0, visualTokens!.dims[2]!]),
      places: new Tensor('int64', new BigInt64Array()),
      lastRows: new Tensor('int64', BigInt64Array.of(0n)),
      ...cache,
    }
    ;({ token, cache } = await run(language, next, ids.length + tokens.length - 1))
    tokens.push(token)
  }
  expect(tokens).toEqual(expected)
})

test('llava.json names every file there is, and every weight lies within its file', () => {
  const description = JSON.parse(readFileSync(join(folder, 'llava.json'), 'utf8'))
  const graphs = Object.values<{ file: string }>(description.graphs).map(({ file }) => file)
  const weights: string[] = description.weights.map(({ file }: { file: string }) => file)
  expect(readdirSync(folder).sort()).toEqual([...graphs, ...weights, ...description.files, 'llava.json'].sort())
  for (const { file, bytes } of description.weights) expect(readFileSync(join(folder, file)).length).toBe(bytes)
})

test('another export is replaced, a folder of other things is not', async () => {
  await exportOnnx(folder, { from: picturebook })
  await expect(exportOnnx(picturebook, { from: picturebook })).rejects.toThrow('Cannot write folder')
  expect(readdirSync(root)).toEqual(['exported'])
})
