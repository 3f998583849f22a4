import { expect, test } from 'vitest'
import { disposeTensor, residentTensor } from './resident-tensor.ts'
import { createSession, run } from './session.ts'
import { externalTensor, floats, graph, linear, node, opened } from './tiny-graphs.fixture.ts'

const fine = () => ({ x: floats([1, 2], [1, 1]), w: floats([2, 2], [1, 2, 3, 4]), b: floats([2], [0, 0]) })

test('errors quote what ONNX Runtime says about a model', async () => {
  await expect(createSession(Uint8Array.of(1, 2, 3))).rejects.toThrow(/^Cannot create session: .*protobuf/i)
  await expect(createSession(new Uint8Array(0))).rejects.toThrow(/^Cannot create session: ./)
  await expect(createSession('/nowhere/model.onnx')).rejects.toThrow(
    /^Cannot create session from \/nowhere\/model\.onnx: .*(exist|failed)/i,
  )
  const unknown = graph({ nodes: [node('Frobnicate', ['x'], ['y'])], inputs: ['x'], outputs: ['y'] })
  await expect(createSession(unknown)).rejects.toThrow(/Frobnicate/)
  await expect(createSession(linear, { threads: 0 })).rejects.toThrow(RangeError)
})

test('errors name the input or output that is wrong', async () => {
  const session = await opened(linear)
  const inputs = fine()
  const { b, ...without } = inputs
  await expect(run(session, without)).rejects.toThrow('Cannot run session: input "b" is missing')
  await expect(run(session, { ...inputs, z: b })).rejects.toThrow(
    'Cannot run session: unknown input "z", expected "x", "w", "b"',
  )
  await expect(run(session, { ...inputs, x: residentTensor('int64', [1, 2]) })).rejects.toThrow(
    new TypeError('Cannot run session: input "x" is int64, expected float32'),
  )
  await expect(run(session, inputs, { fetch: ['nothing'] })).rejects.toThrow('unknown output "nothing"')
  await expect(run(session, inputs, { outputs: { y: residentTensor('int8', [8]) } })).rejects.toThrow(
    new TypeError('Cannot run session: output "y" is int8, expected float32'),
  )
})

test('errors quote what ONNX Runtime says about shapes, and the session stays usable', async () => {
  const session = await opened(linear)
  const inputs = fine()
  await expect(run(session, { ...inputs, x: floats([1, 3], [1, 2, 3]) })).rejects.toThrow(
    /^Cannot run session: .*MatMul/s,
  )
  await expect(run(session, { ...inputs, x: floats([2], [1, 2]) })).rejects.toThrow(/^Cannot run session: .*rank.* x /s)
  await expect(run(session, inputs, { outputs: { y: residentTensor('float32', [2]) } })).rejects.toThrow(
    /^Cannot run session: Invalid rank for output: y/,
  )
  await expect(run(session, inputs, { outputs: { y: residentTensor('float32', [1, 1]) } })).rejects.toThrow(
    /^Cannot run session: .*output 'y'.* has shape \{1,1\}.*shape for this run is \{1,2\}/s,
  )
  expect([...(await run(session, inputs)).y!.data]).toEqual([4, 6])
})

test('errors refuse initializers that the model does not have or that do not fit', async () => {
  const model = graph({
    nodes: [node('Add', ['x', 'table'], ['y'])],
    inputs: ['x'],
    outputs: ['y'],
    initializers: [externalTensor('table', [64])],
  })
  await expect(createSession(model, { initializers: { table: residentTensor('float32', [63]) } })).rejects.toThrow(
    /^Cannot create session: .*dimensions do not match/s,
  )
  const nothing = residentTensor('float32', [64])
  await expect(createSession(model, { initializers: { nothing } })).rejects.toThrow(
    /^Cannot create session: .*initializer with name nothing/s,
  )
  await expect(createSession(model)).rejects.toThrow(/^Cannot create session: .*initializer: table/s)
  const gone = residentTensor('float32', [64])
  disposeTensor(gone)
  await expect(createSession(model, { initializers: { table: gone } })).rejects.toThrow(
    'Cannot create session with initializer "table": the tensor is disposed',
  )
})

test('errors refuse a tensor whose buffer was transferred away', async () => {
  const session = await opened(linear)
  const x = residentTensor('float32', [1, 2], { data: new Float32Array(2) })
  structuredClone(x.data.buffer, { transfer: [x.data.buffer as ArrayBuffer] })
  await expect(run(session, { ...fine(), x })).rejects.toThrow(/memory is gone/)
})
